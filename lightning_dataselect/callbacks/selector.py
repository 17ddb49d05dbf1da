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
    """Train on the samples that are worth it. Subclass it to write a method of your own.

    A method is one decision, :meth:`select`, and optionally a score to base it on, :meth:`observe`. The base class does
    the rest: it captures per-sample losses, samples, changes the length of epochs, adjusts learning-rate schedules,
    synchronizes ranks, resumes and logs. The LightningModule, the datamodule and the loaders are left unchanged.

    Args:
        prune_ratio: Share of the samples that is dropped, in [0, 1): a number; a
            :class:`~lightning_dataselect.numerics.ratio_schedule.RatioSchedule`, also written ``"linear(start=0.2,
            end=0.7)"``; or a function of the 0-based epoch, or its import path. Within ``select``, ``self.prune_ratio``
            is the number for the coming epoch.
        warmup_epochs: Epochs at the start that train on everything. In a fit resumed from a checkpoint without a
            selector, they are counted from the checkpoint.
        anneal: Share of the epochs at the end that train on everything, in [0, 1].
        every_n_epochs: Number of epochs that each selection is used for.
        seed: Seed of the order and of the selection; the global random state is never touched.
        lr_schedule: ``"stretch"`` advances step-wise schedules by the share of the training that is done, so that they
            end where they would have ended; ``"steps"`` leaves them alone.
        sample_loss: Where per-sample losses come from: ``"auto"``, a key of the step's output dict, a callable on that
            output or its import path, or ``"batch"``; see :data:`~lightning_dataselect.step.sample_loss.SampleLoss`.
        balance: ``"class"`` selects within each class, so that every class keeps its share; this needs a classification
            loss with class targets.
        whole_batches: If the unpruned epoch has only full batches, fill up the last batch of a pruned epoch with the
            samples that were next in line, which adds at most one batch; with a ``budget``, fill it up in any case.
            False keeps exactly the share.
        budget: Share, in (0, 1], of the compute that training on everything would take for the Trainer's ``max_epochs``
            or ``max_steps``; the fit ends when it is spent. A sample's forward pass counts one third, its backward pass
            two thirds; passes that only score count too. What dropping samples saves pays for further epochs, beyond
            ``max_epochs`` if need be, and all schedules end with the fit. None (default): the Trainer ends the fit.
        sample_id: Where the batches of a stream hold a key for each sample, by which its losses are remembered: the
            name or the position of a field, or a function of the batch. None: a stream's samples are forgotten after
            their batch. A map-style data set needs keys only to ``start_from`` the scores of another one: the name of
            an attribute or a column with one key per sample, or a function of the data set.
        history_size: Number of a stream's samples that each rank remembers by their keys; those seen longest ago are
            forgotten first.
        start_from: File written by ``export`` after an earlier fit: samples begin with the losses and scores from it.
            They are matched by their keys, or by their index if the data set is the same or has grown at its end. Other
            samples count as never measured. ``warmup_epochs=0`` prunes from the first epoch on.
        loader: Key or position of the train loader whose samples are selected, if there are several in a list, a dict
            or a ``CombinedLoader``. The batches of the others are left as they are, unless they have selectors of their
            own. None: there is only one loader.
        scratch_dir: Folder on a local disk for the per-sample state and the working memory of a selection, if they do
            not fit into memory. None (default): in memory. The files have no names, so nothing is left behind however
            the fit ends; their space is freed by the next fit, or with the selector. Results are the same. On a GPU
            each step waits for its losses, which are needed on the CPU.
        logged_loss: If the method weights samples, the value of the loss that ``training_step`` logs and returns:
            "unweighted" (default), so that curves, early stopping and plateau schedulers see the plain loss and the
            weights act on the gradient alone; or "weighted", as in the papers' own code.
        log: Log what each epoch kept and saved, and the mean loss of its samples, under ``dataselect/``, and print one
            line at the end of the fit about what was dropped.

    Raises:
        TypeError: If an argument is of the wrong type, or can have no effect on the method.
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
        if sample_id is None and history_size != type(self).history_size:
            raise InvalidArgumentError(
                f"history_size={history_size!r} is how many samples are remembered by their keys, but without"
                " sample_id= they have none: leave it out, or say where the batches hold a key for each sample."
            )
        self.start_from = check_start(start_from)
        self.loader = check_loader_name(loader)
        self.scratch_dir = check_folder(scratch_dir)
        self.logged_loss = check_choice("logged_loss", logged_loss, ("unweighted", "weighted"))
        self.logs = check_flag("log", log)  # Lightning sets `log` itself
        self.max_epochs = None
