"""The cost of a comparison, the part of it that fits into a budget, and the methods that are given up."""

import math

import pytest
from comparison_records import EPOCHS, pruned, record

from lightning_dataselect.comparison.plans.plan import parse_budget, plan
from lightning_dataselect.comparison.plans.runner import Runner
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import auto_methods, parse_methods
from lightning_dataselect.comparison.runs.rehearsal import Rehearsal
from lightning_dataselect.comparison.tasks.config_task import ConfigTask
from lightning_dataselect.utils.errors import UserInputError


def rehearsal(n_batches=100, step=0.05, classes=True, n_train=1000):
    return Rehearsal(["val_acc"], {}, n_train, n_batches, 10, step, 0.1, classes, "cpu", 1, "")


def planned(methods="full,short,random,UCB,InfoBatch,SeTa", seeds=(0, 1, 2), budget=None, epochs=12, **others):
    return plan(parse_methods(methods), list(seeds), epochs, 0.5, rehearsal(**others), budget)


def test_the_plan_counts_full_runs_and_minutes():
    found = planned("full,short,random,EvolvedSampling")
    # a full run; half and as much again for its line; EvolvedSampling takes no ratio and counts as a full one
    assert found.n_runs == 15 and found.full_runs == pytest.approx(3 * (1 + 2 * 0.5 + 2 * 1))
    # 12 epochs of 100 steps and 10 validation steps
    assert found.minutes == pytest.approx(found.full_runs * 12 * (100 * 0.05 + 10 * 0.1) / 60)
    assert "about 15 runs over 3 seeds; they cost as much as 12 full runs, about 14 min" in found.text()
    assert "paid back after 40 trainings" in found.text()
    assert math.isnan(planned(n_batches=0).minutes) and "min" not in planned(n_batches=0).text().split("If")[0]


def test_a_method_with_a_budget_costs_that():
    assert planned("full,Frontier", seeds=[0]).full_runs == pytest.approx(1 + 0.5)
    assert planned("full,Frontier(budget=0.2),InfoBatch(budget=0.3)", seeds=[0]).full_runs == pytest.approx(1.5)


def test_a_budget_takes_as_many_seeds_as_fit_and_then_fewer_epochs():
    # by halving, the seeds cost 1+4, 1+2, 1+1, and 1+1 from there on
    assert len(planned(budget=(10.0, "runs")).seeds) == 3
    assert len(planned(budget=(12.1, "runs")).seeds) == 4
    few = planned(budget=(5.0, "runs"))
    assert (few.epochs, len(few.seeds)) == (6, 3) and few.full_runs == pytest.approx(5.0)
    assert "of 6 epochs (a full run has 12)" in few.text() and "giving up the worse half" in few.text()
    assert planned(budget=(5.0, "minutes")).full_runs * 12 * 6 / 60 <= 5.0
    smallest = "the smallest comparison that says anything, 3 epochs and 3 seeds, costs 2.5"
    with pytest.raises(UserInputError, match=smallest):
        planned(budget=(2.0, "runs"), n_train=1999)


def test_then_it_takes_a_part_of_the_data():
    part = planned(budget=(1.0, "runs"), n_train=4000)
    assert (part.epochs, len(part.seeds), part.share_of_data) == (3, 3, 0.25)
    assert part.full_runs == pytest.approx(0.625) and part.minutes == pytest.approx(0.625 * 12 * 6 / 60)
    assert "runs of 3 epochs (a full run has 12) on 25% of the data over 3 seeds" in part.text()
    with pytest.raises(UserInputError, match="3 epochs and 3 seeds on 25% of the data, costs 0.625 full runs, not 0.1"):
        planned(budget=(0.1, "runs"), n_train=4000)
    assert planned(budget=(0.3, "runs"), n_train=10_000).share_of_data == 0.1


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "20 parsecs"])
def test_wrong_budgets_get_a_plain_sentence(text):
    with pytest.raises(UserInputError, match=f"--budget '{text}': give full runs, as in 30, or a time"):
        parse_budget(text)


class Silent:
    def __getattr__(self, name):
        return lambda *args: None


@pytest.mark.parametrize(("maximize", "stay"), [(True, ["UCB", "SeTa"]), (False, ["random", "InfoBatch"])])
def test_the_worse_half_is_given_up_by_paired_differences(tmp_path, maximize, stay):
    asked = Settings(parse_methods("full,short,random,UCB,InfoBatch,SeTa"), [0, 1], 0.5, "m", maximize, tmp_path)
    comparison = Runner(ConfigTask({}, EPOCHS), asked, Silent(), None)
    for seed, level in ((0, 0.5), (1, 0.9)):  # seeds differ by more than methods do
        comparison.outcome.runs += [record("full", seed, level), record("short", seed, level, epochs=5)]
        for i, name in enumerate(("random", "InfoBatch", "UCB", "SeTa")):
            if (name, seed) != ("SeTa", 1):  # of which only the worse seed has finished
                comparison.outcome.runs.append(pruned(name, seed, level + 0.01 * i))
    comparison.drop_worse_half(2)
    assert {spec.label for spec in comparison.going} == {"full", *stay}
    assert set(comparison.outcome.dropped.values()) == {2} and len(comparison.outcome.dropped) == 2


def test_auto_takes_what_suits():
    assert auto_methods(rehearsal(step=0.001)).startswith("full,short,")
    assert auto_methods(rehearsal(step=0.001)).endswith("InfoBatch,KAKURENBO")
    assert auto_methods(rehearsal(step=0.001, classes=False)).endswith("InfoBatch,random")
    assert auto_methods(rehearsal(step=0.2)).endswith("KAKURENBO,ESWP")
    assert parse_methods(auto_methods(rehearsal(step=0.2)))


def test_a_likely_metric_is_taken_and_a_wrong_one_is_named():
    made = Rehearsal(["loss", "val_f1", "val_loss"], {}, 1, 1, 1, 0.1, 0.1, True, "cpu", 1, "")
    assert made.monitor(None) == "val_f1" and made.monitor("val_loss") == "val_loss"
    with pytest.raises(UserInputError, match="The model logs no metric 'val_acc' to monitor; it logs loss, val_f1"):
        made.monitor("val_acc")
    with pytest.raises(UserInputError, match="Which metric counts"):
        Rehearsal(["loss"], {}, 1, 1, 1, 0.1, 0.1, True, "cpu", 1, "").monitor(None)
