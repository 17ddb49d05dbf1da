"""A fit with a budget ends when that share of its planned compute is spent, its schedules at their end."""

import lightning as L
import pytest
import torch
from helpers import AtMost, ByHand, N, Net, Seen, Shares, fit, loader, same_weights, trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from schedule_helpers import steps
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, StepLR

from lightning_dataselect import (
    ESWP,
    KAKURENBO,
    AutoAssist,
    EpsilonGreedy,
    EvolvedSampling,
    FewerEpochs,
    Frontier,
    InfoBatch,
    RandomPruning,
    SelectiveBackprop,
)
from lightning_dataselect.utils.errors import InvalidLoaderError

EXACT = {"rtol": 0, "atol": 0}


def spent(selector):
    """In samples trained on, by the definition: a forward pass is one third, a backward pass two thirds."""
    return sum(r["n_forward"] / 3 + r["n_backward"] * 2 / 3 for r in selector.history)


def batches(module):
    return [sum(s.epoch == epoch for s in module.steps) for epoch in range(1 + module.steps[-1].epoch)]


def scheduler_of(made):
    return made.lr_scheduler_configs[0].scheduler


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "budget, expected",
    [(0.5, [10] * 5), (1.0, [10] * 10), (0.3, [10] * 3), (0.25, [10, 10, 5]), (0.033, [3]), (0.001, [1])],
)
def test_everything_is_trained_on_until_the_share_is_spent(budget, expected):
    selector = FewerEpochs(budget=budget)
    made, module = fit(selector, max_epochs=10)
    assert batches(module) == expected
    assert spent(selector) == pytest.approx(max(budget * 10 * N, 10), abs=5)
    assert made.current_epoch == len(expected) and made.max_epochs == 10


@pytest.mark.parametrize(
    "flags, planned",
    [
        ({"limit_train_batches": 7}, 700),
        ({"limit_train_batches": 0.5}, 500),
        ({"max_steps": 60}, 600),
        ({"max_epochs": -1, "max_steps": 60}, 600),
        ({"max_steps": 17, "accumulate_grad_batches": 3}, 430),
        ({"accumulate_grad_batches": 4}, 1000),
        ({"reload_dataloaders_every_n_epochs": 1}, 1000),
        ({"callbacks": [GradientAccumulationScheduler({0: 4, 2: 2})]}, 1000),
        ({"min_epochs": 8}, 1000),
        ({"val_check_interval": 7}, 1000),
        ({"check_val_every_n_epoch": None, "val_check_interval": 13}, 1000),
    ],
    ids=lambda x: "GradientAccumulationScheduler" if isinstance(x, dict) and "callbacks" in x else str(x),
)
@pytest.mark.parametrize("make", [FewerEpochs, lambda **b: RandomPruning(prune_ratio=0.5, **b)], ids=["all", "half"])
def test_the_trainers_settings_say_what_the_whole_is(flags, planned, make):
    selector = make(budget=0.55)
    made, module = fit(selector, **{"max_epochs": 10, **flags})
    assert sum(step.size for step in module.steps) == pytest.approx(0.55 * planned, abs=5)
    assert made.max_epochs == flags.get("max_epochs", 10) and made.max_steps == flags.get("max_steps", -1)


def test_what_dropping_saves_goes_into_further_epochs_and_beyond_max_epochs():
    selector = RandomPruning(prune_ratio=0.5, budget=0.8)
    _, module = fit(selector, max_epochs=4)
    assert batches(module) == [5] * 6 + [2] and spent(selector) == 320


@pytest.mark.parametrize(
    "make",
    [
        lambda: InfoBatch(budget=0.5),
        lambda: InfoBatch(prune_ratio=0.9, budget=0.7),
        lambda: EvolvedSampling(batch_ratio=0.3, budget=0.5),
        lambda: ESWP(batch_ratio=0.3, budget=0.4),
        lambda: KAKURENBO(budget=0.5, tau=0.0),
    ],
)
def test_passes_that_score_count_and_the_end_is_exact_to_a_batch(make):
    selector = make()
    fit(selector, max_epochs=10)
    share = selector.budget * 10 * N
    assert spent(selector) == pytest.approx(share, abs=10)
    # KAKURENBO measures what it has hidden
    assert any(r["n_forward"] > r["n_trained"] for r in selector.history) == (type(selector) is not InfoBatch)


