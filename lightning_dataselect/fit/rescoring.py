"""A pass over some samples without gradients, to measure them where training would not see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from tqdm.auto import tqdm

from lightning_dataselect.data.loader import SelectedLoader, scoring_loader
from lightning_dataselect.fit.budget import FitBudget
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.recording import record
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.step.reader import StepReader
from lightning_dataselect.trainer import batch_to_device, shows_progress, takes_batch_idx


def score_samples(
    trainer: pl.Trainer,
    selected: SelectedLoader,
    indices: Tensor,
    step: Callable[..., Any],
    reader: StepReader,
    store: ScoreStore,
    epoch: int,
) -> Iterator[Observation]:
    """Run the user's training step over samples in eval mode, without gradients and without side effects.

    The samples are read by the user's own loader (collate function, workers), sharded over the ranks.

    Args:
        trainer: The Trainer of the fit under way.
        selected: The train loader.
        indices: int64 (m,), dataset indices, sorted.
        step: The module's own ``training_step``.
        reader: Reads what the samples lost.
        store: Knows the last loss of every sample.
        epoch: 0-based epoch that the observations are of.

    Yields:
        What each batch has shown; N stands among its indices for samples repeated to make ranks even.
    """
    module = trainer.lightning_module
    loader = scoring_loader(selected, indices, trainer.current_epoch)
    with SideEffectGuard(module)():
        progress = tqdm(
            loader.loader,
            desc="Scoring samples",
            unit="batch",
            leave=False,
            disable=not shows_progress(trainer),
        )
        for batch_idx, batch in enumerate(progress):
            taken = loader.batches.take(batch_idx)
            assert taken is not None
            own = taken.slots(selected.n)
            batch = batch_to_device(trainer, batch)
            args = (batch, batch_idx) if takes_batch_idx(step) else (batch,)
            with trainer.precision_plugin.train_step_context():
                yield reader.score(step, args, {}, own.to(module.device), store, epoch, is_rescoring=True)


def measure_stale(
    policy: SelectionPolicy,
    run: RunState,
    epoch: int,
    score: Callable[[Tensor, ScoreStore], Iterator[Observation]],
    budget: FitBudget | None = None,
) -> None:
    """Measure the samples that a method asks for before it selects those of ``epoch``.

    Args:
        policy: The method.
        run: The columns and the position of the fit.
        epoch: The 0-based epoch to come.
        score: Measures samples, given their indices and what knows their last losses; see `score_samples`.
        budget: May leave too little for a pass; None if nothing but the Trainer ends the fit.
    """
    due = bool(run.fit.history) and policy.rescores and policy.selects_anew(epoch)
    with run.store.memory.active():
        stale = policy.samples_to_rescore(epoch) if due else None
    if stale is None or stale.numel() == 0:
        return
    if budget is not None and not budget.affords_pass(stale.numel(), epoch):
        return  # what is left is trained on, so that schedules come to their end
    for seen in score(stale, run.store):
        run.fit.count_samples(forward=seen.indices.numel(), backward=0)
        record(run, seen, policy)
    run.store.merge()
    run.fit.sum_over_ranks(run.world_size, run.store.device)
    run.fit.history[-1]["n_forward"] += run.fit.n_forward
    run.fit.n_forward = run.fit.n_measured = 0
