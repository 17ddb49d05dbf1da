"""The base of all methods: the arguments that they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning_dataselect.callbacks.hooks import SelectionHooks
from lightning_dataselect.callbacks.reports import Reports
from lightning_dataselect.data.chosen_loader import LoaderName, check_loader_name
from lightning_dataselect.data.stream import check_sample_id
from lightning_dataselect.numerics.placement import check_folder
from lightning_dataselect.numerics.ratio_schedule import PruneRatio, RatioSchedule, first_ratio, read_prune_ratio
from lightning_dataselect.state.earlier_scores import check_start
from lightning_dataselect.state.stream_store import SampleId
from lightning_dataselect.step.sample_loss import SampleLoss, check_sample_loss
from lightning_dataselect.utils.arguments import refuse_unknown
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_budget, check_choice, check_count, check_flag, check_share


class DataSelector(SelectionHooks, Reports):
    """Train on the samples that are worth it; derive from it to write a method of your own.

    A method is one decision, :meth:`select`, and what it needs to be scored by, :meth:`observe`. Capture of per-sample
    losses, sampling, epochs of changing length, learning-rate schedules, several ranks, resuming and logging come with
    the class. The LightningModule, the datamodule and the loaders are not changed, and are as before after the fit.

    Args:
        prune_ratio: Share of the samples that is dropped, in [0, 1): a number; a
            :class:`~lightning_dataselect.numerics.ratio_schedule.RatioSchedule`, also written
            ``"linear(start=0.2, end=0.7)"``; or a function of the 0-based epoch, or its import path. Within ``select``
            ``self.prune_ratio`` is the number for the epoch to come.
        warmup_epochs: Epochs at the start that train on everything. In a fit that goes on from a checkpoint without a
            selector, they follow the checkpoint.
        anneal: Share of the epochs at the end that train on everything, in [0, 1].
        every_n_epochs: Epochs between two selections; in between the last one is kept.
        seed: Seed of the order and of the selection; the global random state is never touched.
        lr_schedule: ``"stretch"`` keeps step-wise schedules in time with the share of the training that is done, so
            that they end where they would have ended; ``"steps"`` leaves them alone.
        sample_loss: Where per-sample losses come from: ``"auto"``, a key of the step's output dict, a callable on that
            output or its import path, or ``"batch"``; see :data:`~lightning_dataselect.step.sample_loss.SampleLoss`.
        balance: ``"class"`` selects within each class, so that every class keeps its share; it needs a classification
            loss with class targets, so that they can be seen.
        whole_batches: Fill up the last batch of a pruned epoch with the samples that were next in line, where the
            unpruned epoch has only full batches: at most one more batch is trained on. With a ``budget`` it is always
            filled up, since the budget ends the fit all the same. False keeps exactly the share.
        budget: Share of the compute of training on everything, for all the epochs or steps that the Trainer says, after
            which the fit ends, in (0, 1]; a sample's forward pass counts one third, its backward pass two thirds, and
            passes that only score count. What dropping samples saves goes into further epochs, beyond ``max_epochs``
            if need be, and schedules, those by epochs too, end with the fit. None (default): the fit ends where the
            Trainer says.
        sample_id: Where a stream's batches hold a key for each sample, by which what it lost is remembered: the name or
            the position of a field, or a function of the batch. None: a stream's samples are forgotten with their
            batch. A map-style data set needs none but for ``start_from`` another one's scores: the name of an attribute
            or a column that holds one key a sample, or a function of the data set.
        history_size: Number of samples that are remembered by their keys, on each rank; those seen longest ago are
            forgotten first.
        start_from: File that ``export`` of an earlier fit has written: samples begin with the losses and scores they
            had then, found again by their keys, or else by their index where the data set is the same or has grown at
            its end. Others count as never measured. ``warmup_epochs=0`` prunes from the first epoch on.
        loader: Of several train loaders, in a list, a dict or a ``CombinedLoader``, the one whose samples are selected:
            its key, or its position. The batches of the others are left as they are. None: there is one loader.
        scratch_dir: Folder on a local disk for what is kept of each sample, and for what the choice of an epoch takes,
            where that would not fit in memory. None (default): in memory. The files have no names, so that nothing is
            left of them, however the fit ends; their space is freed by the next fit, or with the selector. Results are
            the same. On a GPU each step waits for its losses, which are needed on the CPU.
        logged_loss: Under a method that weighs samples, the value of the loss that ``training_step`` logs and returns:
            "unweighted" (default), so that curves, early stopping and plateaus see what samples lose, with weights in
            the gradient alone; or "weighted", as in the papers' own code.
        log: Log what each epoch kept, what was saved, and the mean loss of its samples, under ``dataselect/``, and say
            in one line what the fit has dropped when it ends.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> from lightning_dataselect.state.selection import Selection
        >>> class HighestLoss(DataSelector):
        ...     def select(self, epoch, scores, generator):
        ...         kept = round((1 - self.prune_ratio) * scores.numel())
        ...         return Selection(scores.nan_to_num(torch.inf).topk(kept).indices)
        >>> HighestLoss(prune_ratio=0.25).select(1, torch.tensor([0.1, 3.0, float("nan"), 2.0]), None).indices
        tensor([2, 1, 3])
    """

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int = 1,
        anneal: float = 0.0,
        every_n_epochs: int = 1,
        seed: int = 0,
        lr_schedule: Literal["stretch", "steps"] = "stretch",
        sample_loss: SampleLoss = "auto",
        balance: Literal["class"] | None = None,
        whole_batches: bool = True,
        budget: float | None = None,
        sample_id: SampleId | None = None,
        history_size: int = 1_000_000,
        start_from: str | Path | None = None,
        loader: LoaderName | None = None,
        scratch_dir: str | Path | None = None,
        logged_loss: Literal["unweighted", "weighted"] = "unweighted",
        log: bool = True,
        **unknown: object,
    ) -> None:
        super().__init__()
        refuse_unknown(type(self), unknown)
        self.warmup_epochs = check_count("warmup_epochs", warmup_epochs)
        ratio = read_prune_ratio(prune_ratio)
        self.ratio_schedule = None if isinstance(ratio, float) else ratio
        self.prune_ratio = first_ratio(ratio, self.warmup_epochs)
        self.anneal = check_share("anneal", anneal)
        self.every_n_epochs = check_count("every_n_epochs", every_n_epochs, minimum=1)
        self.seed = check_count("seed", seed)
        self.lr_schedule = check_choice("lr_schedule", lr_schedule, ("stretch", "steps"))
        self.sample_loss = check_sample_loss(sample_loss)
        self.balance = None if balance is None else check_choice("balance", balance, ("class",))
        self.whole_batches = check_flag("whole_batches", whole_batches)
        self.budget = None if budget is None else check_budget(budget)
        if self.budget is not None and isinstance(ratio, RatioSchedule):
            raise InvalidArgumentError(
                f"prune_ratio={prune_ratio!r} depends on the number of epochs, but with budget={budget!r} that is not"
                " known beforehand: give a number, or a function of the epoch."
            )
        self.sample_id = check_sample_id(sample_id)
        self.history_size = check_count("history_size", history_size, minimum=1)
        self.start_from = check_start(start_from)
        self.loader = check_loader_name(loader)
        self.scratch_dir = check_folder(scratch_dir)
        self.logged_loss = check_choice("logged_loss", logged_loss, ("unweighted", "weighted"))
        self.logs = check_flag("log", log)  # Lightning sets `log` itself
        self.max_epochs = None
