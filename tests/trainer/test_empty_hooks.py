"""Hooks of a batch: those that a selector leaves empty are passed over in a fit, and no others."""

import copy

import pytest
from helpers import Shares, fit
from lightning.pytorch.profilers import SimpleProfiler

from lightning_dataselect.trainer import HOOKS_OF_A_BATCH


class Watching(Shares):
    """Defines two of them, one as the base does."""

    def __init__(self):
        super().__init__(0.5)
        self.called = []

    def on_after_backward(self, trainer, pl_module):
        self.called.append("on_after_backward")

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self.called.append("on_before_optimizer_step")


def hooks_run(selector):
    """Return the hooks of a selector that the Trainer has called in an epoch."""
    profiler = SimpleProfiler()
    fit(selector, max_epochs=1, profiler=profiler, num_sanity_val_steps=0)
    prefix = f"[Callback]{selector.state_key}."
    return {name.removeprefix(prefix) for name in profiler.recorded_durations if name.startswith(prefix)}


def test_the_trainer_calls_no_hook_of_a_batch_that_is_empty():
    called = hooks_run(Shares(0.5))
    assert {"on_train_batch_start", "on_train_batch_end"} <= called
    assert not called & {*HOOKS_OF_A_BATCH}


def test_hooks_that_a_method_defines_are_called():
    selector = Watching()
    assert hooks_run(selector) & {*HOOKS_OF_A_BATCH} == {"on_after_backward", "on_before_optimizer_step"}
    assert selector.called == ["on_after_backward", "on_before_optimizer_step"] * 5


def test_a_hook_that_is_set_on_the_selector_itself_is_called():
    selector, called = Shares(0.5), []
    selector.on_before_backward = lambda *given: called.append(given)
    fit(selector, max_epochs=1)
    assert len(called) == 5


@pytest.mark.parametrize("name", HOOKS_OF_A_BATCH)
def test_afterwards_and_in_copies_they_are_as_before(name):
    class Copying(Shares):
        def on_train_batch_end(self, *given):
            super().on_train_batch_end(*given)
            self.copied = copy.deepcopy(self)

    selector = Copying(0.5)
    fit(selector, max_epochs=1)
    assert callable(getattr(selector, name)) and callable(getattr(selector.copied, name))
