"""The stress tasks of Frontier: which labels are wrong in them, and how a network of one output is judged."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.frontier import run
from benchmarks.frontier_stress import StressModule
from benchmarks.frontier_tasks import perceptron
from benchmarks.stress_tasks import TITLES, StressTask, stress_task, wrong_where_unsure
from lightning_dataselect import FewerEpochs


def test_labels_are_wrong_where_a_linear_model_is_unsure():
    torch.manual_seed(0)
    y = torch.arange(10).repeat(600)
    centres = 4 * torch.eye(10)
    is_unsure = torch.rand(len(y)) < 0.3
    between = (centres[y] + centres[(y + 1) % 10]) / 2
    x = torch.where(is_unsure[:, None], between, centres[y]).repeat(1, 64)
    x += 0.3 * torch.randn(x.shape)
    given = wrong_where_unsure(x, y, 0.25)
    wrong = given != y
    assert int(wrong.sum()) == len(y) // 4
    assert float(is_unsure[wrong].float().mean()) > 0.5 > float(is_unsure.float().mean())
    unsure_and_wrong = wrong & is_unsure
    assert float((given == (y + 1) % 10)[unsure_and_wrong].float().mean()) > 0.9  # the class on the other side


def test_one_output_is_judged_as_the_logit_of_the_second_class():
    moons = stress_task("moons", 0, "")
    kept: list[StressModule] = []

    def module_of(made: StressTask) -> StressModule:
        kept.append(StressModule(made))
        return kept[0]

    made = dataclasses.replace(
        moons,
        network=lambda: perceptron(2, 1, 8),
        loss=lambda outputs, y: binary_cross_entropy_with_logits(outputs.squeeze(1), y.float()),
        epochs=2,
    )
    found = run(made, FewerEpochs(budget=1.0), 0, module_of)
    with torch.no_grad():
        logit = kept[0].network(made.test[0]).squeeze(1).double().numpy()
    y = made.test[1].numpy()
    assert found.score == pytest.approx(100 * np.mean((logit > 0) == (y == 1)))
    assert found.score > 70
    assert found.log_loss == pytest.approx(np.mean(np.logaddexp(0, np.where(y == 1, -logit, logit))), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in TITLES if TITLES[name].startswith("made up")])
def test_tasks_are_drawn_by_their_seed(name):
    first, again, other = (stress_task(name, seed, "") for seed in (3, 3, 4))
    for one, same in zip((*first.train, *first.test), (*again.train, *again.test), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first.train[1], other.train[1])
    n_wrong = 0.0
    if name.endswith("_20"):
        clean = stress_task(name.removesuffix("_20"), 3, "")
        assert torch.equal(first.test[1], clean.test[1])
        n_wrong = float((first.train[1] != clean.train[1]).float().mean())
    assert n_wrong == pytest.approx(0.2 if name.endswith("_20") else 0, abs=0.02)
