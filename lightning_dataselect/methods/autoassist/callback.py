"""AutoAssist: a very small network, trained next to the model, drops the samples it takes for easy.

Zhang, Yu, Dhillon, "AutoAssist: A Framework to Accelerate Training of Deep Neural Networks", NeurIPS 2019,
arXiv 1905.03381. The Assistant sees the raw input x and the label y of a sample; the model is the Boss.

    q_i = sigmoid(W . vec(x_i) + U[y_i])                            images, and here tabular features
    q_i = sigmoid(TF-IDF of the tokens, and the lengths)            token ids
    train on i with probability  P_i = b + (1 - b) q_i,  b = max(base_prob, 1 - EMA of the Assistant's accuracy)
    learn the target  1[l_i > Lbar],  Lbar = s / n,  n <- a n + (1 - a) B,  s <- a s + (1 - a) sum_i l_i  each batch

with a = 0.75, learning rate 0.01 and L2 0.001, base_prob = 0.3. For text Lbar is the mean loss of the epoch before,
the learning rate 0.5, L2 0.1, base_prob 1 in the first epoch and then 0.5. A step is the learning rate over B times the
sum of the gradient summed over the batch and L2 times the weights. The accuracy's EMA keeps 0.95 at each batch, and
starts at 0, as in the authors' code for text; their code for images trusts the Assistant from the start, ``b`` being
base_prob.
There is no reweighting. As in the authors' code, batches wait in a queue ahead of the Boss (20; text 50), losses go
back on a second one, which drops its oldest record when it is full, and the Assistant, a thread on the CPU, learns only
while enough judged batches wait (5; text 10), or while there are no more to judge.

Choices of our own. The authors fill batches up with accepted samples of later ones and count an epoch in full batches:
the same cost an epoch, and fewer epochs. Here each batch is *cut* to its accepted samples: the same epochs, each one
cheaper. Batches that a collate function padded to different lengths cannot be joined; and as every batch of the loader
is trained on in its turn, ``is_last_batch``, gradient accumulation, schedules, ``drop_last``, what a sample's loss is
written to, equal batch counts on every rank and resuming stay exact. With several ranks the mean over ranks weighs each
rank's batch the same, however many samples are left of it.

A batch that the Assistant has not judged in time is trained whole. At least two samples of a batch are kept, for
BatchNorm's sake. Weights start at 0, and those of all classes decay, where the code lets those of the batch's classes
decay, once for each sample. Lbar counts a batch in before its losses are compared
with it; as in the paper it is the mean of what was trained. The Assistant sees images larger than 32 x 32 averaged
down to that and features through ``asinh``; it was right about a sample where ``q > 1/2`` and the loss is high, or
neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.data.passed_on import filter_batches, has_state
from lightning_dataselect.methods.autoassist.assistant import Assistant, Verdict
from lightning_dataselect.methods.autoassist.inputs import InputFinder, Kind, SampleInputs
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS, Conventions, make_network
from lightning_dataselect.methods.autoassist.prefetch_filter import PrefetchFilter
from lightning_dataselect.methods.autoassist.queue import BatchQueue, InlineQueue, PendingBatch, ThreadedQueue
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.state.compute_budget import measured_sample_cost
from lightning_dataselect.state.recording import count_dropped
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError
from lightning_dataselect.utils.validation import check_count, check_flag, check_positive, check_share


class AutoAssist(WithinBatches):
    """Cut each batch down to the samples for which a small network, trained alongside, expects a high loss.

    The Assistant works in a thread on the CPU, which the training never waits for. Its network depends on the first
    batch: images, tabular features or token ids, in tensors, tuples, dicts or dataclasses. The thread only sees the
    batches that the loader has made. Up to ``queue_size`` batches wait in memory ahead of the training. With several
    ranks each has its own Assistant. ``scores`` is ``q``, as it was when the sample's batch was last judged.

    Which samples a run drops depends on how fast the Assistant is; ``synchronous=True`` repeats exactly.

    Args:
        base_prob: Probability of training on a sample that is considered easy, in (0, 1]. Default None: the authors'
            0.3, for token ids 0.5.
        assistant: The Assistant: a small module, which is copied, or a function that makes one from the ``x`` and
            ``labels`` of the first batch. It is called with ``(x, labels)``, or with ``x`` alone if its ``forward``
            takes one argument, and returns a logit a sample, (B,) or (B, 1). ``x`` is what ``inputs`` finds; token ids
            are negative where the attention mask is 0. Default None: the authors' logistic regressions.
        synchronous: Whether the Assistant judges and learns in the training loop, batch by batch: the same run again
            with the same seed, also after a resume, but the training waits for it.
        inputs: A function of a batch that returns the tensors ``(x, labels)``, labels None if there are none. Default
            None: they are looked for.
        queue_size: Batches that may wait for the training, and records that may wait for the Assistant. Default None:
            20, for token ids 50. If fewer than 5 (token ids: 10) may wait, it learns once all of them are judged. With
            ``synchronous`` none waits.
        learning_rate: The Assistant's. Default None: 0.01, for token ids 0.5.
        memory: ``a``, the share of the old value that Lbar keeps at each batch, in [0, 1). Default 0.75, the authors'.
            It has no effect for token ids.
        warmup_epochs: Epochs at the start that train on everything. Default 0; for token ids the first one does anyway.
        **common: Arguments of `DataSelector` but ``prune_ratio``, ``every_n_epochs`` and ``balance``, which mean
            nothing here. ``lr_schedule`` has an effect with a ``budget`` only: without one the number of steps stays.

    Raises:
        TypeError: If an argument is of the wrong type or means nothing here, or no input is found in the first batch.
        ValueError: If an argument is out of its range.

    Example:
        >>> AutoAssist(base_prob=0.0)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: base_prob=0.0 is outside (0, 1]: give the ...
    """

    chosen_by = "base_prob"
    info: ClassVar[MethodInfo] = CATALOG["AutoAssist"]
    other_words: ClassVar[Mapping[str, str]] = {"gamma": "base_prob"}

    prefetch_filter = FitLocal[PrefetchFilter | None](None)
    _pending = FitLocal[PendingBatch | None](None)

    def __init__(
        self,
        *,
        base_prob: float | None = None,
        assistant: nn.Module | Callable[[Tensor, Tensor | None], nn.Module] | None = None,
        synchronous: bool = False,
        inputs: InputFinder | None = None,
        queue_size: int | None = None,
        learning_rate: float | None = None,
        memory: float = 0.75,
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        self.current_assistant: Assistant | None = None
        self._restored_assistant: Mapping[str, Any] | None = None
        self._restored_verdicts: Mapping[int, Verdict] = {}
        super().__init__(
            warmup_epochs=warmup_epochs,
            **common,
        )
        self.base_prob = None
        if base_prob is not None:
            what = "the probability to train on what is taken for easy, say 0.3"
            self.base_prob = check_share("base_prob", base_prob, what, above_zero=True)
        if not (assistant is None or callable(assistant)):
            raise ArgumentTypeError(
                f"assistant={assistant!r} is neither a module nor a function that makes one from (x, labels)."
            )
        if not (inputs is None or callable(inputs)):
            raise ArgumentTypeError(f"inputs={inputs!r} must be a function of a batch that returns (x, labels).")
        self.assistant = assistant
        self.synchronous = check_flag("synchronous", synchronous)
        self.inputs = inputs
        self.queue_size = None if queue_size is None else check_count("queue_size", queue_size, minimum=1)
        if self.synchronous and self.queue_size is not None:
            raise InvalidArgumentError(
                f"queue_size={queue_size!r} is how many batches may wait between AutoAssist's thread and the training,"
                " but with synchronous=True none waits: leave one of the two out."
            )
        self.learning_rate = None if learning_rate is None else check_positive("learning_rate", learning_rate)
        self.memory = check_share("memory", memory, below_one=True)

    @property
    def assistant_accuracy(self) -> float:
        """The share of recent losses that the Assistant has rightly called high or low, in [0, 1]."""
        return 0.0 if self.current_assistant is None else self.current_assistant.accuracy

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Hand the losses to the Assistant; the scores are its own, written as it judges."""
        if self.prefetch_filter is not None and self._pending is not None:
            self.prefetch_filter.report(self._pending, seen.losses)

    def wrap_dataloader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Return the loader, with its batches pulled ahead and cut."""
        context = self.context
        assert context is not None
        if self.prefetch_filter is None:
            self.prefetch_filter = PrefetchFilter(
                context,
                self.build_queue,
                self.base_prob_of,
                seed=self.seed,
                inputs=self.inputs,
                known=self._restored_verdicts if has_state(loader) else {},  # else other batches come
            )
            self._restored_verdicts = {}
            context.add_cleanup(self.prefetch_filter.stop)
        pinned = getattr(loader, "pin_memory", False)  # which a loader of another kind need not have
        return filter_batches(loader, functools.partial(self.prefetch_filter.pass_on, pinned=pinned))

    def base_prob_of(self, epoch: int, known: Conventions) -> float:
        """Return the probability, in ``epoch``, of training on a sample that the Assistant takes for easy."""
        whole = epoch == self.first_epoch and known.first_epoch_whole
        if whole or self.in_warmup(epoch) or self.in_annealing(epoch):
            return 1.0
        return known.base_prob if self.base_prob is None else self.base_prob

    def build_assistant(self, inputs: SampleInputs, kind: Kind) -> Assistant:
        """Return the Assistant of the fit, and make it for such ``inputs`` if there is none yet."""
        if self.current_assistant is None:
            rule = CONVENTIONS[kind]
            if self.learning_rate is not None:
                rule = replace(rule, learning_rate=self.learning_rate)
            self.current_assistant = Assistant(make_network(self.assistant, inputs, kind), rule, self.memory)
            if self._restored_assistant is not None:
                self.current_assistant.load_state_dict(self._restored_assistant)
                self._restored_assistant = None
        return self.current_assistant

    def build_queue(self, first: SampleInputs, draws: Tensor, kind: Kind) -> BatchQueue:
        """Return the queue of a fit, whose Assistant has judged the ``first`` inputs once on trial.

        Args:
            first: The inputs of the first batch.
            draws: float32 (B,), uniform in [0, 1).
            kind: What they are.
        """
        assistant, known = self.build_assistant(first, kind), CONVENTIONS[kind]
        assistant.judge(first, draws, 1.0)  # what does not fit fails here, in the user's own thread
        if self.synchronous:
            return InlineQueue(assistant)
        capacity = self.queue_size or known.queue_size
        # more than may wait would never be judged, and nothing learnt
        return ThreadedQueue(assistant, capacity, min(known.learn_at, capacity))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look up which samples are left of the batch, and keep what is learnt from."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.batch is None or self.prefetch_filter is None:
            return
        self._pending = self.prefetch_filter.take(batch_idx)
        if (verdict := self._pending.verdict) is not None:
            indices = self.batch.indices
            self.store["score"][indices] = verdict.q.to(indices.device, non_blocking=True)
            self.store.mark_dirty(indices)
            self.batch = self.batch.subset(verdict.positions.to(indices.device, non_blocking=True))
            count_dropped(self.run_state, indices, self.batch.indices)

    def sample_cost(self, epoch: int) -> float:
        """Return what a sample in the batches of the last epoch cost: what the Assistant will drop is not known."""
        return 1.0 if self.in_warmup(epoch) else measured_sample_cost(self.history)

    # ---- what it remembers ---------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Let go of the Assistant."""
        self.current_assistant = self._restored_assistant = None
        self._restored_verdicts = {}

    def rank_state(self) -> dict[str, Any]:
        """Return the Assistant's state, and its verdicts on batches that are still to be trained on."""
        state = self._restored_assistant if self.current_assistant is None else self.current_assistant.state_dict()
        if state is None:
            return {}
        verdicts = {} if self.prefetch_filter is None else self.prefetch_filter.verdicts()
        return {"assistant": dict(state), "verdicts": {i: (one.q, one.positions) for i, one in verdicts.items()}}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Keep an Assistant's state until the first batch shows what it looks at."""
        self.current_assistant, self._restored_assistant = None, state["assistant"]
        self._restored_verdicts = {i: Verdict(*one) for i, one in state["verdicts"].items()}