@pytest.mark.parametrize("further, expected", [(N, 3 * N), (100 * N, 5 * N)])
def test_a_method_may_end_its_fit_sooner_but_not_later_with_the_schedule_at_its_end(further, expected):
    class Stops(RandomPruning):
        def select(self, epoch, scores, generator):
            if epoch == 4:  # of half a set each
                self.context.end_early(epoch, further)
            return super().select(epoch, scores, generator)

    selector = Stops(prune_ratio=0.5, budget=0.5)
    made, _ = fit(selector, Net(linear), max_epochs=10)
    assert spent(selector) == pytest.approx(expected, abs=5) and made.max_epochs == 10
    assert scheduler_of(made).get_last_lr()[0] == pytest.approx(0, abs=1e-6)


def test_annealing_is_a_share_of_the_budget():
    selector = RandomPruning(prune_ratio=0.5, budget=0.8, anneal=0.25)
    fit(selector, max_epochs=10)
    # 600 of 800 in epochs of 50, the other 200 in whole epochs
    assert [r["n_selected"] for r in selector.history] == [50] * 12 + [100] * 2


def test_max_steps_are_a_plan_as_max_epochs_are():
    selector = EvolvedSampling(batch_ratio=0.1, warmup_epochs=0, anneal=0.0, budget=0.9)
    made, _ = fit(selector, max_epochs=10, max_steps=20)
    # a step costs 1/3 + 1/10 of one on everything
    assert made.global_step == pytest.approx(0.9 * 20 / (1 / 3 + 0.1), abs=1) and made.max_steps == 20


def test_a_warm_up_counts():
    selector = RandomPruning(prune_ratio=0.5, budget=0.5, warmup_epochs=3)
    fit(selector, max_epochs=10)
    assert [r["n_selected"] for r in selector.history] == [100] * 3 + [50] * 4


def test_a_warm_up_that_takes_all_of_the_budget_is_warned_of():
    with pytest.warns(UserWarning, match="warmup_epochs=2 .* none of the 2 epochs in its budget to prune"):
        fit(RandomPruning(budget=0.2, warmup_epochs=2), max_epochs=10)


def test_what_an_assistant_drops_is_expected_of_the_next_epoch():
    selector = AutoAssist(synchronous=True, base_prob=0.05, learning_rate=0.5, budget=0.5)
    _, module = fit(selector, max_epochs=10)
    assert any(r["n_left_out"] for r in selector.history)
    assert spent(selector) == pytest.approx(500, abs=20)


def test_phases_of_a_method_go_by_the_budget():
    selector = KAKURENBO(budget=0.5, tau=0.0)
    shares = []

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, module):
            shares.append((selector.progress(trainer.current_epoch), selector.hidden_share(trainer.current_epoch)))

    fit(selector, max_epochs=10, callbacks=[Watch()])
    assert shares[0][0] == 0 and all(0 < progress < 1 for progress, _ in shares[1:])
    expected = [0.3 * (1 - 0.2 * sum(progress >= phase for phase in (0.3, 0.6, 0.8))) for progress, _ in shares]
    assert [share for _, share in shares] == pytest.approx(expected)


# ---- schedules -------------------------------------------------------------------------------------------------------


def one_cycle(optimizer, trainer):
    return {"scheduler": OneCycleLR(optimizer, 0.05, total_steps=steps(trainer)), "interval": "step"}


def cosine(optimizer, trainer):
    return {"scheduler": CosineAnnealingLR(optimizer, steps(trainer)), "interval": "step"}


def linear(optimizer, trainer):
    return {"scheduler": LinearLR(optimizer, 1.0, 0.0, total_iters=steps(trainer)), "interval": "step"}


def cosine_by_epoch(optimizer, trainer):
    return CosineAnnealingLR(optimizer, trainer.max_epochs)


def fitted(schedule, max_epochs, **flags):
    """A fit without a selector, its schedule fitted to as many epochs."""
    return fit(None, Net(schedule, lr=0.01), loader(shuffle=False), max_epochs=max_epochs, **flags)


