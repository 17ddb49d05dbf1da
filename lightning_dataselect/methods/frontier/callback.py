"""Frontier: spend a budget on what the model can learn now, and drop nothing where that cannot be told.

A method of our own; no paper describes it. `methods/frontier/rule.py` describes the rule, `benchmarks.frontier`
measures it, and the documentation has a page on what was found.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.frontier.classes import plain_losses
from lightning_dataselect.methods.frontier.early_stop import EarlyStop, Verdict, is_too_late, passes_to_anneal
from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.passes import Pass, begin_pass, write_pass
from lightning_dataselect.methods.frontier.remark import advise, say_what_was_left_out, say_why_it_stopped
from lightning_dataselect.methods.frontier.renewal import renew
from lightning_dataselect.methods.frontier.rule import Decision
from lightning_dataselect.methods.frontier.turns import Turns
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.masks import positions
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.numerics.sizes import keep_count, whole_size
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.state.stream_rows import StreamRows
from lightning_dataselect.utils.errors import UnexpectedArgumentError
from lightning_dataselect.utils.validation import check_budget, check_flag

_UNTRAINED_BATCHES = 3
_NO_CLASSES = (
    "Frontier continues like FewerEpochs and reads no more losses: the steps show no class logits for whole samples,"
    " as in regression, with several labels a sample, or where tokens or pixels are classified one by one."
    " Losses alone do not tell which samples a model can do without."
)


class Frontier(DataSelector):
    """Spend a budget of compute on what the model can still learn; without evidence of that, on everything in turn.

    Each epoch trains on ``budget`` times the size of the set. At first the epochs walk through the shuffled set, which
    is training on everything for fewer epochs, with schedules that end in time. Once the losses give evidence, a pass
    leaves out nine in ten of the learnt samples and all whose labels the rest of the data contradicts, and other
    samples take their place.

    Where further passes would only memorize, it stops early, with schedules at their end: 2 % of the samples are held
    out in the first passes, and their losses tell.

    Without class logits, as in regression or on tokens, it trains on everything for fewer epochs, as `FewerEpochs`
    does, and reads no losses after the first batches, so ``losses`` and ``dataselect/train_loss`` cover only those.

    A stream needs ``sample_id``, as its samples are identified by their keys. There, an epoch is one pass, shorter by
    what it leaves out; a stream that builds its own batches must keep a sample only if ``keeps(key)`` is true.

    Args:
        budget: Share of the compute of the whole fit that is spent, in (0, 1], and of the set that an epoch trains on.
            Default 0.5.
        early_stop: Whether the fit may end before the budget is spent. No samples are held out if not, nor with a
            warm-up, manual optimization, a stream, fewer than 4,000 samples, a budget of fewer than six passes over
            them, or one above 0.95. Default True.
        warmup_epochs: Epochs at the start that train on the whole set; fewer follow them. Default 0.
        anneal: Share of the budget at the end that is spent on epochs over the whole set. Default 0.
        **common: Arguments of `DataSelector` but ``prune_ratio``, which is ``1 - budget``, and ``every_n_epochs`` and
            ``balance``, which have no effect here.

    Raises:
        ArgumentTypeError: If an argument is of the wrong type.
        InvalidArgumentError: If an argument is out of its range.
        UnexpectedArgumentError: If an argument means nothing here.

    Example:
        >>> Frontier(budget=0.25).prune_ratio
        0.75
    """

    unused: ClassVar[frozenset[str]] = frozenset({"prune_ratio", "every_n_epochs", "balance"})
    info: ClassVar[MethodInfo] = CATALOG["Frontier"]
    gives_weights: ClassVar[bool] = False
    chosen_by = "budget"
    leaves_out_by_key: ClassVar[bool] = True
    on_streams: ClassVar[str] = (
        "Frontier goes by what each sample lost in the passes before: give it sample_id=..., where the batches hold a"
        " key for each sample. Without keys take FewerEpochs, which is what Frontier does until there is evidence."
    )

    def __init__(
        self,
        *,
        budget: float = 0.5,
        early_stop: bool = True,
        warmup_epochs: int = 0,
        anneal: float = 0.0,
        **common: Any,
    ) -> None:
        for name in sorted(self.unused & common.keys()):
            raise UnexpectedArgumentError(
                f"{type(self).__name__} has no use for {name}={common[name]!r}: `budget` says how much it spends, and"
                " so which share of the set each epoch trains on. Leave it out, or take InfoBatch or RandomPruning."
            )
        super().__init__(
            prune_ratio=1 - check_budget(budget),
            budget=budget,
            warmup_epochs=warmup_epochs,
            anneal=anneal,
            every_n_epochs=1,
            balance=None,
            **common,
        )
        self.early_stop = check_flag("early_stop", early_stop)
        self.forget()

    def forget(self) -> None:
        """Begin without evidence."""
        self.decisions: list[Decision] = []
        """One for each pass from the third on, with the evidence for it."""
        self._passes = 0
        self._n_batches = 0
        self._trial_began: int | None = None  # in which pass
        self._has_met_classes = False
        self._reads = True
        self._early_stop = EarlyStop()
        self._is_measured = False

    @property
    def held_out(self) -> list[HeldOut]:
        """Each measurement of held-out samples, beside samples that are trained on."""
        return self._early_stop.measured

    def columns(self) -> dict[str, float]:
        """Return the columns: the last two losses, those of the untrained model, turns had in passes, and the trial."""
        losses = dict.fromkeys(("previous", "latest", "untrained", "plain", "before"), math.nan)
        return losses | dict.fromkeys(("turns", "group", "visits", "contradicted"), 0.0)

    @property
    def needs_extra_forward(self) -> bool:
        """Return False: where a step cannot be run without training, no samples are held out."""
        return False

    @property
    def needs_one_loader(self) -> bool:
        """Return False: beside other loaders a budget is refused."""
        return False

    def on_fit_setup(self, context: FitContext) -> None:
        """Hold samples out where they can be measured without training on them."""
        self.rescores = self.early_stop and context.module.automatic_optimization

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the fit; one that is resumed may have read all that it needs."""
        super().on_train_start(trainer, pl_module)
        if not self._reads:
            self._read_no_more()

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Renew the moving average, which is the score, and the last two losses."""
        if seen.is_rescoring:
            self._is_measured = True
            return
        if self._n_batches < _UNTRAINED_BATCHES:
            store["untrained"][seen.indices] = seen.losses
            if (plain := plain_losses(seen)) is not None:
                store["plain"][seen.indices] = plain
                self._has_met_classes = True
        store.write_later(renew, seen.indices, seen.losses)
        self._n_batches += 1
        # with several ranks not before the end of the epoch, when all of them know
        if self._n_batches == _UNTRAINED_BATCHES and not self._has_met_classes and store.world_size == 1:
            self._read_no_more(why=_NO_CLASSES)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Take those that are next in the pass under way, and begin another pass where they are not enough."""
        if self._n_batches and not self.store.knows_classes:
            self._read_no_more(why=_NO_CLASSES)
        n, turns = scores.numel(), self.column("turns")
        self._look_at_held_out(epoch, turns)
        k = whole_size(keep_count(n, self.prune_ratio), n - 1, self.batch_unit)
        begin_pass = functools.partial(self._begin_pass, epoch, generator)
        taken = Turns(turns, self._passes).take(k, begin_pass, generator)
        self.store["turns"][:n] = turns.to(self.store["turns"].device)
        return Selection(positions(taken))

    def leave_out(self, epoch: int, rows: StreamRows) -> Tensor:
        """Begin a pass over a stream: decide on what it leaves out, and on whom it tries out if the model memorizes."""
        self._passes += 1
        begun = self._decide(
            epoch,
            rows.columns.__getitem__,
            classifies=rows.knows_classes,
            draw=lambda purpose: rows.draw(self.seed, epoch, purpose).__getitem__,
        )
        write_pass(begun, self.store, rows.slots, own=rows.own, visits=torch.zeros(len(rows.slots)))
        return begun.out

    def remark(self) -> str:
        """Return which kinds of samples were left out, and since when, and why the fit stopped early, if it did.

        Example:
            >>> Frontier().remark()
            '; all samples in turn, as losses gave no reason to leave any out'
        """
        run, said = self.run_state, say_what_was_left_out(self.decisions)
        if run.has_begun and run.compute is not None and run.fit.early_end:
            taken = run.fit.early_end / run.compute.full_epoch
            return said + say_why_it_stopped(taken, run.compute.epochs, self.held_out)
        return said + advise(self.decisions[-1]) if self.decisions else said

    def rank_state(self) -> dict[str, Any]:
        """Return the position in the passes, and what was decided."""
        decisions = [asdict(decision) for decision in self.decisions]
        counts = {"passes": self._passes, "n_batches": self._n_batches, "trial_began": self._trial_began}
        known = {"has_met_classes": self._has_met_classes, "reads": self._reads}
        return counts | known | {"decisions": decisions, "early_stop": self._early_stop.state_dict()}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier :meth:`rank_state`."""
        self._passes, self._n_batches, self._trial_began = (state[k] for k in ("passes", "n_batches", "trial_began"))
        self._has_met_classes, self._reads = state["has_met_classes"], state["reads"]
        self._early_stop.load_state_dict(state["early_stop"])
        self.decisions = [Decision.from_dict(one) for one in state["decisions"]]

    # ---- early stop ------------------------------------------------------------------------------------------------

    def samples_to_rescore(self, epoch: int) -> Tensor | None:
        """Name held-out samples and their control, now and then."""
        due = self._early_stop.samples_due(self._passes_spent(epoch))
        return due if due is not None and self._early_stop.is_held_out(self.column("turns")) else None

    def line_up(self, scores: Tensor) -> Tensor:
        """Return the scores; held-out samples are the last to fill up a batch."""
        if (held_out := self._early_stop.held_out) is None:
            return scores
        return scores.nan_to_num(math.inf).index_fill(0, held_out, -math.inf)

    def _passes_spent(self, epoch: int) -> float:
        assert (compute := self.run_state.compute) is not None
        return self.run_state.spent_before(epoch) / compute.full_epoch

    def _look_at_held_out(self, epoch: int, turns: Tensor) -> None:
        """Hold samples out after the first epoch; end the fit early, or let them have their turn, once they tell.

        Not before that: only a classification can tell wrong labels from hard samples, and the first batches show if it
        is one.
        """
        early_stop, compute = self._early_stop, self.run_state.compute
        if compute is None:
            return
        may_hold_out = self.rescores and self._reads and self.first_epoch == self.warmup_epochs == 0
        if epoch == 1 and may_hold_out:
            early_stop.hold_out(turns, compute.epochs, epoch_generator(self.seed, epoch, "held out"))
        if early_stop.held_out is None:
            return
        passes, verdict = self._passes_spent(epoch), Verdict.WAIT
        if self._is_measured:
            self._is_measured = False
            suspected = bool(self.decisions) and self.decisions[-1].suspects_many
            verdict = early_stop.judge(epoch, passes, self.column("loss"), suspected=suspected)
        if verdict is Verdict.END:
            assert self.context is not None
            self.context.end_early(epoch, passes_to_anneal(passes) * compute.full_epoch)
        is_over = verdict is not Verdict.WAIT or is_too_late(passes, compute.epochs) or not may_hold_out
        if is_over or not early_stop.is_held_out(turns):
            early_stop.release(turns, self._passes)

    # ---- passes ----------------------------------------------------------------------------------------------------

    def _begin_pass(self, epoch: int, generator: torch.Generator, passes: int, taken: Tensor) -> Tensor:
        """Decide on the pass that begins once ``passes`` are done; return what it leaves out, bool (N,).

        It begins while those that are ``taken``, the last of the pass before, are still to be trained on.
        """
        self._passes = passes
        begun = self._decide(
            epoch,
            self.column,
            classifies=self.store.knows_classes,
            draw=lambda purpose: lambda part: torch.rand(part.stop - part.start, generator=generator),
        )
        write_pass(begun, self.store, slice(len(taken)), own=slice(None), visits=taken.to(torch.int8).neg_())
        return begun.out

    def _decide(
        self,
        epoch: int,
        column: Callable[[str], Tensor],
        *,
        classifies: bool,
        draw: Callable[[str], Callable[[slice], Tensor]],
    ) -> Pass:
        """Decide on the pass that begins, and keep what was decided."""
        if self.first_epoch > 0 or not classifies:
            self._read_no_more()
        if not self._reads:
            return Pass(torch.zeros(len(column("score")), dtype=torch.bool))
        before = self.decisions[-1] if self.decisions else None
        compute = self.run_state.compute
        begun = begin_pass(
            column,
            self._passes,
            before,
            planned_passes=math.inf if compute is None else compute.epochs,
            trial_began=self._trial_began,
            draw=draw,
            held_out=self.held_out[-1] if self.held_out else None,
            holds_out=self._early_stop.held_out is not None,
        )
        if begun.decision is not None:
            self.decisions.append(replace(begun.decision, epoch=epoch))
            if begun.decision.is_final and self._early_stop.held_out is None:
                self._read_no_more()
        if begun.group is not None:
            self._trial_began = self._passes
        return begun

    def _read_no_more(self, why: str = "") -> None:
        """Let the steps that follow run as they are, as nothing that they could show would leave a sample out."""
        if self._reads and why and self.logs:
            rank_zero_info(why)
        self._reads = False
        if self.context is not None:
            self.context.stop_reading()
