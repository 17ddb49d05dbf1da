"""The decisions that make a selection method, apart from the Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.numerics.ratio_schedule import RatioSchedule, check_ratio_of_epoch
from lightning_dataselect.state.key_filter import KeyFilter
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.state.stream_rows import StreamRows
from lightning_dataselect.state.stream_store import SampleId
from lightning_dataselect.utils.left_open import left_open


class SelectionPolicy:
    """Decide what a fit trains on; every decision but :meth:`select` has a default.

    Attributes:
        prune_ratio: Share of the samples that is dropped, in the epoch that is selected for.
        ratio_schedule: What gives it for each epoch; None where it is the same for all.
        warmup_epochs: Epochs from the first one on that train on everything.
        anneal: Share of the epochs at the end that train on everything.
        every_n_epochs: Epochs between two selections.
        seed: Seed of the order and of the selection.
        lr_schedule: ``"stretch"`` or ``"steps"``.
        balance: ``"class"`` to select within each class, or None.
        budget: Share of the compute of training on everything after which the fit ends, or None for no such end.
        whole_batches: True to fill up the last batch of a pruned epoch where that of the unpruned one is full, or where
            a budget ends the fit all the same.
        sample_id: Where the keys of samples lie, in a stream's batch or in a data set; None for nowhere.
        history_size: Number of samples that are kept in mind by their keys.
        start_from: The file of an earlier fit whose scores this one begins with; None to begin with none.
        loader: Key or position of one of several train loaders, of which samples are selected; None for the only one.
        scratch_dir: Folder on a disk, in files of which the state of samples lies; None for memory.
        logged_loss: ``"unweighted"``, or ``"weighted"`` where weights change the value of the loss, too.
        max_epochs: Epochs of the fit under way as the Trainer plans it, or None if only steps or time end it.
        batch_unit: Samples of a whole batch of all ranks, to a multiple of which what is selected for an epoch of the
            fit under way is rounded; 1 where it stays as it is.
    """

    prune_ratio: float
    ratio_schedule: RatioSchedule | Callable[[int], float] | None = None
    warmup_epochs: int
    anneal: float
    every_n_epochs: int
    seed: int
    lr_schedule: str
    balance: str | None
    max_epochs: int | None
    budget: float | None = None
    whole_batches: bool = True
    sample_id: SampleId | None = None
    history_size: int = 1_000_000
    loader: str | int | None = None
    start_from: str | Path | None = None
    scratch_dir: str | Path | None = None
    logged_loss: str = "unweighted"
    batch_unit: int = 1

    needs_losses: ClassVar[bool] = True
    """True for a method that cannot go on where no per-sample loss can be captured."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Arguments of `DataSelector` that mean nothing for the method, and are refused."""
    chosen_by: ClassVar[str] = "prune_ratio"
    """The argument that says how much is trained on, or dropped."""
    other_words: ClassVar[Mapping[str, str]] = {}
    """Names of arguments elsewhere: word -> argument, for the message on one that the method does not take."""
    on_streams: ClassVar[str] = ""
    """Advice for a stream, on which the method cannot choose; empty to have methods named that can."""
    leaves_out_by_key: ClassVar[bool] = False
    """True for a method that chooses epochs, and can do so on a stream whose samples carry a key: :meth:`leave_out`."""
    chooses_within_batches: ClassVar[bool] = False
    """True for a method that reads the columns of a batch's samples in its step."""
    rescores: bool = False
    """True if :meth:`samples_to_rescore` may ask for a pass."""
    decisions: Sequence[Any] = ()
    """Decisions that the method has made on the way, as dataclasses, the oldest first; for those who report them."""

    # ---- what a sample is scored by ------------------------------------------------------------------------------

    def columns(self) -> dict[str, float]:
        """Return further N-sized float32 columns that the method keeps, by name, with their initial values."""
        return {}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Update the score columns after a batch; the default ranks by the last loss.

        Args:
            seen: What the batch has shown.
            store: The columns; ``store["loss"]`` is already written. Nothing here may wait for the device.
        """
        store["score"].index_copy_(0, seen.indices, seen.losses)

    @property
    def ranks_by_loss(self) -> bool:
        """True if the score is the last loss, as it is by default: one column then does for both."""
        return type(self).observe is SelectionPolicy.observe

    @property
    def chooses_epochs(self) -> bool:
        """True if samples are chosen before an epoch reads them, for which they need an index."""
        return True

    @property
    def needs_extra_forward(self) -> bool:
        """True if training steps are run without training, as one that optimizes manually cannot be."""
        return self.rescores

    @property
    def needs_one_loader(self) -> bool:
        """True if it cannot do with a step that several train loaders have batches in.

        So it is where steps are run on samples without a batch of the other loaders, or where what a layer within the
        model was given is read, which may be another loader's batch.
        """
        return self.rescores

    def samples_to_rescore(self, epoch: int) -> Tensor | None:
        """Name the samples to measure by a pass without gradients before those of ``epoch`` are chosen.

        Asked only where ``epoch`` :meth:`selects_anew`, of a method that sets ``rescores``.

        Args:
            epoch: The 0-based epoch to come.

        Returns:
            int64 (m,), dataset indices, or None for no pass. They reach :meth:`observe` as those of a batch do.
        """
        return None

    # ---- what an epoch trains on ---------------------------------------------------------------------------------

    @left_open
    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Choose the samples of an epoch.

        Called at the end of the epoch before, on every rank with the same arguments.

        Args:
            epoch: The 0-based epoch to come.
            scores: float32 (N,), on the CPU; NaN = never measured.
            generator: CPU generator seeded for this epoch.

        Returns:
            The samples to train on and, for a method that reweighs, the weight of each in the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select(epoch, scores, generator) -> Selection.")

    def leave_out(self, epoch: int, rows: StreamRows) -> Tensor:
        """Choose the samples of a stream that a pass leaves out, of those that are known by their keys.

        Called at the end of the pass before, on every rank with the same rows; of a method that sets
        :attr:`leaves_out_by_key`.

        Args:
            epoch: The 0-based epoch to come.
            rows: The score, and the method's own columns.

        Returns:
            bool (M,).
        """
        raise NotImplementedError(f"{type(self).__name__} must define leave_out(epoch, rows) -> mask.")

    @cached_property
    def keeps(self) -> KeyFilter:
        """The filter of a stream's samples, for a data set that asks ``keeps(key)`` before it decodes them."""
        return KeyFilter(self.history_size)

    @property
    def first_epoch(self) -> int:
        """The 0-based epoch that the method began with: above 0 in a fit that goes on from a checkpoint without it."""
        return 0

    def line_up(self, scores: Tensor) -> Tensor:
        """Return what samples stand in line by to fill up a last batch that the selected ones leave in part.

        Args:
            scores: float32 (N,), on the CPU; NaN = never measured.

        Returns:
            float32 (N,); the highest are taken first, and NaN before all. Default: ``scores``.
        """
        return scores

    def remark(self) -> str:
        """Return what the line that ends a fit is to say of the choice besides numbers; ``""`` for nothing."""
        return ""

    def trains_on_everything(self, epoch: int) -> bool:
        """Return whether ``epoch`` takes all samples without asking :meth:`select`."""
        return self.in_warmup(epoch) or self.in_annealing(epoch) or self.ratio_at(epoch) == 0

    def ratio_at(self, epoch: int) -> float:
        """Return the share that is dropped in ``epoch``, 0-based, after the warm-up.

        Raises:
            TrainerSettingsError: If it follows the epochs of the fit, and their number is not known.
        """
        schedule = self.ratio_schedule
        if schedule is None:
            return self.prune_ratio
        if not isinstance(schedule, RatioSchedule):
            return check_ratio_of_epoch(schedule, epoch)
        begin = self.first_epoch
        while self.in_warmup(begin):
            begin += 1
        n_epochs = None
        if self.max_epochs is not None:
            n_epochs = max(math.ceil(round((1 - self.anneal) * self.max_epochs, 9)) - begin, 1)
        return schedule.ratio(epoch - begin, n_epochs)

    @property
    def largest_ratio(self) -> float:
        """The largest share that an epoch may drop, as far as that is known."""
        return self.ratio_schedule.largest if isinstance(self.ratio_schedule, RatioSchedule) else self.prune_ratio

    def in_warmup(self, epoch: int) -> bool:
        """Return whether ``epoch`` is one of the first ``warmup_epochs`` since :attr:`first_epoch`."""
        return epoch < self.first_epoch + self.warmup_epochs

    def in_annealing(self, epoch: int) -> bool:
        """Return whether ``epoch`` is in the last ``anneal`` share of the epochs, if their number is known."""
        progress = self.progress(epoch)
        # rounded, because 1 - 0.9 is not 1 / 10 in floating point
        return progress is not None and round(progress, 9) >= round(1 - self.anneal, 9)

    def progress(self, epoch: int) -> float | None:
        """Return the share of the fit that is done when ``epoch`` begins, None if nobody knows when it ends.

        Example:
            >>> policy = SelectionPolicy()
            >>> policy.max_epochs = 10
            >>> policy.progress(3)
            0.3
        """
        return epoch / self.max_epochs if self.max_epochs else None

    def selects_anew(self, epoch: int) -> bool:
        """Return whether the samples of ``epoch`` are chosen anew, or are those of the epoch before."""
        since_warmup = epoch - self.first_epoch - self.warmup_epochs
        return not self.trains_on_everything(epoch) and since_warmup % self.every_n_epochs == 0

    def sample_cost(self, epoch: int) -> float:
        """Return what a sample in the batches of ``epoch`` is expected to cost, next to one that is trained on.

        A forward pass counts one third, a backward pass two thirds.
        """
        return 1.0

    # ---- how it is trained ---------------------------------------------------------------------------------------

    def lr_factor(self, epoch: int) -> float:
        """Return what the learning rate of every optimizer step of ``epoch`` is multiplied by."""
        return 1.0

    def wrap_dataloader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Return what the Trainer iterates in place of the prepared train loader.

        Args:
            loader: Yields the batches of the plan.

        Returns:
            A loader of as many batches, in the same order; a method may change what they hold.
        """
        return loader

    # ---- what it remembers besides the columns -------------------------------------------------------------------

    def forget(self) -> None:
        """Let go of what an earlier fit has shown: a new one begins."""

    def rank_state(self) -> dict[str, Any]:
        """Return what this rank must save besides the columns: plain tensors, numbers, lists and dicts."""
        return {}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier :meth:`rank_state`; another rank's where the fit goes on with more ranks than before."""