def fewer(schedule, budget, max_epochs=10, **flags):
    made = FewerEpochs(budget=budget)
    return fit(made, Net(schedule, lr=0.01), loader(shuffle=False), max_epochs=max_epochs, **flags)


@pytest.mark.parametrize("schedule", [cosine, linear, cosine_by_epoch])
@pytest.mark.parametrize("flags", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_half_the_budget_is_half_the_epochs_with_the_schedule_fitted_to_them(schedule, flags):
    (_, expected), (_, module) = fitted(schedule, 5, **flags), fewer(schedule, 0.5, **flags)
    assert [s.lr for s in module.steps] == pytest.approx([s.lr for s in expected.steps], rel=1e-6, abs=1e-9)
    for a, b in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def distance(a, b):
    return float(torch.cat([(x - y).flatten() for x, y in zip(a.parameters(), b.parameters(), strict=True)]).norm())


def test_one_cycle_is_that_of_fewer_epochs_up_to_the_rounding_of_its_steps():
    class Sgd(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)
            one_cycle = OneCycleLR(optimizer, 0.01, total_steps=steps(self.trainer))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one_cycle, "interval": "step"}}

    def train(selector, max_epochs):
        return fit(selector, Sgd(), loader(shuffle=False), max_epochs=max_epochs)[1]

    expected, module = train(None, 5), train(FewerEpochs(budget=0.5), 10)
    # its last step is total_steps - 1: the phases of one are off by a step of the other
    apart = [abs(a.lr - b.lr) for a, b in zip(module.steps, expected.steps, strict=True)]
    assert max(apart) < 0.01 * 2 / 50
    assert distance(module, expected) < 0.02 * distance(Sgd(), expected)
    assert distance(train(FewerEpochs(budget=0.5, lr_schedule="steps"), 10), expected) > 0.2 * distance(Sgd(), expected)


def test_steps_by_epoch_come_at_the_same_share_of_the_fit():
    def every(n):
        return lambda optimizer, trainer: StepLR(optimizer, n, 0.1)

    (_, expected), (made, module) = fitted(every(2), 5), fewer(every(4), 0.5)
    assert [s.lr for s in module.steps] == pytest.approx([s.lr for s in expected.steps], rel=1e-9)
    for a, b in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert scheduler_of(made).last_epoch == 10


def every_second_epoch(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 1, 0.5), "interval": "epoch", "frequency": 2}


def every_third_step(optimizer, trainer):
    return {"scheduler": StepLR(optimizer, 2, 0.9), "interval": "step", "frequency": 3}


SPENDERS = {
    "FewerEpochs": lambda: FewerEpochs(budget=0.37),
    "InfoBatch": lambda: InfoBatch(budget=0.5),
    "EvolvedSampling": lambda: EvolvedSampling(batch_ratio=0.3, budget=0.6),
    "Shares": lambda: Shares(0.5, 0.2, 0.7, 0.4, budget=0.8),
}


def end_of(schedule, selector, **flags):
    return scheduler_of(fit(selector, Net(schedule), max_epochs=10, limit_val_batches=0, **flags)[0]).last_epoch


@pytest.mark.parametrize("schedule", [one_cycle, cosine, cosine_by_epoch, every_second_epoch, every_third_step])
def test_every_schedule_ends_where_it_would_have(schedule):
    expected = end_of(schedule, None)
    assert expected > 0
    assert {name: end_of(schedule, make()) for name, make in SPENDERS.items()} == dict.fromkeys(SPENDERS, expected)


@pytest.mark.parametrize(
    "budget", [0.3, 0.33, 0.36]
)  # after an epoch a pass over everything takes what is left, or not
def test_a_pass_that_measures_never_takes_what_schedules_need_to_end(budget):
    selector = EpsilonGreedy(rescore=True, budget=budget)
    made, module = fit(selector, Net(cosine), max_epochs=4, limit_val_batches=0)
    assert scheduler_of(made).last_epoch == 40
    assert module.steps[-1].epoch == 1 and spent(selector) == pytest.approx(budget * 4 * N, abs=5)


