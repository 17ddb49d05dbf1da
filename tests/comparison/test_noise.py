"""Wrong labels that the first seed finds change the methods of `auto`, and the report shows why."""

import json

import pytest
from comparison_records import EPOCHS, N, pruned, record

from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans.noise import announced, read_noise, with_joined
from lightning_dataselect.comparison.plans.runner import Runner
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.showing.decisions import explain
from lightning_dataselect.methods.frontier import Decision, Evidence

EVIDENCE = {
    "untrained_loss": 2.3,
    "learnt_share": 0.35,
    "low_share": 0.5,
    "above_share": 0.2,
    "persistence": 0.9,
    "held_back_ratio": 1.25,
    "held_back_error": 0.05,
}


def decision(passes, epoch, n_left_out, n_contradicted, *, learnt=True, memorizes=False):
    return {
        "passes": passes, "learnt": learnt, "contradicted": n_contradicted > 0, "evidence": EVIDENCE,
        "memorizes": memorizes, "epoch": epoch, "n_left_out": n_left_out, "n_contradicted": n_contradicted,
        "held_out": None,
    }  # fmt: skip


def test_decisions_are_written_as_frontier_makes_them():
    made = Decision(**{**decision(2, 3, 40, 10), "evidence": Evidence(**EVIDENCE)})
    assert (made.n_left_out, made.n_contradicted) == (40, 10)


def test_what_is_left_out_is_told_by_epoch_and_by_pass():
    made = explain([decision(2, 1, 40, 10), decision(3, 3, 70, 20, memorizes=True)], [0.5] * 4, n_total=100)
    assert made.epochs[0] == {"learnt": 0.0, "contradicted": 0.0, "waits for its turn": 0.5}
    assert made.epochs[1] == made.epochs[2] == {"learnt": 0.3, "contradicted": 0.1, "waits for its turn": 0.1}
    # 70 are left out of a pass of 30, so an epoch of 50 trains on 20 of them
    assert made.epochs[3] == pytest.approx(
        {"learnt": 5 / 7 * 0.5, "contradicted": 2 / 7 * 0.5, "waits for its turn": 0}, abs=1e-3
    )
    first, second = made.rows
    assert first == ("2 passes", "2", "learnt, 30%; contradicted, 10%", "35%", "20%, of these 90%", "1.25 ± 0.05")
    assert second[-1] == "1.25 ± 0.05, memorizes"
    held_out = {**decision(4, 7, 40, 10), "held_out": {"loss": 1.25, "control_loss": 0.75}}
    assert made.titles[-1] == "loss of held back"  # nothing was held out: no column of dashes
    told = explain([held_out, decision(5, 8, 40, 10)], [0.5] * 9, n_total=100)
    assert told.titles[-1] == "held out / trained on"
    assert [row[-1] for row in told.rows] == ["1.250 / 0.750", "-"]
    assert explain([decision(2, 0, 0, 0, learnt=False)], [0.5], 100).rows[0][2] == "nothing"


def test_nothing_changes_where_no_label_is_contradicted():
    clean = {"Frontier": [decision(2, 1, 40, 0)], "InfoBatch": []}
    assert read_noise(clean, N, ["Frontier", "InfoBatch"], more_seeds=True, grows=True) is None


def test_what_joins_and_what_goes():
    found = {"Frontier": [decision(2, 1, 40, 10), decision(3, 3, 40, 30)]}
    going = ["full", "Frontier", "InfoBatch", "ESWP"]
    noise = read_noise(found, N, going, more_seeds=True, grows=True)
    assert (list(noise.joined), list(noise.given_up), noise.share) == (["SeTa", "random"], ["ESWP"], 0.3)
    assert "30% of the samples. So SeTa and random, which coped with wrong labels" in noise.text()
    assert "and ESWP, which trains on the highest losses, is given up." in noise.text()
    within_budget = read_noise(found, N, going, more_seeds=True, grows=False)
    assert list(within_budget.joined) == ["SeTa"], "no more than are given up"
    last = read_noise(found, N, going, more_seeds=False, grows=True)
    assert not last.given_up, "after the last seed nothing is left to be given up"


def test_the_plan_says_it_beforehand():
    assert announced(["full", "Frontier", "InfoBatch", "KAKURENBO", "ESWP"]).endswith(
        "with the first seed, SeTa and random join, and ESWP is given up."
    )
    assert announced(["InfoBatch", "SeTa", "random"]) == ""


class Watcher:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def begin(self, *_):
        pass

    def end(self, *_):
        pass


class Workers:
    """Finish every run at once, and write what Frontier has decided."""

    def do(self, jobs, watcher):
        for job in jobs:
            job.samples.write_text(json.dumps({"decisions": self.decisions if job.name == "Frontier" else []}))
            if job.name.startswith("short") or job.name == "full":
                yield job, record(job.name.partition("-")[0], job.seed, 0.9, epochs=job.epochs)
            else:
                yield job, pruned(job.name, job.seed, 0.9)


@pytest.mark.parametrize("found", [True, False])
def test_runs_follow_what_the_first_seed_has_found(tmp_path, found):
    class Task:
        epochs = EPOCHS

        def described(self):
            return {}

    class Rehearsed:
        fingerprint = {}

    methods = parse_methods("full,short,Frontier,InfoBatch,ESWP")
    settings = Settings(methods, [0, 1], 0.5, "val_acc", True, tmp_path, auto=True)
    watcher = Watcher()
    runner = Runner(Task(), settings, watcher, Rehearsed())
    runner.workers = Workers()
    runner.workers.decisions = [decision(2, 3, 40, 30 if found else 0)]
    runner.go_through(0, runner.going)
    runner.react_to_noise(0)
    runner.go_through(1, runner.going)
    ran = {(run.method, run.seed) for run in runner.outcome.runs if run.method not in ("full", "short")}
    if found:
        assert ran == {(m, s) for m in ("Frontier", "InfoBatch", "SeTa", "random") for s in (0, 1)} | {("ESWP", 0)}
        assert watcher.said[-1].strip() == runner.outcome.noise.text()
        summary = summarise(runner.outcome, with_joined(settings, runner.outcome.noise))
        assert [row.label for row in summary.rows][-2:] == ["SeTa", "random"]
        assert runner.outcome.noise.text() in summary.notes and not any("worse half" in note for note in summary.notes)
    else:
        assert ran == {(m, s) for m in ("Frontier", "InfoBatch", "ESWP") for s in (0, 1)}
        assert runner.outcome.noise is None and watcher.said == []
