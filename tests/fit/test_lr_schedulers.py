"""Schedules end where those of an unpruned run end."""

import pytest
import torch
from helpers import Net, Shares, fit, loader, same_weights
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from schedule_helpers import by_epoch, one_cycle, steps
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, StepLR

PRUNED = [(0.5, 0.2, 0.7, 0.4), (1.0, 0.3), (0.8,), (0.1, 1.0)]


def cosine(optimizer, trainer):
    return {"scheduler": CosineAnnealingLR(optimizer, steps(trainer)), "interval": "step"}


def warmup_decay(optimizer, trainer):
    total = steps(trainer)
    factor = lambda s: min((s + 1) / 5, (total - s) / (total - 5))  # noqa: E731
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def every_second_step(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 2, 0.9), "interval": "step", "frequency": 2}


def run(schedule, selector, **flags):
    class Asked(Net):
        def configure_optimizers(self):
            self.estimate = steps(self.trainer)
            return super().configure_optimizers()

    trainer, net = fit(selector, Asked(schedule), **flags)
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    return scheduler.get_last_lr()[0], scheduler.last_epoch, net.estimate, [s.lr for s in net.steps]


@pytest.mark.parametrize("shares", PRUNED)
@pytest.mark.parametrize("schedule", [cosine, one_cycle, warmup_decay, every_second_step, by_epoch])
def test_ends_at_the_rate_of_an_unpruned_run(schedule, shares):
    assert run(schedule, Shares(*shares))[:3] == run(schedule, None)[:3]


@pytest.mark.parametrize(
    "flags",
    [
        {"accumulate_grad_batches": 3},
        {"accumulate_grad_batches": 4, "max_epochs": 3},
        {"limit_train_batches": 7},
        {"limit_train_batches": 0.55, "accumulate_grad_batches": 2},
        {"max_steps": 20},
        {"max_steps": 17},
        {"max_steps": 33},
        {"max_steps": 7, "accumulate_grad_batches": 3},
        {"max_steps": 1000},
        {"check_val_every_n_epoch": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("schedule", [one_cycle, every_second_step])
def test_ends_there_with_every_flag_that_changes_the_number_of_steps(schedule, flags):
    expected = run(schedule, None, **flags)
    for shares in PRUNED:
        assert run(schedule, Shares(*shares), **flags)[:3] == expected[:3], shares


@pytest.mark.parametrize("flags", [{}, {"accumulate_grad_batches": 4}, {"max_steps": 17}], ids=str)
@pytest.mark.parametrize("schedule", [cosine, every_second_step])
def test_an_unpruned_run_keeps_the_rate_of_every_step(schedule, flags):
    assert run(schedule, Shares(1.0), **flags) == run(schedule, None, **flags)


def test_the_rate_keeps_time_within_an_epoch():
    full = run(cosine, None)[3]
    half = run(cosine, Shares(0.5))[3]
    assert half == full[::2]


def test_steps_leaves_schedules_alone():
    rate, calls, estimate, _ = run(cosine, Shares(0.5, lr_schedule="steps"))
    assert (calls, estimate) == (20, 40)
    full = run(cosine, None)
    assert rate == full[3][20] != full[0]


def test_a_schedule_on_a_metric_is_left_alone():
    def plateau(optimizer, trainer):
        return {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "val_loss", "interval": "epoch"}

    trainer, _ = fit(Shares(0.5), Net(plateau))
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 4


def test_two_optimizers_have_a_schedule_each():
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            for optimizer in (first, second):
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer, scheduler in zip((first, second), self.lr_schedulers(), strict=True):
                optimizer.step()
                scheduler.step()

        def configure_optimizers(self):
            made = [torch.optim.SGD(layer.parameters(), 0.1) for layer in (self.net[0], self.net[2])]
            return made, [StepLR(o, 1, 0.9) for o in made]

    trainer, _ = fit(Shares(0.5), Two())
    # a step that calls its schedulers itself has them in its own hands
    assert [c.scheduler.last_epoch for c in trainer.lr_scheduler_configs] == [20, 20]


def decay(optimizer, trainer):
    return {"scheduler": LambdaLR(optimizer, lambda step: 0.97**step), "interval": "step"}


CHANGE_RATES = {
    "accumulation from the start": lambda: GradientAccumulationScheduler({0: 4}),
    "accumulation later on": lambda: GradientAccumulationScheduler({2: 3, 3: 2}),
    "a scheduler in place of the user's": lambda: StochasticWeightAveraging(
        0.01, swa_epoch_start=2, annealing_epochs=2
    ),
}


@pytest.mark.parametrize("make", CHANGE_RATES.values(), ids=CHANGE_RATES)
def test_callbacks_that_change_steps_or_schedulers_find_them_as_without_a_selector(make):
    (_, plain), (_, selected) = (
        fit(selector, Net(decay), loader(shuffle=False), callbacks=[make()]) for selector in (None, Shares(1.0))
    )
    assert [step.lr for step in selected.steps] == [step.lr for step in plain.steps]
    assert same_weights(selected, plain)


def test_a_schedule_ends_where_it_would_although_accumulation_changes_on_the_way():
    def run(*shares):
        made, net = fit(Shares(*shares), Net(decay), callbacks=[GradientAccumulationScheduler({0: 4, 2: 2})])
        return made.lr_scheduler_configs[0].scheduler.last_epoch, net.steps[-1].epoch

    assert run(1.0, 0.4, 0.7, 0.5) == run(1.0) == (3 + 3 + 5 + 5, 3)