@pytest.mark.parametrize(
    "flags", [{"accumulate_grad_batches": 3}, {"limit_train_batches": 7}, {"max_steps": 57}], ids=str
)
@pytest.mark.parametrize("schedule", [one_cycle, every_second_epoch])
def test_it_ends_there_with_every_setting_of_the_trainer(schedule, flags):
    expected = end_of(schedule, None, **flags)
    for name in ("FewerEpochs", "Shares"):
        assert end_of(schedule, SPENDERS[name](), **flags) == expected


@pytest.mark.parametrize("when", ["each batch", "the last batch", "each epoch's end"])
def test_schedules_that_a_module_steps_itself_end_where_they_would(when):
    class Stepping(ByHand, Net):
        def __init__(self):
            super().__init__(lambda optimizer, trainer: StepLR(optimizer, 1, 0.97))

        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            if when == "each batch" or (when == "the last batch" and self.trainer.is_last_batch):
                self.lr_schedulers().step()

        def on_train_epoch_end(self):
            if when == "each epoch's end":
                self.lr_schedulers().step()

    for selector in (FewerEpochs(budget=0.5), RandomPruning(prune_ratio=0.5, budget=0.6)):
        made, _ = fit(selector, Stepping(), max_epochs=10)
        assert scheduler_of(made).last_epoch == (100 if when == "each batch" else 10)


def test_a_schedule_on_a_metric_and_steps_are_left_alone():
    def plateau(optimizer, trainer):
        return {"scheduler": ReduceLROnPlateau(optimizer, patience=0), "monitor": "val_loss", "interval": "epoch"}

    assert scheduler_of(fewer(plateau, 0.5)[0]).last_epoch == 5
    made, _ = fit(FewerEpochs(budget=0.5, lr_schedule="steps"), Net(cosine), max_epochs=10)
    assert scheduler_of(made).last_epoch == 50


def test_rates_that_the_users_own_code_sets_are_warned_of():
    class ByGlobalStep(Net):
        def on_train_batch_start(self, batch, batch_idx):
            self.trainer.optimizers[0].param_groups[0]["lr"] = 0.1 * (1 - self.trainer.global_step / 100)

    with pytest.warns(UserWarning, match="With FewerEpochs the fit ends with its budget, so a schedule over all 100"):
        fit(FewerEpochs(budget=0.5), ByGlobalStep(), max_epochs=10)


# ---- others ----------------------------------------------------------------------------------------------------------


class Watch(L.Callback):
    """Writes down what the Trainer says of its end."""

    def __init__(self):
        self.said, self.sizes = [], []

    def on_train_epoch_start(self, trainer, module):
        self.said.append(trainer.max_epochs)
        self.sizes.append(trainer.num_training_batches)


def test_the_trainer_knows_the_end():
    watch = Watch()
    fit(FewerEpochs(budget=0.45), max_epochs=10, callbacks=[watch])
    assert watch.said == [5] * 5 and watch.sizes == [10] * 4 + [5]
    watch = Watch()
    fit(RandomPruning(prune_ratio=0.5, budget=0.8), max_epochs=4, callbacks=[watch])
    assert watch.said == [7] * 7 and watch.sizes == [5] * 6 + [2]


def test_early_stopping_and_validation_see_every_epoch():
    stopping = EarlyStopping("val_loss", patience=0, min_delta=10.0)
    made, module = fit(FewerEpochs(budget=0.5), max_epochs=10, callbacks=[stopping])
    assert made.current_epoch == 2 and stopping.stopped_epoch == 1
    _, module = fit(FewerEpochs(budget=0.45), max_epochs=10)
    assert module.validated == [(0, 10), (1, 20), (2, 30), (3, 40), (4, 45)]


def test_weight_averaging_begins_at_its_share_of_the_fewer_epochs():
    swa = StochasticWeightAveraging(0.01, swa_epoch_start=0.8, annealing_epochs=1)
    fit(FewerEpochs(budget=0.5), max_epochs=10, callbacks=[swa, AtMost(200)])
    assert swa.swa_start == 3 and int(swa.n_averaged) == 2


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("planned", [4, 8])
def test_weight_averaging_ends_with_a_fit_that_takes_more_epochs_than_were_announced(planned, norm):
    module = Net()
    if norm:
        module.net.insert(1, torch.nn.BatchNorm1d(16))
    swa = StochasticWeightAveraging(0.01, swa_epoch_start=0.6, annealing_epochs=2)
    callbacks = [swa, AtMost(20 * planned)]
    made, _ = fit(RandomPruning(prune_ratio=0.5, budget=0.5), module, max_epochs=planned, callbacks=callbacks)
    start = int(planned * 0.6) - 1
    assert swa.swa_start == start and int(swa.n_averaged) == planned - start
    # batch norms take one more pass, in which the weights stay
    assert made.global_step == planned * 5 + norm and made.current_epoch == planned + norm
    averages = [parameter.cpu() for parameter in swa._average_model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), averages, strict=True))


