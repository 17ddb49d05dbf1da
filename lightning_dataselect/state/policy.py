"""The decisions that make a selection method, apart from the Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.key_filter import KeyFilter
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.selection_schedule import SelectionSchedule
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.state.stream_rows import StreamRows
from lightning_dataselect.state.stream_store import SampleId
from lightning_dataselect.utils.left_open import left_open
from lightning_dataselect.utils.validation import NEVER_WEIGHTED


class SelectionPolicy(SelectionSchedule):
    """Decide what a fit trains on; every decision but :meth:`select` has a default.

    When it selects, and how much it drops, says the :class:`~.selection_schedule.SelectionSchedule`.

    Attributes:
        seed: Seed of the order and of the selection.
        lr_schedule: ``"stretch"`` or ``"steps"``.
        balance: ``"class"`` to select within each class, or None.
        budget: Share of the compute of training on everything after which the fit ends, or None for no such end.
        whole_batches: True to fill up the last batch of a pruned epoch if that of the unpruned one is full, or if a
            budget ends the fit anyway.
        sample_id: Where the keys of samples are, in a stream's batch or in a data set; None if there are none.
        history_size: Number of samples that are remembered by their keys.
        start_from: The file of an earlier fit whose scores this one starts from; None to start without scores.
        loader: Key or position of the train loader that samples are selected from; None if there is only one.
        scratch_dir: Folder on a disk for files with per-sample state; None for memory.
        logged_loss: ``"unweighted"``, or ``"weighted"`` if weights also change the value of the loss.
        has_company: True if the current fit has a selector for another loader, too.
        batch_unit: Samples in a full batch of all ranks; the size of a selection in the current fit is rounded to a
            multiple of it. 1 for no rounding.
    """

    seed: int
    lr_schedule: str
    balance: str | None
    budget: float | None = None
    whole_batches: bool = True
    sample_id: SampleId | None = None
    history_size: int = 1_000_000
    loader: str | int | None = None
    start_from: str | Path | None = None
    scratch_dir: str | Path | None = None
    logged_loss: str = "unweighted"
    batch_unit: int = 1
    has_company: bool = False

    needs_losses: ClassVar[bool] = True
    """True for a method that cannot work if no per-sample loss can be captured."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Arguments of base classes that the method sets itself: they are refused, and not listed as its own."""
    gives_weights: ClassVar[bool] = True
    """False for a method whose selections never have weights."""
    chosen_by: ClassVar[str] = "prune_ratio"
    """The argument that sets how much is trained on, or dropped."""
    other_words: ClassVar[Mapping[str, str]] = {}
    """Names that others use for arguments, name -> argument, for the error about an unknown argument."""
    on_streams: ClassVar[str] = ""
    """Advice for a stream, where the method cannot choose; empty to list methods that can."""
    leaves_out_by_key: ClassVar[bool] = False
    """True for a method that chooses epochs, and can do so on a stream whose samples carry keys: :meth:`leave_out`."""
    chooses_within_batches: ClassVar[bool] = False
    """True for a method that reads the columns of a batch's samples in its step."""
    rescores: bool = False
    """True if :meth:`samples_to_rescore` may ask for a pass."""
    decisions: Sequence[Any] = ()
    """Decisions that the method has made during the fit, as dataclasses, oldest first, for reports."""

    @classmethod
    def without_effect(cls) -> dict[str, str]:
        """Return the arguments of base classes that can change nothing for this class, with the end of their refusal.

        Unlike those in :attr:`unused`, they may be given with their default value.
        """
        idle = {}
        if not cls.gives_weights:
            idle["logged_loss"] = NEVER_WEIGHTED
        if cls.chooses_epochs is SelectionPolicy.chooses_epochs and not cls.leaves_out_by_key:
            idle["history_size"] = (
                "it chooses samples by their index, and cannot train on a stream, where keys are remembered. Leave it"
                " out."
            )
        return idle

    # ---- how a sample is scored ----------------------------------------------------------------------------------

    def columns(self) -> dict[str, float]:
        """Return the names of further float32 (N,) columns that the method keeps, with their initial values."""
        return {}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Update the score columns after a batch; by default the score is the last loss.

        Args:
            seen: The observation of the batch.
            store: The columns; ``store["loss"]`` is already written. Nothing here may wait for the device.
        """
        store["score"].index_copy_(0, seen.indices, seen.losses)

    @property
    def ranks_by_loss(self) -> bool:
        """True if the score is the last loss, as it is by default, so that one column serves for both."""
        return type(self).observe is SelectionPolicy.observe

    @property
    def chooses_epochs(self) -> bool:
        """True if samples are chosen before an epoch reads them, which requires an index."""
        return True

    @property
    def needs_extra_forward(self) -> bool:
        """True if training steps are run without training, which is impossible under manual optimization."""
        return self.rescores

    @property
    def needs_one_loader(self) -> bool:
        """True if the method cannot work if a step has batches of several train loaders.

        That is so if it runs steps on samples without a batch of the other loaders, or reads the input of a layer in
        the model, which may be another loader's batch.
        """
        return self.rescores

    def samples_to_rescore(self, epoch: int) -> Tensor | None:
        """Return the samples to measure by a pass without gradients before those of ``epoch`` are chosen.

        Called only if ``epoch`` :meth:`selects_anew`, for a method that sets ``rescores``.

        Args:
            epoch: The 0-based epoch to come.

        Returns:
            int64 (m,), dataset indices, or None for no pass. The results reach :meth:`observe` like those of a batch.
        """
        return None

    # ---- what an epoch trains on ---------------------------------------------------------------------------------

    @property
    def draw_seed(self) -> int:
        """The seed of the order and of the selection.

        If there are selectors of other loaders as well, it is made of ``seed`` and the name of the loader: loaders of
        as many samples would otherwise be shuffled alike, and the same pairs would meet in every epoch.
        """
        if not self.has_company:
            return self.seed
        return epoch_generator(self.seed, 0, f"loader {self.loader!r}").initial_seed()

    @left_open
    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Choose the samples of an epoch.

        Called at the end of the previous epoch, with the same arguments on every rank.

        Args:
            epoch: The 0-based epoch to come.
            scores: float32 (N,), on the CPU; NaN = never measured.
            generator: CPU generator seeded for this epoch.

        Returns:
            The samples to train on and, if the method reweights them, the weight of each in the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must define select(epoch, scores, generator) -> Selection.")

    def leave_out(self, epoch: int, rows: StreamRows) -> Tensor:
        """Choose the samples of a stream that a pass leaves out, among those that are known by their keys.

        Called at the end of the previous pass, with the same rows on every rank, for a method that sets
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
        """The filter of a stream's samples, for a data set that calls ``keeps(key)`` before it decodes them."""
        return KeyFilter(self.history_size)

    def line_up(self, scores: Tensor) -> Tensor:
        """Return the values that rank samples for filling up a last batch which the selected ones do not fill.

        Args:
            scores: float32 (N,), on the CPU; NaN = never measured.

        Returns:
            float32 (N,); the highest are taken first, and NaN before all others. Default: ``scores``.
        """
        return scores

    def remark(self) -> str:
        """Return what the summary at the end of a fit says about the selection besides numbers; ``""`` for nothing."""
        return ""

    def sample_cost(self, epoch: int) -> float:
        """Return the expected cost of a sample in the batches of ``epoch``, relative to one that is trained on.

        A forward pass counts one third, a backward pass two thirds.
        """
        return 1.0

    # ---- how it is trained on ------------------------------------------------------------------------------------

    def lr_factor(self, epoch: int) -> float:
        """Return the factor on the learning rate of every optimizer step in ``epoch``."""
        return 1.0

    def wrap_dataloader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Return the loader that the Trainer iterates instead of the prepared train loader.

        Args:
            loader: Yields the batches of the plan.

        Returns:
            A loader with as many batches, in the same order; a method may change their contents.
        """
        return loader

    # ---- what it remembers besides the columns -------------------------------------------------------------------

    def forget(self) -> None:
        """Forget everything from an earlier fit, since a new one begins."""

    def rank_state(self) -> dict[str, Any]:
        """Return what this rank must save besides the columns, as plain tensors, numbers, lists and dicts."""
        return {}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Restore an earlier :meth:`rank_state`; it is another rank's if the fit is resumed with more ranks."""
