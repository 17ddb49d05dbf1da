"""The base of methods that choose within a batch: score it without a graph, then train on a part of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.data.subset_batch import step_on_part, subset_arguments
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.step.witness import Part
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_count, check_share


class BatchSelector(DataSelector):
    """Trains on a part of each batch; derive from it and define :meth:`choose`.

    Each batch is scored in eval mode without a graph and without side effects, cut to the chosen samples, and only
    these go through the user's training step. With a scoring pass worth 1/3 of a training step, a step costs
    ``1/3 + batch_ratio`` of a full one, and ``1 / (3 n) + batch_ratio`` where every n-th batch alone is scored.

    Args:
        batch_ratio: share of each batch that is trained on, in (0, 1]; the loader's batch is the meta-batch.
        prune_ratio: share of the data set that is dropped before each epoch; 0 for a method that only chooses within
            batches.
        score_dtype: ``"bfloat16"`` or ``"float16"`` to score under autocast, None for the Trainer's own precision.
        score_every_n_batches: of so many batches of an epoch one is scored, the first for one; the others are chosen
            from by the scores that their samples have, and renew those of the samples trained on alone. Default 1:
            every batch is scored, as in the papers. More is our own, and cheaper: with shuffled batches a sample's
            score comes from about n epochs ago.
        **common: see :class:`~lightning_dataselect.callbacks.selector.DataSelector`.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        *,
        batch_ratio: float = 0.25,
        prune_ratio: float = 0.0,
        score_dtype: str | None = None,
        score_every_n_batches: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, **common)
        self.batch_ratio = check_share("batch_ratio", batch_ratio)
        if self.batch_ratio == 0:
            raise InvalidArgumentError(
                "batch_ratio=0 would train on nothing: give the share of each batch to train on, say 0.25."
            )
        self.score_dtype = score_dtype
        if score_dtype is not None:
            check_choice("score_dtype", score_dtype, ("bfloat16", "float16"))
        self.score_every_n_batches = check_count("score_every_n_batches", score_every_n_batches, minimum=1)

    def _drop_live_parts(self) -> None:
        super()._drop_live_parts()
        self._guard: SideEffectGuard | None = None
        self._fewest = 1
        self.sees_all_of_batch = True
        """Whether what `observe` is shown is a whole batch, or the part of one that was trained on."""
        self._has_cut = False

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Choose the samples of a batch to train on; nothing here may wait for the device.

        Args:
            seen: what scoring the batch has shown, and the store's columns are already renewed; or, of a batch that is
                not scored, the last losses known, NaN for none, without logits and targets.
            k: ``batch_ratio`` of the batch, rounded, at least 1; at least 2 if the module has a BatchNorm layer, which
                cannot train on one sample, and of a smaller last batch if whole batches give as many.
            generator: on the device of ``seen``, seeded for this batch.

        Returns:
            int64 (b,), positions within the batch, in any order.
        """
        raise NotImplementedError(f"{type(self).__name__} must define choose(seen, k, generator) -> positions.")

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """All samples: what is dropped is dropped within the batches."""
        return Selection(torch.arange(scores.numel()))

    def trains_on_whole_batches(self, epoch: int) -> bool:
        """Whether ``epoch`` trains on whole batches, which still renew the scores."""
        return self.batch_ratio == 1 or self.in_warmup(epoch) or self.in_annealing(epoch)

    @property
    def needs_extra_forward(self) -> bool:
        """Batches are scored before the step that trains."""
        return True

    def on_fit_setup(self, pl_module: pl.LightningModule) -> None:
        """Get ready to score."""
        self._guard = SideEffectGuard(pl_module)
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in pl_module.modules()):
            self._fewest = 2

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Score the batch, cut it, and train on what was chosen."""
        assert self._batch is not None
        indices, weights = self._batch
        if not self._has_cut:
            self._try_to_cut(args, kwargs, indices)
        if self.trains_on_whole_batches(self.state.plan.epoch):
            return super().run_step(step, args, kwargs)
        scored = self.state.batches_done % self.score_every_n_batches == 0
        if scored:
            part = step_on_part(step, args, kwargs, indices, self._layout, self._loader and self._loader.loader)
            seen = self._score(functools.partial(step, *args, **kwargs), indices, part)
            self.write(seen)
        else:
            seen = Observation(indices, self.store["loss"][indices], None, None, self.state.plan.epoch)
        size = indices.numel()
        k = self._share(size)
        positions = self.choose(seen, k, self._batch_generator(indices.device))
        args, kwargs = subset_arguments(
            args, kwargs, positions, size, self._layout.axes, self._layout.numbers(positions.numel())
        )
        chosen_weights = None if weights is None else weights[positions]
        taken = indices[positions]
        output, trained = self.measure(functools.partial(step, *args, **kwargs), taken, chosen_weights)
        if not scored and trained is not None:
            self.sees_all_of_batch = False
            self.write(trained)
            self.sees_all_of_batch = True
        self.store.count_trained(taken)
        self.store.count_dropped(indices, taken)
        self.count_samples(forward=scored * size + positions.numel(), backward=positions.numel())
        return output

    def _try_to_cut(self, args: tuple[Any, ...], kwargs: dict[str, Any], indices: Tensor) -> None:
        """Refuse batches that cannot be cut at the first of them, and not after epochs that train on whole ones."""
        size, loader = indices.numel(), self._loader and self._loader.loader
        batch = args[0] if args else next(iter(kwargs.values()))
        self._layout.learn(loader, batch, indices, [size - 1, 0, size // 2][: min(3, size)])
        positions = torch.arange(self._share(size), device=indices.device)
        subset_arguments(args, kwargs, positions, size, self._layout.axes, self._layout.numbers(positions.numel()))
        self._has_cut = True

    def _share(self, size: int) -> int:
        """How many samples of a batch to train on: one only where whole batches give no more, with BatchNorm never."""
        assert self._loader is not None
        whole = max(self._fewest, round(self.batch_ratio * (self._loader.batches.batch_size or size)))
        return max(min(2, size, whole), round(self.batch_ratio * size))

    def _score(self, step: Callable[[], Any], indices: Tensor, part: Part) -> Observation:
        assert self._guard is not None and self._reader is not None
        known = self.store["loss"]
        with self._guard(), self._score_precision(indices.device):
            reading = self._reader.score(step, indices, known, part)
        return self.observation(indices, reading)

    def _score_precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.score_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.score_dtype))

    def _batch_generator(self, device: torch.device) -> torch.Generator:
        purpose = f"batch {self.state.batches_done} of rank {self._rank}"
        seed = epoch_generator(self.seed, self.state.plan.epoch, purpose).initial_seed()
        return torch.Generator(device).manual_seed(seed)