def test_weight_averaging_in_a_resumed_fit_ends_with_it(tmp_path):
    def run(path=None, **options):
        swa = StochasticWeightAveraging(0.01, swa_epoch_start=0.6, annealing_epochs=2)
        selector, module = RandomPruning(prune_ratio=0.5, budget=0.5), Net(seed=0 if path is None else 9)
        keep = ModelCheckpoint(tmp_path, save_top_k=-1, save_on_train_epoch_end=True, filename="{epoch}")
        flags = {"max_epochs": 8, "callbacks": [swa, keep, AtMost(160)], "enable_checkpointing": True}
        made, _ = fit(selector, module, ckpt_path=path, **flags)
        return made.global_step, swa.swa_start, [p.tolist() for p in module.parameters()]

    expected = run()
    assert expected[:2] == (40, 3)
    for epoch in (1, 4, 6):
        assert run(tmp_path / f"epoch={epoch}.ckpt") == expected, epoch


def test_a_fit_without_a_budget_after_one_with_is_whole_again():
    module = Net()
    made = trainer(FewerEpochs(budget=0.5), max_epochs=10)
    made.fit(module, loader())
    made.fit(module, loader())  # nothing is left
    assert made.current_epoch == 5 and len(module.steps) == 50
    made.fit_loop.max_epochs = 20
    made.fit(module, loader())
    assert made.current_epoch == 10 and len(module.steps) == 100


@pytest.mark.parametrize("flags", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}], ids=str)
def test_a_fit_of_nothing_stays_one(flags):
    selector = FewerEpochs(budget=0.5)
    made, module = fit(selector, **{"max_epochs": 4, **flags})
    assert module.steps == [] and made.max_epochs == flags.get("max_epochs", 4)


# ---- checkpoints -----------------------------------------------------------------------------------------------------

RESUMED = {
    "FewerEpochs": (lambda: FewerEpochs(budget=0.7), one_cycle),
    "InfoBatch": (lambda: InfoBatch(budget=0.6), cosine_by_epoch),
    "EvolvedSampling": (lambda: EvolvedSampling(batch_ratio=0.3, budget=0.6), cosine_by_epoch),
    "beyond max_epochs": (lambda: RandomPruning(prune_ratio=0.5, budget=0.95), one_cycle),
}


