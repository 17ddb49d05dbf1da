"""Schedules end where those of an unpruned run end."""

import pytest
import torch
from helpers import ByHand, Net, Shares, fit, loader, same_weights
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from schedule_helpers import by_epoch, one_cycle, steps
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, StepLR

from lightning_dataselect import FewerEpochs, InfoBatch

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
@pytest.mark.parametrize("schedule", [one_cycle, pytest.param(every_second_step, marks=pytest.mark.slow)])
def test_ends_there_with_every_flag_that_changes_the_number_of_steps(schedule, flags):
    expected = run(schedule, None, **flags)
    for shares in PRUNED:
        assert run(schedule, Shares(*shares), **flags)[:3] == expected[:3], shares


def by_second_epoch(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 1, 0.5), "frequency": 2}


def every_seventh_batch(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 1, 0.9), "interval": "step", "frequency": 7}


@pytest.mark.parametrize("flags", [{}, {"max_epochs": -1}, {"max_epochs": -1, "accumulate_grad_batches": 2}], ids=str)
@pytest.mark.parametrize("schedule", [by_epoch, by_second_epoch, every_seventh_batch])
def test_where_steps_end_a_fit_schedules_go_by_the_epochs_that_as_many_steps_would_be(schedule, flags):
    flags = {"max_steps": 38, **flags}
    expected = run(schedule, None, **flags)
    for shares in PRUNED[:2]:
        assert run(schedule, Shares(*shares), **flags)[:3] == expected[:3], shares


def test_there_every_step_has_the_rate_that_it_would_have():
    flags = {"max_epochs": -1, "max_steps": 38}
    assert run(by_epoch, Shares(0.5), **flags)[3] == run(by_epoch, None, **flags)[3]


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
    assert [c.scheduler.last_epoch for c in trainer.lr_scheduler_configs] == [40, 40]


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


class Stepping(ByHand, Net):
    """Optimizes manually, and steps its scheduler ``when`` it does."""

    def __init__(self, when):
        super().__init__(decay)
        self.when = when

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        if self.when(self, batch_idx):
            self.lr_schedulers().step()


WHEN = {
    "each batch": lambda net, i: True,
    "every second batch": lambda net, i: (i + 1) % 2 == 0,
    "every second batch from the first": lambda net, i: i % 2 == 0,
    "every third batch and the last": lambda net, i: (i + 1) % 3 == 0 or net.trainer.is_last_batch,
    "the last batch": lambda net, i: net.trainer.is_last_batch,
    "every second epoch": lambda net, i: net.trainer.is_last_batch and net.trainer.current_epoch % 2 == 1,
}


@pytest.mark.parametrize("shares", PRUNED)
@pytest.mark.parametrize("when", WHEN)
def test_schedules_that_a_module_steps_itself_end_where_they_would(when, shares, recwarn):
    ends = []
    for selector in (None, Shares(*shares)):
        made, _ = fit(selector, Stepping(WHEN[when]))
        ends.append(made.lr_scheduler_configs[0].scheduler.last_epoch)
    assert ends[0] == ends[1]
    assert not [w for w in recwarn if "learning rate changes" in str(w.message)]


def test_schedules_of_epochs_are_left_to_a_module_that_steps_them_between_batches():
    class AtTheEnd(Stepping):
        def on_train_epoch_end(self):
            self.lr_schedulers().step()

    made, _ = fit(Shares(0.5), AtTheEnd(lambda net, i: False))
    assert made.lr_scheduler_configs[0].scheduler.last_epoch == 4


class ByPosition:
    """Goes by the number of updates that it is told, as timm's schedulers do."""

    def __init__(self, optimizer, total):
        self.optimizer, self.total = optimizer, total
        self.told = []

    def step_update(self, num_updates, metric=None):
        self.told.append(num_updates)
        for group in self.optimizer.param_groups:
            group["lr"] = 1 - num_updates / self.total

    def step(self, epoch, metric=None):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Timm(Net):
    own = 0

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        scheduler = ByPosition(optimizer, steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler, metric):
        self.own += 1
        scheduler.step_update(num_updates=self.global_step if self.by_global_step else self.own)


@pytest.mark.parametrize("by_global_step", [True, False])
@pytest.mark.parametrize("flags", [{}, {"accumulate_grad_batches": 3}, {"max_steps": 17}], ids=str)
def test_schedulers_that_are_told_the_step_are_told_that_of_the_unpruned_fit(flags, by_global_step, recwarn):
    def run(selector):
        net = Timm()
        net.by_global_step = by_global_step
        made, _ = fit(selector, net, **flags)
        return made.lr_scheduler_configs[0].scheduler.told, made.optimizers[0].param_groups[0]["lr"]

    told, rate = run(None)
    for shares in PRUNED:
        assert run(Shares(*shares)) == (told, rate)
    assert not [w for w in recwarn if "learning rate changes" in str(w.message)]


