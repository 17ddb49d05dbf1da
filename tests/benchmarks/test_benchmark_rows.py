"""The studies' figures against hand-made runs, and a study that goes on from where it stopped."""

import json
from pathlib import Path

import pytest
from comparison_records import EPOCHS, N, record

from benchmarks.harness import Part, run_study
from benchmarks.images import digits_config
from benchmarks.plots import SHOWN, curve_names
from benchmarks.rows import summed_up
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.runs.records import Point, RunRecord


def run(method, seed, value, curve, *, n_forward=None, **others):
    """A run whose CPU time is half of its wall-clock, with (wall, metric) after each epoch."""
    made = record(method, seed, value, seconds=curve[-1][0], n_forward=n_forward, **others)
    points = [Point(wall, reached, wall / 2, 0) for wall, reached in curve]
    return RunRecord(
        **{**vars(made), "cpu_seconds": made.seconds / 2, "curve": points, "tested": {"test": value - 0.1}}
    )


def part(clock="wall", maximize=True):
    full = [run("full", seed, 0.9, [(50.0, 0.8), (100.0, 0.9)]) for seed in (0, 1)]
    # a quarter of each batch trained, all of it scored: (N + N/4 + 2 N/4) / 3 samples an epoch
    cut = {"n_backward": N * EPOCHS // 4, "n_forward": N * EPOCHS * 5 // 4, "kept": [0.25]}
    method = [
        run("UCB", 0, 0.95, [(30.0, 0.7), (40.0, 0.9), (70.0, 0.95)], **cut),
        run("UCB", 1, 0.85, [(30.0, 0.7), (80.0, 0.85)], **cut),
    ]
    # the method costs 5 5/6 epochs of full data, where a line between 5 and 6 has 0.88
    short = [
        run("short", seed, value, [(at, 0.88)], epochs=n)
        for seed in (0, 1)
        for n, at, value in ((5, 55.0, 0.83), (6, 60.0, 0.89))
    ]
    settings = Settings(parse_methods("full,short,UCB"), [0, 1], 0.5, "val_acc", maximize, Path("."), test=True)
    summed = summed_up(Outcome(EPOCHS, [*full, *method, *short]), settings, "test", maximize, clock)
    return summed, {row["label"]: row for row in summed["rows"]}


def test_costs_follow_the_arithmetic_and_the_clock():
    summed, rows = part()
    row = rows["UCB"]
    assert row["cost"] == pytest.approx((5 / 4 + 2 / 4) / 3, abs=1e-5)
    assert row["time"] == pytest.approx(0.75)
    assert row["saved_of_allowed"] == pytest.approx(0.25 / (1 - 1.75 / 3), rel=1e-4)
    assert row["short"] == pytest.approx(5 + 5 / 6, rel=1e-5) and rows["short, 6 epochs"]["cost"] == pytest.approx(0.6)
    assert rows["full"]["saved_of_allowed"] is None
    assert summed["metric"] == "test" and row["value"]["mean"] == pytest.approx(80.0)
    assert row["vs_short"]["mean"] == pytest.approx(2.0)
    # full data has 0.8925 after 70 seconds and 0.895 after 80
    assert row["vs_time"] == pytest.approx({"mean": (5.75 - 4.5) / 2, "std": 10.25 / 2**0.5, "n": 2}, rel=1e-4)
    assert part("cpu")[1]["UCB"]["vs_time"] == row["vs_time"] and rows["short, 6 epochs"]["vs_time"] is None
    assert part("cpu")[1]["UCB"]["cpu_seconds"] == pytest.approx(37.5)


def test_fewer_epochs_may_be_another_number_for_each_seed():
    full = [run("full", seed, 0.9, [(100.0, 0.9)]) for seed in (0, 1)]
    some = [run("UCB", seed, 0.9, [(50.0, 0.9)], n_backward=n, kept=[0.5]) for seed, n in enumerate((400, 500))]
    short = [run("short", seed, 0.88, [(11.0 * n, 0.88)], epochs=n) for seed, n in enumerate((4, 5))]
    settings = Settings(parse_methods("full,short,UCB"), [0, 1], 0.5, "val_acc", True, Path("."), test=True)
    found = summed_up(Outcome(EPOCHS, [*full, *some, *short]), settings, "test", True, "wall")["rows"]
    rows = {row["label"]: row for row in found}
    for n in (4, 5):
        row = rows[f"short, {n} epochs"]
        assert (row["value"]["n"], row["cost"], row["time"]) == (1, pytest.approx(n / 10), pytest.approx(0.11 * n))
    assert rows["UCB"]["short"] == pytest.approx(4.5) and rows["UCB"]["vs_short"]["n"] == 2


def test_nothing_is_said_of_times_that_no_run_of_full_data_was_as_short_as():
    full = [run("full", 0, 0.9, [(100.0, 0.9)]), run("short", 0, 0.8, [(50.0, 0.8)], epochs=5)]
    quick = run("UCB", 0, 0.9, [(49.0, 0.9)], n_backward=500, kept=[0.5])
    settings = Settings(parse_methods("full,short,UCB"), [0], 0.5, "val_acc", True, Path("."), test=True)
    rows = summed_up(Outcome(EPOCHS, [*full, quick]), settings, "test", True, "wall")["rows"]
    assert rows[-1]["vs_short"]["mean"] == pytest.approx(10.0) and rows[-1]["vs_time"] is None


def test_time_to_the_full_runs_value_is_of_the_seeds_that_reach_it():
    assert part()[1]["full"]["time_to_full"] == pytest.approx(1.0)
    row = part()[1]["UCB"]
    assert row["reached"] == 1 and row["time_to_full"] is None  # one seed of two is no majority
    less = part(maximize=False)[1]["UCB"]
    assert less["reached"] == 2 and less["time_to_full"] == pytest.approx(0.3)


@pytest.fixture
def study(tmp_path, capsys):
    def go(*more, methods=("random(prune_ratio=0.5)",)):
        parts = [Part(name, "digits", digits_config(n_val=1000), 2, methods) for name in ("a", "b")]
        code = run_study("tiny", lambda arguments: parts, argv=["--quick", "--out", str(tmp_path), *more])
        return code, capsys.readouterr()

    return go


@pytest.mark.slow
def test_study_resumes_and_keeps_its_other_parts(study, tmp_path):
    assert study()[0] == 0
    first = json.loads((tmp_path / "tiny.json").read_text())
    assert sorted(first["parts"]) == ["a", "b"] and first["quick"] is True
    assert "runs" not in first["parts"]["a"], "the runs and their curves stay in the output folder"
    pictures = [f"a_{kind}.png" for kind in ("against_cost", "over_samples", "over_time")]
    assert sorted(path.name for path in (tmp_path / "tiny").glob("a_*.png")) == pictures
    labels = [row["label"] for row in first["parts"]["a"]["rows"]]
    assert labels == ["full", "short, 1 epoch", "random(prune_ratio=0.5)"]
    assert first["parts"]["a"]["metric"] == "test_acc"
    first["parts"]["b"]["remark"] = "On a slow day."
    (tmp_path / "tiny.json").write_text(json.dumps(first))
    code, said = study("--only", "b", "--seeds", "2")
    assert code == 0 and said.out.count("found finished") == 3
    second = json.loads((tmp_path / "tiny.json").read_text())
    assert second["parts"]["a"] == first["parts"]["a"]
    assert second["parts"]["b"]["seeds"] == 2 and second["parts"]["b"]["remark"] == "On a slow day."


def test_finished_runs_are_collected_without_running(study, tmp_path):
    assert study("--collect")[0] == 0 and not (tmp_path / "tiny.json").exists()
    both = ("random(prune_ratio=0.5)", "UCB(prune_ratio=0.5)")
    assert study("--only", "a", "--methods", "random", methods=both)[0] == 0
    code, said = study("--collect", methods=both)
    assert code == 0 and said.out.count("found finished") == 3
    parts = json.loads((tmp_path / "tiny.json").read_text())["parts"]
    assert [row["label"] for row in parts["a"]["rows"]] == ["full", "short, 1 epoch", "random(prune_ratio=0.5)"]
    assert list(parts) == ["a"]


def test_wrong_part_is_named(study):
    code, said = study("--only", "c")
    assert code == 2 and said.err == "benchmarks.tiny: --only c: the parts are a, b.\n"


def test_every_method_of_the_studies_can_be_made():
    from benchmarks.methods import every_method
    from lightning_dataselect import list_methods

    for ratio in (0.3, 0.5, 0.7):
        specs = parse_methods(",".join(every_method(ratio)))
        for spec in specs:
            spec.build(0.5, seed=0)
        # `short`, in every study, is FewerEpochs; ScoreSelector combines the scores of others
        left = {"FewerEpochs", "ScoreSelector"}
        assert {spec.cls for spec in specs} >= {method.cls for method in list_methods() if method.name not in left}


def test_curves_of_one_method_are_told_apart_by_their_arguments():
    labels = ["my.Own(beta=1, n=2)", "my.Own(beta=1)", "UCB(prune_ratio=0.5)"]
    assert curve_names(labels) == dict(zip(labels, ["Own(n=2)", "Own", "UCB"], strict=True))
    assert curve_names([*labels, *SHOWN]).keys() == {"UCB(prune_ratio=0.5)", *SHOWN}, "too many are too many"