@pytest.mark.parametrize("make, schedule", RESUMED.values(), ids=RESUMED)
def test_a_fit_resumed_from_any_checkpoint_is_the_same_fit(make, schedule, tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step % 13 == 0:
                trainer.save_checkpoint(tmp_path / f"step-{trainer.global_step}.ckpt")

        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / f"validated-{trainer.global_step}.ckpt")

    ends = ModelCheckpoint(tmp_path, save_top_k=-1, filename="ended-{epoch}", save_on_train_epoch_end=True)
    selector = make()
    whole, expected = fit(selector, Net(schedule), max_epochs=3, callbacks=[Save(), ends], enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert {path.name.split("-")[0] for path in paths} == {"step", "validated", "ended"}
    for path in paths:
        again = make()
        made, module = fit(again, Net(schedule, seed=9), max_epochs=3, ckpt_path=path)
        assert same_weights(module, expected), path
        assert (made.current_epoch, made.global_step) == (whole.current_epoch, whole.global_step), path
        assert spent(again) == spent(selector) and made.max_epochs == 3
        assert scheduler_of(made).state_dict() == scheduler_of(whole).state_dict()


def test_where_samples_are_drawn_the_announced_end_is_the_end(tmp_path):
    def train(**options):
        selector = SelectiveBackprop(beta=1.0, budget=0.5)
        return selector, *fit(selector, Net(), max_epochs=10, limit_val_batches=0, **options)

    selector, made, _ = train()
    # more than half a batch is left, as fewer samples were drawn than were expected
    assert 470 < spent(selector) < 495
    made.save_checkpoint(tmp_path / "last.ckpt")
    _, again, module = train(ckpt_path=tmp_path / "last.ckpt")
    assert (made.current_epoch, again.current_epoch, module.steps) == (7, 7, [])


def test_a_finished_fit_goes_on_with_a_larger_budget(tmp_path):
    path = tmp_path / "last.ckpt"
    made, _ = fit(FewerEpochs(budget=0.5), max_epochs=10)
    made.save_checkpoint(path)
    larger = FewerEpochs(budget=0.75)
    made, module = fit(larger, Net(seed=9), max_epochs=10, ckpt_path=path)
    assert made.current_epoch == 8 and len(module.steps) == 25 and spent(larger) == 750


def test_epochs_before_the_selector_came_count_as_whole_ones(tmp_path):
    path = tmp_path / "plain.ckpt"
    made, _ = fit(None, max_epochs=3)
    made.save_checkpoint(path)
    made, module = fit(FewerEpochs(budget=0.5), Net(seed=9), max_epochs=10, ckpt_path=path)
    assert made.current_epoch == 5 and len(module.steps) == 20
    made, module = fit(FewerEpochs(budget=0.2), Net(seed=9), max_epochs=10, ckpt_path=path)
    assert made.current_epoch == 3 and not module.steps


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("cls", [FewerEpochs, InfoBatch, EvolvedSampling])
def test_a_budget_out_of_its_range_is_refused(cls, budget):
    with pytest.raises(ValueError, match=rf"budget={budget} is outside \(0, 1\]: give the share of the compute"):
        cls(budget=budget)
    with pytest.raises(TypeError, match="budget='half' is not a number"):
        cls(budget="half")


@pytest.mark.parametrize("flags", [{"max_epochs": -1}, {"max_epochs": None, "max_time": "00:00:00:05"}], ids=str)
def test_a_share_of_an_endless_fit_is_refused(flags):
    with pytest.raises(ValueError, match=r"InfoBatch\(budget=0.5\) .* no end to take a share of. Give the Trainer max"):
        fit(InfoBatch(budget=0.5), **flags)


@pytest.mark.parametrize(
    "given",
    [
        {"prune_ratio": 0.3},
        {"anneal": 0.1},
        {"warmup_epochs": 2},
        {"balance": "class"},
        {"sample_id": "id"},
        {"history_size": 9},
    ],
)
def test_arguments_without_a_meaning_are_refused(given):
    with pytest.raises(TypeError, match=f"FewerEpochs has no use for {next(iter(given))}=.*as long as `budget` lasts"):
        FewerEpochs(**given)


def test_a_step_without_losses_of_samples_is_run_as_it_is():
    class Odd(Net):
        def training_step(self, batch, batch_idx):
            return (self.net(batch[0]) ** 2).sum().sqrt()  # of the batch as a whole

    selector = FewerEpochs(budget=0.5)
    seen = Seen(selector)
    fit(selector, Odd(), callbacks=[seen], max_epochs=4)
    assert sorted(seen.of_epoch(1)) == list(range(N)) and len(seen.batches) == 20


# ---- fits that train on nothing --------------------------------------------------------------------------------------


class LosesNothing(Net):
    def training_step(self, batch, batch_idx):
        return None


@pytest.mark.parametrize("selector", [InfoBatch(budget=0.5), Frontier(budget=0.5)], ids=repr)
def test_a_fit_that_spends_nothing_ends_after_the_users_epochs(selector):
    made = trainer(selector, AtMost(100), max_epochs=6)
    made.fit(LosesNothing(), loader())
    assert made.current_epoch == 6


@pytest.mark.parametrize("selector", [FewerEpochs(budget=0.5), Frontier(budget=0.5)], ids=repr)
def test_a_loader_without_a_batch_is_named_as_the_fault(selector):
    with pytest.raises(InvalidLoaderError, match="batch_size=200 with drop_last=True drops them all"):
        trainer(selector, max_epochs=6).fit(Net(), loader(batch_size=200, drop_last=True))
