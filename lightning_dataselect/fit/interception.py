"""The start of a fit: its refusals, and its patches of the module, the train loader and the optimizers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_dataselect.data.chosen_loader import choose_loader
from lightning_dataselect.data.stream import is_stream
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.fit.company import check_selectors, refuse_stream_in_company
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.fit.epochs import Epochs
from lightning_dataselect.fit.notices import warn_of_ended_loader
from lightning_dataselect.fit.pace import Pace
from lightning_dataselect.fit.planned_loader import PlannedLoader
from lightning_dataselect.fit.streamed_epochs import StreamedEpochs
from lightning_dataselect.fit.together import Participant, run_for_all
from lightning_dataselect.state.definition import check_definition
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.step.sample_loss import SampleLoss
from lightning_dataselect.step.shared_reading import SharedReading
from lightning_dataselect.trainer import (
    explain_checkpoint_faults,
    forget_train_loader,
    intercept_train_loader,
    is_running,
    is_searching,
    logging_parts,
    overfits,
    patch_attribute,
    resumes_within_epoch,
    scale_learning_rate,
    searches_first,
    takes_dataloader_iter,
    trains_nothing,
)
from lightning_dataselect.utils.errors import (
    CheckpointMismatchError,
    TrainerSettingsError,
    UnsupportedLoaderError,
    UnsupportedStepError,
)


def open_fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    policy: SelectionPolicy,
    run: RunState,
    sample_loss: SampleLoss,
    beside: Sequence[FitContext] = (),
) -> FitContext | None:
    """Create the context of a fit; nothing is patched yet.

    Args:
        trainer: The Trainer of the fit.
        module: The LightningModule.
        policy: Makes the decisions.
        run: The columns and the position of the fit, which outlive it; a new one forgets an earlier fit.
        sample_loss: Where per-sample losses come from.
        beside: The contexts of the selectors of other train loaders that are set up.

    Returns:
        The fit, or None if ``overfit_batches`` leaves nothing to select.

    Raises:
        MethodDefinitionError: If the method lacks its decision.
        TrainerSettingsError: If the Trainer has two selectors for one loader, or it is unclear what a budget is a share
            of.
        UnsupportedStepError: If the module's batches cannot be seen, or its step cannot be run without training.
    """
    run.discard_checkpoint()
    policy.has_company = check_selectors(trainer)
    check_definition(policy)
    if overfits(trainer):
        rank_zero_info(f"{type(policy).__name__} is off: overfit_batches fixes which batches are trained on.")
        return None
    _refuse_module(module, policy)
    if trainer.current_epoch == 0:
        run.forget()
        policy.forget()
    else:
        run.restart_epoch()
    run.rank = trainer.global_rank
    first = beside[0] if beside else None
    if first is not None and first.shared is None:
        raise TrainerSettingsError(
            f"{type(policy).__name__}(loader={policy.loader!r}) was added to the Trainer's callbacks after another"
            " selector was set up. List both of them in callbacks=[...]."
        )
    step = module.training_step if first is None else first.training_step
    shared = None
    if policy.has_company:
        shared = SharedReading(module, step, trainer.world_size) if first is None else first.shared
    reader = StepReader(
        module,
        sample_loss,
        required=policy.needs_losses,
        keeps_infinite=policy.ranks_by_loss,
        weighs_value=policy.logged_loss == "weighted",
        method=type(policy).__name__,
        n_ranks=trainer.world_size,
        shared=shared,
    )

    has_budget = policy.budget is not None and not trains_nothing(trainer)
    budget = FitBudget(trainer, policy, run) if has_budget else None
    pace = Pace(trainer, budget) if first is None else first.pace

    def epochs_of(given: object) -> Epochs | StreamedEpochs:
        chosen = choose_loader(given, policy.loader, type(policy).__name__)
        if chosen.part is not None:
            _refuse_other_loaders(policy)
        if not is_stream(chosen.loader):
            planned = PlannedLoader(trainer, policy, run, step, reader, budget, on_drawn=pace.measure_drawn)
            return Epochs(planned, run, reader, pace)
        if policy.has_company:
            refuse_stream_in_company(policy)
        return StreamedEpochs(trainer, policy, run, reader, budget)

    context = FitContext(
        module, step, trainer.global_rank, trainer.world_size, reader, run, pace, epochs_of, budget, shared
    )
    if first is not None:
        context.team = first.team
    context.team.append(context)
    return context


def take_hold(trainer: pl.Trainer, context: FitContext, selectors: Sequence[Participant]) -> None:
    """Patch the training step, and the train loader, before either is used; undone when the fit ends.

    Args:
        trainer: The Trainer of the fit.
        context: The fit.
        selectors: Called instead of the training step, with the step, its arguments and its keyword arguments, while
            they have samples in the batch; otherwise the module's own step runs.
    """
    module, step, reader = context.module, context.training_step, context.reader
    first = selectors[0]
    callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]

    @functools.wraps(step)
    def training_step(*args: Any, **kwargs: Any) -> Any:
        if context.shared is not None:
            return run_for_all(selectors, step, args, kwargs)
        return step(*args, **kwargs) if first.batch is None else first.run_step(step, args, kwargs)

    def loader_for_loop(given: object) -> object:
        return given if is_searching(trainer, callbacks) else context.prepare_loader(given)

    context.add_cleanup(explain_checkpoint_faults(trainer))
    forget_train_loader(trainer)
    context.add_cleanup(intercept_train_loader(trainer, loader_for_loop))
    if context.budget is not None:
        context.add_cleanup(context.budget.give_back)
    context.add_cleanup(patch_attribute(module, "training_step", training_step))
    for part in logging_parts(module):
        context.add_cleanup(patch_attribute(part, "log", reader.capture.bypass(part.log)))
    if not module.automatic_optimization:
        backward = module.manual_backward

        @functools.wraps(backward)
        def manual_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            for selector in selectors:
                if selector.context is not None and selector.batch is not None:
                    loss = selector.context.reader.register_backward_loss(loss)
            backward(loss, *args, **kwargs)

        context.add_cleanup(patch_attribute(module, "manual_backward", manual_backward))


def announce_fit(trainer: pl.Trainer, context: FitContext) -> None:
    """Announce where a budget ends the fit; leave a search that comes first the user's end, and the user's loader.

    Args:
        trainer: The Trainer of the fit, whose schedules have been built for the full length.
        context: The fit.
    """
    if searches_first(trainer):
        forget_train_loader(trainer)
    else:
        context.announce_end()


def begin_fit(trainer: pl.Trainer, context: FitContext, policy: SelectionPolicy) -> None:
    """Determine which epoch the fit begins with, and scale learning rates until it ends.

    Args:
        trainer: The Trainer of the fit, whose checkpoint is loaded.
        context: The fit.
        policy: Makes the decisions.

    Raises:
        CheckpointMismatchError: If the fit is resumed within an epoch whose remaining samples are unknown.
    """
    state = context.run.fit
    if resumes_within_epoch(trainer) and not (state.batches_done or state.history):
        raise CheckpointMismatchError(
            "The checkpoint was written in the middle of an epoch by a fit without a selector, so"
            f" {type(policy).__name__} cannot know which samples that epoch has left. Resume from a checkpoint at the"
            " end of an epoch, or load the weights alone into a new fit."
        )
    if resumes_within_epoch(trainer) and context.run.has_ended_loader:
        warn_of_ended_loader(state.batches_done)
    context.epochs.start()
    if type(policy).lr_factor is not SelectionPolicy.lr_factor:
        for optimizer in trainer.optimizers:
            context.add_cleanup(scale_learning_rate(optimizer, lambda: policy.lr_factor(context.epoch)))


def refuse_fit_within_fit(policy: SelectionPolicy, outer: pl.Trainer | None, inner: pl.Trainer) -> None:
    """Refuse a fit that begins while the selector is in use in another one.

    Args:
        policy: The selector that both use.
        outer: The Trainer of the earlier fit; None if there is none, or it has ended.
        inner: The Trainer of the new fit.

    Raises:
        TrainerSettingsError: If the earlier fit is still running, in another Trainer.
    """
    if outer is not None and outer is not inner and is_running(outer):
        name = type(policy).__name__
        raise TrainerSettingsError(
            f"The same {name} is in the callbacks of two Trainers, and one of them begins to fit while the other is"
            f" fitting. It can follow only one fit at a time: make a selector for each, callbacks=[{name}(...)]."
        )


def _refuse_other_loaders(policy: SelectionPolicy) -> None:
    name = type(policy).__name__
    if policy.needs_one_loader:
        raise UnsupportedLoaderError(
            f"{name} measures samples of loader={policy.loader!r} by passes in which the other train loaders have no"
            " batch, or by what layers within the model were given, which may be another loader's batch. Take a method"
            " that goes by the losses of the training steps, such as InfoBatch, or one loader."
        )
    if policy.budget is not None:
        instead = "Leave budget out"
        if policy.chosen_by == "budget":
            instead = "Take a method that has a prune_ratio, such as InfoBatch"
        raise TrainerSettingsError(
            f"{name}(budget={policy.budget}) is a share of the compute of all samples, but those of the other train"
            f" loaders are not counted. {instead}, or give the Trainer fewer epochs."
        )


def _refuse_module(module: pl.LightningModule, policy: SelectionPolicy) -> None:
    name = type(policy).__name__
    if takes_dataloader_iter(module):
        raise UnsupportedStepError(
            "training_step(dataloader_iter) fetches its own batches, so"
            f" {name} cannot tell which samples they hold. Let training_step take `batch`, or remove the callback."
        )
    if policy.needs_extra_forward and not module.automatic_optimization:
        raise UnsupportedStepError(
            f"{name} measures samples by passes through training_step without training, but with"
            " manual optimization the step trains while it runs. Use automatic optimization, or a method without"
            " such passes, such as InfoBatch."
        )
