"""The tasks that judge Frontier a second time: their samples, their wrong labels, their recipes, and their table."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from benchmarks import frontier_tables, held_out_task_data
from benchmarks.frontier import run
from benchmarks.frontier_held_out import HeldOutModule
from benchmarks.held_out_task_networks import Characters, Mixer, small_resnet
from benchmarks.held_out_tasks import TITLES, balanced, constant_adam, constant_sgd, held_out_task, in_steps
from benchmarks.tables import tables
from lightning_dataselect import FewerEpochs

MADE_UP = [name for name in TITLES if TITLES[name].startswith(("made up", "regression"))]


def rng():
    return np.random.default_rng(3)


def test_a_share_of_a_group_is_labelled_wrong_and_nothing_else():
    y, is_in_group = torch.arange(4).repeat(2500), torch.arange(10_000) % 5 == 0
    wrong = held_out_task_data.wrong_in_group(y, is_in_group, 0.4, rng()) != y
    assert not wrong[~is_in_group].any()
    assert float(wrong[is_in_group].float().mean()) == pytest.approx(0.4, abs=0.04)


def test_the_first_class_has_so_many_times_the_samples_of_the_last():
    y = torch.arange(10).repeat(1000)
    chosen = held_out_task_data.fewer_of_later_classes(y, 1000, 50, rng())
    counts = y[chosen].bincount()
    assert counts.tolist() == [int(1000 * 50 ** (-c / 9)) for c in range(10)]
    assert len(chosen.unique()) == len(chosen) and not torch.equal(y[chosen], y[chosen].sort().values)


def test_a_vote_is_drawn_as_often_as_people_gave_it():
    counts = np.tile(np.array([[0, 30, 0, 10, 0]], dtype=np.uint8), (20_000, 1))
    votes = held_out_task_data.single_votes(counts, rng()).bincount(minlength=5) / 20_000
    assert votes.tolist() == pytest.approx([0, 0.75, 0, 0.25, 0], abs=0.01)
    assert held_out_task_data.single_votes(np.eye(5, dtype=np.uint8), rng()).tolist() == [0, 1, 2, 3, 4]


def test_a_tenth_of_the_images_is_noise_and_the_others_are_as_they_were():
    x, y = 3 + 2 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10).repeat(200)
    noisy, given = held_out_task_data.with_noise_images(x, y, 0.1, rng())
    is_noise = (noisy != x).flatten(1).any(1)
    assert int(is_noise.sum()) == 200 and torch.equal(given[~is_noise], y[~is_noise])
    assert float(noisy[is_noise].mean()) == pytest.approx(3, abs=0.2)
    assert float(noisy[is_noise].std()) == pytest.approx(2, abs=0.2)
    assert float((given == y)[is_noise].float().mean()) == pytest.approx(0.1, abs=0.08)


def test_so_many_targets_are_far_off():
    y = torch.zeros(20_000)
    off = held_out_task_data.with_outliers(y, 0.05, 5, rng())
    assert float((off != 0).float().mean()) == pytest.approx(0.05, abs=0.01)
    assert float(off[off != 0].std()) == pytest.approx(5, rel=0.1)


def test_the_board_has_three_colours_by_its_first_two_columns():
    x, y = held_out_task_data.checkerboard(3000, rng())
    assert torch.equal(y, (x[:, 0].floor() + x[:, 1].floor()).long() % 3)


@pytest.mark.parametrize("name", MADE_UP)
def test_tasks_are_drawn_by_their_seed(name):
    first, again, other = (held_out_task(name, seed, "") for seed in (3, 3, 4))
    for one, same in zip((*first.train, *first.test), (*again.train, *again.test), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first.train[1], other.train[1])
    assert len(first.network()(first.test[0][:5])) == 5


def test_a_tenth_of_the_training_labels_is_flipped_and_none_to_test_on():
    clean, flipped = (held_out_task(name, 3, "") for name in ("checkerboard", "checkerboard_10"))
    assert torch.equal(clean.test[1], flipped.test[1]) and torch.equal(clean.train[0], flipped.train[0])
    assert float((clean.train[1] != flipped.train[1]).float().mean()) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("optimizers", "factors"),
    [(in_steps, [1, 1, 0.1, 0.01]), (constant_adam, [1] * 4), (constant_sgd, [1] * 4)],
)
def test_a_task_is_trained_with_its_own_optimizer_at_its_own_rates(optimizers, factors):
    spirals = held_out_task("spirals", 0, "")
    small = tuple(each[:256] for each in spirals.train)
    made = dataclasses.replace(spirals, train=small, epochs=4, lr=0.02, batch_size=64, optimizers=optimizers)
    rates: list[float] = []

    class Watched(HeldOutModule):
        def on_train_batch_start(self, batch, batch_idx):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    run(made, FewerEpochs(budget=1.0), 0, Watched)
    assert rates == pytest.approx([0.02 * factor for factor in factors for _ in range(4)])


def test_without_an_optimizer_of_its_own_a_task_has_that_of_its_recipe():
    spirals = held_out_task("spirals", 0, "")
    made = dataclasses.replace(spirals, train=tuple(each[:64] for each in spirals.train), epochs=1, recipe="sgd")
    kept: list[HeldOutModule] = []

    def module_of(made):
        kept.append(HeldOutModule(made))
        return kept[0]

    run(made, FewerEpochs(budget=1.0), 0, module_of)
    optimizer = kept[0].optimizers()
    assert isinstance(optimizer.optimizer, torch.optim.SGD) and optimizer.param_groups[0]["initial_lr"] == 0.05


def test_both_classes_of_adult_weigh_the_same():
    y = torch.tensor([0, 0, 0, 1])
    sure_of_first, sure_of_second = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    one, other = (float(balanced(logits.expand(4, 2), y)) for logits in (sure_of_first, sure_of_second))
    assert one == pytest.approx(other) == pytest.approx((np.log1p(np.exp(-4)) + np.log1p(np.exp(4))) / 2, rel=1e-5)


def test_the_networks_give_what_a_task_is_judged_by():
    assert Mixer(10)(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    assert small_resnet(10)(torch.randn(3, 3, 32, 32)).shape == (3, 10)
    characters = Characters().eval()
    x = torch.randint(0, 65, (3, 8), generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 5] = (x[:, 5] + 1) % 65
    assert characters(x).shape == (3, 65, 8)
    differs = (characters(x) != characters(changed)).any(1)
    assert not differs[:, :5].any() and differs[:, 5].all()  # it sees no character before its turn


def test_the_table_shows_its_rows_in_the_order_of_the_tasks(tmp_path, monkeypatch):
    row = {
        "lower_is_better": False, "fewer_epochs": 80.0, "difference": 0.5, "standard_error": 0.1, "spent": 1.0,
        "saved": 0.25, "saved_error": 0.05, "cpu_time": 1.1, "at_equal_time": 0.2, "at_equal_time_error": 0.1,
        "left_out": "learnt",
    }  # fmt: skip
    names = ("outliers", "spirals", "pairs")
    rows = [{**row, "task": name, "lower_is_better": name != "spirals"} for name in names]
    (tmp_path / "frontier_held_out.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(frontier_tables, "RESULTS", tmp_path)
    lines = tables()["frontier_held_out"]().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| STS-B, pretrained features, lower is better",
        "| made up, perceptron, five spirals",
        "| regression, a twentieth of the targets far off, lower is better",
    ]