def set_in_optimizer_step(net, total):
    net.trainer.optimizers[0].param_groups[0]["lr"] = 1 - net.trainer.global_step / total


class ByGlobalStep(Net):
    """Sets its rate in a hook, from the number of steps that there would be."""

    def configure_optimizers(self):
        self.total = steps(self.trainer)
        return super().configure_optimizers()

    def on_before_optimizer_step(self, optimizer):
        set_in_optimizer_step(self, self.total)


class ByGlobalStepInStep(ByGlobalStep):
    def on_before_optimizer_step(self, optimizer):
        pass

    def training_step(self, batch, batch_idx):
        set_in_optimizer_step(self, self.total)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("module", [ByGlobalStep, ByGlobalStepInStep])
def test_rates_that_cannot_be_kept_in_time_are_named(module):
    with pytest.warns(UserWarning, match="changes from batch to batch.*With Shares this epoch takes 5 batches"):
        fit(Shares(1.0, 0.5), module())


@pytest.mark.parametrize(
    "selector, flags", [(Shares(1.0), {}), (Shares(0.5, lr_schedule="steps"), {}), (Shares(0.5), {"max_steps": 17})]
)
def test_nothing_is_said_where_they_reach_their_end(selector, flags, recwarn):
    fit(selector, ByGlobalStep(), **flags)
    assert not [w for w in recwarn if "learning rate changes" in str(w.message)]


@pytest.mark.parametrize("schedule", [cosine, one_cycle, every_second_step, by_epoch])
def test_nothing_is_said_of_schedulers_that_are_kept_in_time(schedule, recwarn):
    for shares in ((0.5, 0.2), (0.3,)):
        fit(Shares(*shares), Net(schedule), max_epochs=6)
    assert not [w for w in recwarn if "learning rate changes" in str(w.message)]


class SetBy(Net):
    """Sets a number of its optimizer in a hook."""

    key, hook = "weight_decay", "on_train_batch_start"

    def share(self):
        return self.trainer.global_step / 40

    def configure_optimizers(self):
        setattr(self, self.hook, self.set)
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def set(self, *_):
        for group in self.trainer.optimizers[0].param_groups:
            group[self.key] = 0.5 * (1 - self.share())


class SetByEpoch(SetBy):
    key, hook = "lr", "on_train_epoch_start"

    def share(self):
        return self.trainer.current_epoch / 4


@pytest.mark.parametrize(
    "key, name", [("weight_decay", "weight decay"), ("momentum", "momentum"), ("lr", "learning rate")]
)
def test_other_schedules_that_cannot_be_kept_in_time_are_named_too(key, name):
    module = SetBy()
    module.key = key
    with pytest.warns(UserWarning, match=f"The {name} changes from batch to batch"):
        fit(Shares(1.0, 0.5), module)


def test_a_schedule_over_epochs_that_a_budget_ends_early_is_named(recwarn):
    fit(FewerEpochs(budget=0.5), SetByEpoch(), max_epochs=8)
    assert [w for w in recwarn if "learning rate changes from epoch to epoch" in str(w.message)]
    recwarn.clear()
    fit(InfoBatch(prune_ratio=0.5), SetByEpoch(), max_epochs=8)
    for schedule in (by_epoch, cosine):
        fit(FewerEpochs(budget=0.5), Net(schedule), max_epochs=8)
    fit(FewerEpochs(budget=0.5), Stepping(lambda net, i: net.trainer.is_last_batch), max_epochs=8)
    assert not [w for w in recwarn if "changes from" in str(w.message)]


class ByCurrentEpoch(Net):
    """Steps as the documentation of Lightning shows it for timm."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        self.told = []
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": StepLR(optimizer, 1), "frequency": self.every}}

    def lr_scheduler_step(self, scheduler, metric):
        self.told.append(self.current_epoch)


@pytest.mark.parametrize("every", [1, 2])
def test_schedulers_that_are_told_the_epoch_are_told_that_of_the_unpruned_fit(every):
    told = []
    for selector in (None, FewerEpochs(budget=0.5), Shares(0.5)):
        module = ByCurrentEpoch()
        module.every = every
        made, _ = fit(selector, module, max_epochs=8)
        told.append(module.told)
        assert made.current_epoch in (4, 8)
    assert told == [[*range(every - 1, 8, every)]] * 3
