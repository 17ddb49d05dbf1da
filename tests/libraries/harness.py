"""Checks on published modules: pruned epochs, and losses and gradients that are each sample's own.

The reference is Lightning itself: a fit with one sample a batch and no selector.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, InfoBatch
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.state.selection import Selection

TOLERANCE = 1e-4
_ENTRIES = 4096  # of each parameter's gradient that are compared


@dataclass
class Case:
    """A module of a library, and data for it.

    Attributes:
        module: built anew for each fit, with the same weights.
        loader: the train loader, by batch size.
        units: how many units the mean of the module's loss counts for each sample; None: one.
        trainer: the class of the Trainer.
        validates: whether the module needs validation, for its scheduler say.
    """

    module: Callable[[], Any]
    loader: Callable[[int], Any]
    units: Tensor | None = None
    trainer: type = pl.Trainer
    validates: bool = False


class Alone(pl.Callback):
    """Keeps a module at its first weights, in eval mode, and writes down each step's loss and gradient."""

    def __init__(self):
        self.losses, self.gradients = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.eval()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        parts = [p.grad.detach().flatten()[:_ENTRIES] for p in pl_module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat(parts).double())
        for parameter in pl_module.parameters():
            parameter.grad = None  # an optimizer leaves what has no gradient alone

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))


class RandomWeights(DataSelector):
    """Keeps everything, with random weights."""

    def select(self, epoch, scores, generator):
        n = scores.numel()
        return Selection(torch.arange(n), 0.2 + 2 * torch.rand(n, generator=generator))


def fit(case, *callbacks, batch_size, max_epochs):
    """Fit, and answer the module and the warnings that were seen."""
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = case.trainer(
        accelerator="cpu", max_epochs=max_epochs, callbacks=list(callbacks), num_sanity_val_steps=0, **quiet
    )
    module, train = case.module(), case.loader(batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, train, case.loader(2) if case.validates else None)
    return module, {
        str(warning.message) for warning in caught if "number of training batches" not in str(warning.message)
    }


def check_trains(case, batch_size=8, max_epochs=4, method=InfoBatch, **arguments):
    """Fit with pruning, and without a word of ours."""
    before = copy.deepcopy(case.module().state_dict())
    selector = method(**arguments) if arguments else method(prune_ratio=0.5)
    module, warned = fit(case, selector, batch_size=batch_size, max_epochs=max_epochs)
    assert warned - fit(case, batch_size=batch_size, max_epochs=1)[1] == set()
    assert "training_step" not in vars(module)
    after = module.state_dict()
    assert any(not torch.equal(before[name].to(after[name]), after[name]) for name in before)
    assert len(selector.history) == max_epochs
    least = min(record["n_backward"] for record in selector.history)
    assert 0 < least < selector.history[0]["n_total"], selector.history
    assert selector.losses.isfinite().all()
    return selector, module


def check_batch_method(case, batch_size=8, max_epochs=3):
    """Fit with a method that scores each batch and trains on a part of it."""
    return check_trains(case, batch_size, max_epochs, EvolvedSampling, batch_ratio=0.25, anneal=0.0)


def check_losses(case, batch_size=8):
    """Compare losses, the weighted loss and its gradient with a fit of one sample a batch."""
    alone = Alone()
    fit(case, alone, batch_size=1, max_epochs=1)
    expected = torch.tensor(alone.losses)

    selector = InfoBatch(prune_ratio=0.5)
    fit(case, selector, Alone(), batch_size=batch_size, max_epochs=3)
    torch.testing.assert_close(selector.losses, expected, atol=TOLERANCE, rtol=TOLERANCE)

    weigher, together = RandomWeights(prune_ratio=0.1, warmup_epochs=0), Alone()
    batches = _Batches(weigher)
    fit(case, weigher, together, batches, batch_size=batch_size, max_epochs=2)
    units = torch.ones(len(expected)) if case.units is None else case.units
    assert len(batches.seen) >= 2 * len(expected) // batch_size
    for (indices, weights), loss, gradient in zip(batches.seen, together.losses, together.gradients, strict=True):
        # weights reach the gradient alone: the value of the loss, as a module logs it, is the unweighted one
        plain = units[indices] / units[indices].sum()
        share = weights * plain
        mixed = sum(s * alone.gradients[i] for s, i in zip(share.tolist(), indices.tolist(), strict=True))
        torch.testing.assert_close(
            torch.tensor(loss), (plain * expected[indices]).sum(), atol=TOLERANCE, rtol=TOLERANCE
        )
        torch.testing.assert_close(gradient, mixed, atol=TOLERANCE, rtol=1e-3)
    return selector


class _Batches(pl.Callback):
    """Writes down the samples of each batch and their weights."""

    def __init__(self, selector):
        self.selector, self.seen = selector, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((self.selector.batch.indices, self.selector.batch.weights))


def rows_loader(rows, copies=1, **options) -> Callable[[int], DataLoader]:
    """A loader of samples, shuffled but for the batch of one, which may hold several copies of that one."""

    def loader(batch_size):
        if batch_size > 1:
            return DataLoader(rows, batch_size=batch_size, shuffle=True, **options)
        alone = [i for i in range(len(rows)) for _ in range(copies)]
        return DataLoader(rows, batch_size=copies, sampler=alone, **options)

    return loader
