"""A prune ratio that changes: in fits of every method that has one, over warm-up, annealing, resuming and no end."""

import numpy as np
import pytest
from helpers import SAFELY, Hardest, Net, loader, same_weights, trainer

from lightning_dataselect import DataSelector, RandomPruning, RatioSchedule, Selection, list_methods
from lightning_dataselect.utils.arguments import accepted_arguments

N = 100
FALLING = "linear(start=0.8, end=0.2)"


def fit(selector, max_epochs=6, **options):
    made = trainer(selector, max_epochs=max_epochs, **options)
    net = Net()
    made.fit(net, loader())
    return net


def selected(selector):
    return [record["n_selected"] for record in selector.history]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"prune_ratio": FALLING}, [100, 20, 35, 50, 65, 80]),
        ({"prune_ratio": FALLING, "warmup_epochs": 0, "anneal": 1 / 3}, [20, 40, 60, 80, 100, 100]),
        ({"prune_ratio": FALLING, "every_n_epochs": 2}, [100, 20, 20, 50, 50, 80]),
        ({"prune_ratio": "linear(start=0, end=0.5, n_epochs=3)"}, [100, 100, 75, 50, 50, 50]),
        ({"prune_ratio": lambda epoch: epoch / 10}, [100, 90, 80, 70, 60, 50]),
        ({"prune_ratio": lambda epoch: 0.5 * (epoch % 2)}, [100, 50, 100, 50, 100, 50]),
    ],
)
def test_every_epoch_has_its_own_number(arguments, expected):
    selector = Hardest(whole_batches=False, **arguments)
    fit(selector)
    assert selected(selector) == expected


WITH_A_RATIO = [method for method in list_methods() if "prune_ratio" in accepted_arguments(method.cls)]
OWN_PRUNING = {"InfoBatch", "SeTa", "KAKURENBO"}  # whose ratio is not the share of all that is dropped
EXTRA = {
    "DUAL": {"window": 2}, "TDDS": {"window": 3}, "KAKURENBO": {"phases": (), "tau": 0.0}, "ESWP": {"batch_ratio": 1.0},
    "Forgetting": {"warmup_epochs": 3}, "SeTa": {"window_scale": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("method", WITH_A_RATIO, ids=lambda method: method.name)
def test_every_method_that_has_a_ratio_heeds_a_schedule(method):
    extra = {"warmup_epochs": 3, "anneal": 0.0, "every_n_epochs": 1} | EXTRA.get(method.name, {})
    selector = method.cls(prune_ratio="linear(start=0.6, end=0.2)", whole_batches=False, **extra)
    fit(selector)
    if method.name in OWN_PRUNING:
        assert selected(selector)[:3] == [100, 100, 100] and selected(selector)[3] < selected(selector)[5] <= 100
    else:
        assert selected(selector) == [100, 100, 100, 40, 60, 80]


def course(epoch):
    return round(0.6 - 0.1 * (epoch - 3), 9)


def cosine(t):
    return 0.2 + 0.4 * (1 + np.cos(np.pi * t)) / 2


FORMS = {
    0.3: lambda t: 0.3,
    "linear(start=0.6, end=0.2)": lambda t: 0.6 - 0.4 * t,
    RatioSchedule(start=0.6, end=0.2, shape="cosine"): cosine,
    "exponential(start=0.6, end=0.2)": lambda t: 1 - 0.4 ** (1 - t) * 0.8**t,
    course: lambda t: 0.6 - 0.4 * t,
    f"{__name__}.course": lambda t: 0.6 - 0.4 * t,
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: getattr(form, "__name__", form))
@pytest.mark.parametrize("method", WITH_A_RATIO, ids=lambda method: method.name)
def test_every_method_takes_every_form_and_comes_to_its_end(method, form):
    """Ten epochs, three of them warm-up and the last two annealing: five are pruned, epochs 3 to 7."""
    extra = {"warmup_epochs": 3, "every_n_epochs": 1} | EXTRA.get(method.name, {}) | {"anneal": 0.2}
    selector = method.cls(prune_ratio=form, **extra)
    selector.max_epochs = 10
    expected = [FORMS[form](t) for t in np.linspace(0, 1, 5)]
    found = [selector.ratio_at(epoch) for epoch in range(3, 8)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found[0], found[-1]) == ((0.3, 0.3) if form == 0.3 else (0.6, 0.2)), "the ends are exact"


def test_a_method_of_ones_own_sees_the_number_of_the_epoch():
    asked = []

    class Mine(DataSelector):
        def select(self, epoch, scores, generator):
            asked.append((epoch, self.prune_ratio))
            return Selection(scores.topk(round((1 - self.prune_ratio) * len(scores))).indices)

    fit(Mine(prune_ratio=FALLING), max_epochs=4)
    assert asked == [(1, 0.8), (2, 0.5), (3, 0.2)]


@pytest.mark.parametrize("within", [False, True])
def test_a_resumed_fit_goes_on_with_the_same_schedule(within, tmp_path):
    path = tmp_path / "fit.ckpt"

    class Saving(Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if within and (self.current_epoch, batch_idx) == (3, 1):
                self.trainer.save_checkpoint(path)

        def on_train_epoch_start(self):
            if not within and self.current_epoch == 3:
                self.trainer.save_checkpoint(path)

    made, whole = RandomPruning(prune_ratio=FALLING, whole_batches=False), Saving()
    trainer(made, max_epochs=6).fit(whole, loader())
    again, net = RandomPruning(prune_ratio=FALLING, whole_batches=False), Net(seed=5)
    trainer(again, max_epochs=6).fit(net, loader(), ckpt_path=path, **SAFELY)
    assert selected(again) == selected(made) == [20, 32, 44, 56, 68, 80]
    assert same_weights(net, whole)


def test_a_fit_without_a_known_end_needs_a_length():
    with pytest.raises(ValueError, match="goes on to the last epoch, but the Trainer does not say how many"):
        fit(RandomPruning(prune_ratio=FALLING), max_epochs=-1, max_steps=20)
    selector = RandomPruning(prune_ratio=RatioSchedule(start=0.8, end=0.2, n_epochs=3), whole_batches=False)
    fit(selector, max_epochs=-1, max_steps=20)
    assert selected(selector)[:3] == [20, 50, 80]


def test_a_function_that_gives_no_ratio_names_the_epoch():
    with pytest.raises(ValueError, match=r"prune_ratio\(2\)=1.0 is outside"):
        fit(RandomPruning(prune_ratio=lambda epoch: epoch / 2))


def test_a_schedule_cannot_follow_a_budget_but_a_function_can():
    with pytest.raises(ValueError, match="with budget=0.5 that is not known beforehand: give a number, or"):
        RandomPruning(prune_ratio=FALLING, budget=0.5)
    selector = RandomPruning(prune_ratio=lambda epoch: 0.5 + 0.2 * (epoch % 2), budget=0.5, whole_batches=False)
    fit(selector, max_epochs=2)
    assert selected(selector)[:2] == [50, 30]


def test_a_walk_takes_equal_steps():
    with pytest.raises(ValueError, match="changes from epoch to epoch, but mode='walk'.*or mode='fresh'"):
        RandomPruning(mode="walk", prune_ratio=FALLING)


def test_a_schedule_that_drops_everything_of_a_small_set_is_refused_at_the_start():
    with pytest.raises(ValueError, match="prune_ratio=0.999 leaves 0 of 100 samples"):
        fit(RandomPruning(prune_ratio="linear(start=0.1, end=0.999)"))
