"""The only part that touches the Trainer's private parts.

Lightning has no public way to swap a sampler before the first loader is made, nor to change the length of an epoch
while it runs. The code here is based on the loops of lightning 2.5 and 2.6. These are all the private names that it
uses:

- ``fit_loop._data_source.dataloader``, to take the train loader; where it is missing, a fit is refused;
- ``fit_loop._combined_loader``, to discard a train loader that was made too early; where it is missing, that one stays;
- those in ``epoch_length._LENGTH``, to change the length of epochs; where one is missing, each epoch gets a new loader;
- ``_accelerator_connector.use_distributed_sampler``; where it is missing, it counts as True, its default;
- ``CombinedLoader._mode``; where it is missing, several train loaders count as combined in Lightning's default mode;
- ``LightningModule._on_before_batch_transfer``, for passes that score; where it is missing, they are refused;
- ``_val_check_time_interval``, which lightning 2.5 does not have;
- ``fit_loop._should_reload_train_dl``, to distinguish the loop from others who ask for a loader; where it is missing,
  all get the loop's;
- ``epoch_loop._should_accumulate``, to know which batches end in an optimizer step; where it is missing, batches are
  counted;
- ``automatic_optimization.run``, to train on one batch for several of the loader's; where it, or the name above, is
  missing, ``constant_batch_size`` is refused;
- ``epoch_loop.batch_progress.is_last_batch`` and ``fit_loop._data_fetcher``, to end an epoch of a stream with the
  current batch, and to restart it; where one is missing, ``budget`` is refused on a stream;
- ``automatic_optimization.optim_progress``, to tell ``lr_scheduler_step`` the step of the unpruned fit; where it is
  missing, schedulers that use ``global_step`` see that of the pruned fit;
- ``combined_loader`` in the fit loop's part of a checkpoint, to save where the loaders of each rank are; where it is
  missing, all ranks go on where Lightning puts them;
- ``_results``, ``_logger_connector._current_fx`` and ``LightningModule._current_fx_name``, to log a number of each
  epoch by a shorter way; where one is missing, it is logged like any other;
- ``_max_epochs``, ``_swa_epoch_start`` and ``_initialized`` of ``StochasticWeightAveraging``, to move its end together
  with that of a fit with a budget; where one is missing, that callback keeps the end that was announced to it;
- ``_max_epochs`` and ``_model_contains_batch_norm`` of the same, to recognize the pass for batch norms that it appends;
  where one is missing, that pass counts as an epoch and covers the chosen samples alone.
"""

from lightning_dataselect.trainer.checkpoint import (
    explain_checkpoint_faults,
    has_ended,
    loader_states,
    set_loader_states,
)
from lightning_dataselect.trainer.empty_hooks import HOOKS_OF_A_BATCH, pass_over_empty_hooks
from lightning_dataselect.trainer.epoch_length import (
    ByReload,
    EpochLengths,
    InPlace,
    epoch_lengths,
    set_counted_length,
    shorten_val_check_interval,
)
from lightning_dataselect.trainer.gathering import StepProgress, train_on_gathered
from lightning_dataselect.trainer.last_batch import EpochEnd
from lightning_dataselect.trainer.limits import FitLimits
from lightning_dataselect.trainer.logged import log_again, logging_for
from lightning_dataselect.trainer.loops import (
    begin_ended_epoch,
    come_first,
    epochs_processed,
    go_on_within_epoch,
    is_running,
    limited_batches,
    optimizer_steps_now,
    overfits,
    planned_accumulation,
    planned_epochs,
    resumes_after_last_batch,
    resumes_within_epoch,
    sampler_ranks,
    shows_progress,
    steps_reached,
    stops_early,
    time_fetches,
    training_epochs,
    trains_nothing,
)
from lightning_dataselect.trainer.lr import (
    intercept_scheduler_calls,
    scale_learning_rate,
    scheduled_settings,
    step_lr_scheduler,
    take_over_schedulers,
)
from lightning_dataselect.trainer.patching import Restore, patch_attribute
from lightning_dataselect.trainer.quiet_loggers import quiet_loggers
from lightning_dataselect.trainer.steps import (
    batch_to_device,
    changes_batches,
    logging_parts,
    takes_batch_idx,
    takes_dataloader_iter,
)
from lightning_dataselect.trainer.train_loader import (
    combination_mode,
    forget_train_loader,
    intercept_train_loader,
    lengths_of_others,
    reads_ahead,
    show_apart,
)
from lightning_dataselect.trainer.tuner import is_searching, searches_first
from lightning_dataselect.trainer.weight_averaging import measures_norms

__all__ = [
    "ByReload",
    "EpochEnd",
    "EpochLengths",
    "FitLimits",
    "HOOKS_OF_A_BATCH",
    "InPlace",
    "Restore",
    "StepProgress",
    "batch_to_device",
    "changes_batches",
    "begin_ended_epoch",
    "combination_mode",
    "come_first",
    "epoch_lengths",
    "epochs_processed",
    "explain_checkpoint_faults",
    "has_ended",
    "forget_train_loader",
    "go_on_within_epoch",
    "intercept_scheduler_calls",
    "intercept_train_loader",
    "is_running",
    "is_searching",
    "scheduled_settings",
    "lengths_of_others",
    "limited_batches",
    "loader_states",
    "log_again",
    "logging_for",
    "logging_parts",
    "measures_norms",
    "optimizer_steps_now",
    "overfits",
    "planned_accumulation",
    "planned_epochs",
    "quiet_loggers",
    "reads_ahead",
    "resumes_after_last_batch",
    "resumes_within_epoch",
    "sampler_ranks",
    "scale_learning_rate",
    "searches_first",
    "set_counted_length",
    "set_loader_states",
    "show_apart",
    "pass_over_empty_hooks",
    "patch_attribute",
    "shorten_val_check_interval",
    "shows_progress",
    "step_lr_scheduler",
    "steps_reached",
    "stops_early",
    "take_over_schedulers",
    "takes_batch_idx",
    "takes_dataloader_iter",
    "time_fetches",
    "train_on_gathered",
    "training_epochs",
    "trains_nothing",
]
