"""The only module that touches the Trainer's private parts.

Lightning has no public way to swap a sampler before the first loader is made, nor to change the length of an epoch
while it runs. What is used here of the loops was read in lightning 2.5 and 2.6, and these are all the private names:

- ``fit_loop._data_source.dataloader``, to take the train loader; where it is missing, a fit is refused;
- those in ``_LENGTH``, to change the length of epochs; where one is missing, each epoch gets a new loader;
- ``_accelerator_connector.use_distributed_sampler``; where it is missing, it counts as True, its default;
- ``LightningModule._on_before_batch_transfer``, for passes that score; where it is missing, they are refused;
- ``_val_check_time_interval``, which lightning 2.5 does not have.
"""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

Undo = Callable[[], None]

_LENGTH = ("fit_loop._combined_loader.limits", "fit_loop._data_fetcher.length")


def _missing(target: object, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(target, name):
            return True
        target = getattr(target, name)
    return False


def _refusal(what: str, path: str) -> RuntimeError:
    return RuntimeError(
        f"This lightning ({pl.__version__}) has no {path}, without which {what}. Use a release of lightning that this"
        " lightning-dataselect was tested with, 2.5 or 2.6, or a newer lightning-dataselect."
    )


def intercept_train_loader(trainer: pl.Trainer, transform: Callable[[Any], Any]) -> Undo:
    """Pass every train loader that the Trainer asks for through ``transform``, wherever it comes from.

    Uses ``fit_loop._data_source.dataloader``: one place for loaders given to ``fit``, by a datamodule or by the module.
    """
    if _missing(trainer, path := "fit_loop._data_source.dataloader"):
        raise _refusal("no selector can take hold of the train loader", path)
    source = trainer.fit_loop._data_source
    original = source.dataloader
    source.dataloader = lambda: transform(original())  # type: ignore[method-assign]

    def undo() -> None:
        source.__dict__.pop("dataloader", None)

    return undo


def shadow(target: object, name: str, value: object) -> Undo:
    """Set the attribute ``name`` on an instance, so that it can be taken back exactly."""
    attributes = target.__dict__
    missing = object()
    before = attributes.get(name, missing)
    attributes[name] = value

    def undo() -> None:
        if before is missing:
            attributes.pop(name, None)
        else:
            attributes[name] = before

    return undo


def time_fetches(trainer: pl.Trainer, add: Callable[[float], None]) -> Undo:
    """Call ``add`` with the seconds that the training loop has waited for each batch.

    Uses ``epoch_loop._on_before_fetch`` and ``_on_after_fetch``: the profiler times ``next`` of a loader.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    before, after = loop._on_before_fetch, loop._on_after_fetch
    started = 0.0

    def start() -> None:
        nonlocal started
        before()
        started = time.perf_counter()

    def stop() -> None:
        add(time.perf_counter() - started)
        after()

    undos = shadow(loop, "_on_before_fetch", start), shadow(loop, "_on_after_fetch", stop)

    def undo() -> None:
        for each in undos:
            each()

    return undo


def logging_parts(module: pl.LightningModule) -> list[Any]:
    """The LightningModules within ``module``, itself among them, of whichever package: those with a ``log``."""
    return [part for part in module.modules() if callable(getattr(part, "log", None)) and hasattr(part, "log_dict")]


def overfits(trainer: pl.Trainer) -> bool:
    """Whether ``overfit_batches`` fixes which batches are trained on."""
    return bool(trainer.overfit_batches)  # type: ignore[attr-defined]


def sampler_ranks(trainer: pl.Trainer) -> tuple[int, int]:
    """World size and rank that samples are sharded over: (1, 0) where the user turned sharding off."""
    if not getattr(getattr(trainer, "_accelerator_connector", None), "use_distributed_sampler", True):
        return 1, 0
    kwargs = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
    return int(kwargs["num_replicas"]), int(kwargs["rank"])


def limited_batches(trainer: pl.Trainer, n_batches: int) -> int:
    """How many of ``n_batches`` ``limit_train_batches`` leaves of an epoch, at least one."""
    limit = trainer.limit_train_batches
    if isinstance(limit, int):
        return min(n_batches, limit)
    return max(1, int(n_batches * limit)) if limit > 0 else 0


class EpochLengths(Protocol):
    """Gives the epochs of a fit the lengths of their plans."""

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Make the epoch that the loop is about to begin, or to go on with, ``n_batches`` long.

        Args:
            n_batches: its length.
            replanned: whether its plan has changed after Lightning made its iterator.
        """

    def follow(self, n_batches: int) -> None:
        """Make the epoch that follows the one that ends now ``n_batches`` long."""

    def give_back(self) -> None:
        """Leave the Trainer as the user has set it."""


def epoch_lengths(trainer: pl.Trainer) -> EpochLengths:
    """How to change the length of epochs with this lightning; to be asked once the train loader has an iterator."""
    missing = [path for path in _LENGTH if _missing(trainer, path)]
    if not missing:
        return InPlace(trainer)
    rank_zero_warn(
        f"This lightning ({pl.__version__}) has no {', '.join(missing)}, by which a selector changes the length of"
        " epochs. It sets reload_dataloaders_every_n_epochs=1 for this fit instead: right, but slower, since workers"
        " and validation loaders start anew in each epoch. lightning 2.5 and 2.6 are known to work without."
    )
    return ByReload(trainer)


class InPlace:
    """Changes lengths without a new loader, so that workers persist.

    Every place that remembers the length is set: ``fit_loop.max_batches`` (progress bar, end of epoch, gradient
    accumulation), the combined loader's limits (the iterators to come), the fetcher's ``length`` (``is_last_batch`` of
    the present one), and ``val_check_batch``. With one left out, validation silently ends or an epoch is cut short.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Start the iterator anew if the plan has changed, and set every length."""
        if replanned:
            iter(self._trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        self.follow(n_batches)

    def follow(self, n_batches: int) -> None:
        """Set every length."""
        trainer, loop = self._trainer, self._trainer.fit_loop
        assert loop._combined_loader is not None and loop._data_fetcher is not None
        loop.max_batches = n_batches
        loop._combined_loader.limits = [n_batches]
        loop._data_fetcher.length = n_batches
        _set_validation_batch(trainer, n_batches)

    def give_back(self) -> None:
        """Nothing: the next fit sets every length."""


class ByReload:
    """Lets Lightning make a new loader for each epoch and read the length from it."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._users = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        self._reload_after(1)

    def begin(self, n_batches: int, replanned: bool) -> None:
        """Have the loader of this epoch made again: schedules have been built on the length of a whole one."""
        if replanned or self._trainer.fit_loop.max_batches != n_batches:
            self._reload_after(-1)  # it is due whatever the epoch of the last one
            self._trainer.fit_loop.setup_data()
            self._reload_after(1)

    def follow(self, n_batches: int) -> None:
        """Nothing: Lightning asks for the loader once the epoch begins."""

    def give_back(self) -> None:
        """Reload as often as the user has said."""
        self._reload_after(self._users)

    def _reload_after(self, n_epochs: int) -> None:
        self._trainer.reload_dataloaders_every_n_epochs = n_epochs  # type: ignore[attr-defined]


def shorten_val_check_interval(trainer: pl.Trainer, n_batches: int) -> Undo:
    """Let ``val_check_interval`` fit an epoch of ``n_batches`` while Lightning takes a new loader and checks it."""
    interval = trainer.val_check_interval
    if not isinstance(interval, int) or trainer.check_val_every_n_epoch is None:
        return lambda: None
    return shadow(trainer, "val_check_interval", min(interval, n_batches))


def _set_validation_batch(trainer: pl.Trainer, n_batches: int) -> None:
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return
    interval = trainer.val_check_interval
    if isinstance(interval, float):
        trainer.val_check_batch = max(1, int(n_batches * interval))
    elif trainer.check_val_every_n_epoch is not None:
        # an interval that fitted the full epoch would otherwise never be reached in a shorter one
        trainer.val_check_batch = min(interval, n_batches)


def takes_dataloader_iter(module: pl.LightningModule) -> bool:
    """Whether ``training_step(dataloader_iter)`` fetches the batches itself."""
    return "dataloader_iter" in inspect.signature(module.training_step).parameters


def optimizer_steps_now(trainer: pl.Trainer) -> bool:
    """Whether the batch under way ends in an optimizer step rather than in further accumulation."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    last = batches.is_last_batch or batches.current.ready >= trainer.fit_loop.max_batches
    accumulated = batches.current.ready % trainer.accumulate_grad_batches == 0
    return accumulated or (last and not trainer.strategy.handles_gradient_accumulation)


def take_over_step_schedulers(trainer: pl.Trainer) -> tuple[list[int | None], Undo]:
    """Keep Lightning from stepping the schedulers that go by steps.

    Returns:
        The ``frequency`` of each scheduler, None for one that goes by epochs or metrics and is left to Lightning; and
        what gives the others back.
    """
    configs = trainer.lr_scheduler_configs
    taken = [config.interval == "step" and not config.reduce_on_plateau for config in configs]
    frequencies = [config.frequency for config in configs]
    for config, ours in zip(configs, taken, strict=True):
        if ours:
            config.frequency = sys.maxsize

    def undo() -> None:
        for config, frequency in zip(configs, frequencies, strict=True):
            config.frequency = frequency

    return [frequency if ours else None for frequency, ours in zip(frequencies, taken, strict=True)], undo


def step_lr_scheduler(trainer: pl.Trainer, scheduler: Any) -> None:
    """Step ``scheduler`` as Lightning does, through the module's own ``lr_scheduler_step``."""
    trainer.lightning_module.lr_scheduler_step(scheduler, None)


def planned_epochs(trainer: pl.Trainer) -> int | None:
    """Number of epochs the fit will take if nothing stops it, or None if only steps or time end it.

    Uses ``fit_loop.max_epochs``, which is -1 for an endless fit.
    """
    epochs = trainer.fit_loop.max_epochs
    return None if epochs is None or epochs < 0 or math.isinf(epochs) else int(epochs)


def resumes_within_epoch(trainer: pl.Trainer) -> bool:
    """Whether the fit goes on from a checkpoint that was written before an epoch's last batch."""
    loop = trainer.fit_loop
    progress = loop.epoch_loop.batch_progress
    return loop.restarting and progress.current.completed > 0 and not progress.is_last_batch


def epochs_processed(trainer: pl.Trainer) -> int:
    """The 0-based epoch that the fit is about to train, after a resume in the middle of an epoch that epoch."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def set_counted_length(trainer: pl.Trainer, n_batches: int) -> None:
    """Set only the length that the loop's counters are compared with, ``fit_loop.max_batches``.

    Lightning resets the counters of an epoch that had ended when the checkpoint was written once they reach
    ``max_batches``; with the length of a longer epoch to come it would begin that one in the middle.
    """
    trainer.fit_loop.max_batches = n_batches


def scale_learning_rate(optimizer: Optimizer, factor: Callable[[], float]) -> Undo:
    """Multiply the learning rates of ``optimizer`` while it steps, and only then: schedulers see their own values."""
    before: list[Any] = []

    def scale(*_: Any) -> None:
        before[:] = [group["lr"] for group in optimizer.param_groups]
        if (factor_now := factor()) != 1.0:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor_now

    def restore(*_: Any) -> None:
        for group, lr in zip(optimizer.param_groups, before, strict=bool(before)):
            group["lr"] = lr
        before.clear()

    handles = optimizer.register_step_pre_hook(scale), optimizer.register_step_post_hook(restore)

    def undo() -> None:
        restore()  # a step that failed never came to its end
        for handle in handles:
            handle.remove()

    return undo


def batch_to_device(trainer: pl.Trainer, batch: Any) -> Any:
    """Take a batch the way that the training loop takes it, through the user's transfer hooks."""
    if _missing(trainer.lightning_module, path := "_on_before_batch_transfer"):
        raise _refusal("no samples can be scored by a pass of their own", f"LightningModule.{path}")
    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def shows_progress(trainer: pl.Trainer) -> bool:
    """Whether this rank has a progress bar."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None


def takes_batch_idx(step: Callable[..., Any]) -> bool:
    """Whether ``training_step`` has an argument besides the batch, which Lightning then gives the batch's index."""
    return len(inspect.signature(step).parameters) > 1
