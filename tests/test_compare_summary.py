"""The table's arithmetic against numpy, and a sentence that flatters no one."""

from pathlib import Path

import numpy as np
import pytest

from lightning_dataselect.compare.comparison import Outcome, Settings
from lightning_dataselect.compare.records import Point, RunFolder, RunRecord, fingerprint
from lightning_dataselect.compare.spec import parse_methods
from lightning_dataselect.compare.summary import summarise

N, EPOCHS = 100, 10


def record(
    method, seed, value, *, epochs=EPOCHS, seconds=1.0, n_backward=None, n_forward=None, kept=(), waiting=0.0, busy=None
):
    n_backward = N * epochs if n_backward is None else n_backward
    return RunRecord(
        method=method,
        seed=seed,
        epochs=epochs,
        value=value,
        best=value,
        tested={},
        seconds=seconds,
        cpu_seconds=seconds,
        waiting_seconds=waiting,
        gpu_busy=busy,
        validation_seconds=0.0,
        n_total=N,
        n_forward=n_backward if n_forward is None else n_forward,
        n_backward=n_backward,
        curve=[Point(seconds, value, seconds, n_backward)],
        kept=list(kept),
        histogram=None,
        fingerprint="",
    )


def pruned(method, seed, value, n_backward=N * EPOCHS // 2, **others):
    return record(method, seed, value, n_backward=n_backward, kept=[0.5], **others)


def outcome_of(full, short, method, short_epochs=5):
    runs = []
    for seed, (a, b, c) in enumerate(zip(full, short, method, strict=True)):
        runs += [record("full", seed, a, seconds=4.0), pruned("UCB", seed, c, seconds=2.0)]
        runs += [record("short", seed, b, epochs=short_epochs)]
    return Outcome(EPOCHS, runs)


def settings(methods="full,short,UCB", maximize=True):
    return Settings(parse_methods(methods), [0, 1, 2], 0.5, "val_acc", maximize, Path("."))


def row_of(summary, label):
    return next(row for row in summary.rows if row.label == label)


def test_differences_are_paired_by_seed():
    full, short, method = [0.90, 0.94, 0.95], [0.88, 0.93, 0.91], [0.89, 0.91, 0.93]
    summary = summarise(outcome_of(full, short, method), settings())
    row = row_of(summary, "UCB")
    for found, other in ((row.vs_full, full), (row.vs_short, short)):
        expected = 100 * (np.array(method) - np.array(other))
        assert found.mean == pytest.approx(expected.mean())
        assert found.std == pytest.approx(expected.std(ddof=1))
        assert found.n == 3
    assert row.value.mean == pytest.approx(91.0)
    assert row.speedup == pytest.approx(2.0)
    assert row.short == pytest.approx(5.0)
    assert [r.label for r in summary.rows] == ["full", "short, 5 epochs", "UCB"]


@pytest.mark.parametrize(
    ("n_backward", "shares"),
    [
        (430, {4: 0.7, 5: 0.3}),
        (485, {4: 0.15, 5: 0.85}),
        (491, {5: 1.0}),  # 1.8 % from 5 epochs
        (509, {5: 1.0}),
        (10, {1: 1.0}),
        (1000, {10: 1.0}),
        (1250, {12: 0.5, 13: 0.5}),
    ],
)
def test_short_has_the_epochs_that_the_measured_samples_come_to(n_backward, shares):
    outcome = Outcome(EPOCHS, [record("full", 0, 0.9), pruned("UCB", 0, 0.9, n_backward)])
    assert outcome.short_shares(outcome.runs[1]) == pytest.approx(shares)


def test_between_two_numbers_of_epochs_the_line_counts():
    runs = [record("full", 0, 0.95), pruned("UCB", 0, 0.9, 430), record("short", 0, 0.80, epochs=4)]
    assert Outcome(EPOCHS, runs).at_equal_compute(runs[1]) is None
    runs.append(record("short", 0, 0.90, epochs=5))
    assert Outcome(EPOCHS, runs).at_equal_compute(runs[1]) == pytest.approx(0.83)
    row = row_of(summarise(Outcome(EPOCHS, runs), settings()), "UCB")
    assert (row.vs_short.mean, row.short) == (pytest.approx(7.0), pytest.approx(4.3))


def test_full_itself_may_be_the_end_of_the_line():
    runs = [record("full", 0, 0.95), pruned("UCB", 0, 0.9, 950), record("short", 0, 0.91, epochs=9)]
    assert Outcome(EPOCHS, runs).at_equal_compute(runs[1]) == pytest.approx(0.93)


def test_scoring_passes_count_as_a_third_of_training():
    # all samples are scored and a quarter of them is trained on: 1/3 + 1/4 of ten epochs
    scored = pruned("EvolvedSampling", 0, 0.9, N * EPOCHS // 4, n_forward=N * EPOCHS + N * EPOCHS // 4)
    assert Outcome(EPOCHS, [record("full", 0, 0.9), scored]).short_epochs(scored) == pytest.approx(10 * (1 / 3 + 1 / 4))


def test_a_method_that_saved_nothing_is_held_against_full_itself():
    outcome = Outcome(EPOCHS, [record("full", 0, 0.9), pruned("UCB", 0, 0.8, N * EPOCHS)])
    assert outcome.at_equal_compute(outcome.runs[1]) == 0.9


def test_short_is_counted_in_epochs_as_full_had_them_where_a_loader_drops_samples():
    full = record("full", 0, 0.9, n_backward=500)
    half = RunRecord(**{**vars(full), "n_total": N // 2})
    outcome = Outcome(EPOCHS, [half, pruned("UCB", 0, 0.9, 250)])
    assert outcome.short_epochs(outcome.runs[1]) == pytest.approx(5.0)


def test_chance_is_not_called_a_win():
    outcome = outcome_of([0.9, 0.9, 0.9], [0.90, 0.91, 0.92], [0.93, 0.90, 0.925])
    sentence = summarise(outcome, settings()).sentence
    assert "UCB (+0.83 ± 2.02 points) is not measurably better or worse than simply" in sentence


def test_a_clear_win_and_a_clear_loss_are_called_so():
    wins = outcome_of([0.9, 0.9, 0.9], [0.900, 0.910, 0.920], [0.950, 0.961, 0.969])
    assert "UCB (+5.00 ± 0.10 points) is better than simply" in summarise(wins, settings()).sentence
    loses = outcome_of([0.9, 0.9, 0.9], [0.950, 0.961, 0.969], [0.900, 0.910, 0.920])
    assert "UCB (-5.00 ± 0.10 points) is worse than simply" in summarise(loses, settings()).sentence
    # of a loss, less is better
    turned = summarise(loses, settings(maximize=False))
    assert "is better than simply" in turned.sentence
    assert not turned.percent


def test_one_seed_says_nothing():
    sentence = summarise(outcome_of([0.9], [0.8], [0.99]), settings()).sentence
    assert sentence.startswith("One seed cannot tell a difference from chance")


def test_luck_in_one_methods_spread_does_not_make_it_better():
    lucky = outcome_of([0.9] * 3, [0.90, 0.90, 0.90], [0.91, 0.91, 0.91])
    assert "is better" in summarise(lucky, settings()).sentence
    noisy = [pruned("InfoBatch", seed, value) for seed, value in enumerate([0.85, 0.90, 0.95])]
    both = Outcome(EPOCHS, lucky.runs + noisy)
    sentence = summarise(both, settings("full,short,UCB,InfoBatch")).sentence
    assert "none of the 2 methods is measurably better" in sentence


def test_trying_more_methods_makes_chance_wins_no_likelier():
    short = [0.90, 0.91, 0.92]
    # 3.1 standard errors: past the 2.8 of one method, short of the 3.5 that one of two needs
    outcome = outcome_of([0.9] * 3, short, [a + d for a, d in zip(short, (0.008, 0.018, 0.028), strict=True)])
    other = [a + d for a, d in zip(short, (-0.01, 0.0, 0.01), strict=True)]
    outcome.runs += [pruned("InfoBatch", seed, value) for seed, value in enumerate(other)]
    sentence = summarise(outcome, settings("full,short,UCB,InfoBatch")).sentence
    assert "none of the 2 methods is measurably better" in sentence


def test_without_full_and_short_there_are_no_differences():
    summary = summarise(Outcome(EPOCHS, [pruned("UCB", 0, 0.9)]), settings("UCB"))
    assert (summary.rows[0].vs_full, summary.rows[0].vs_short, summary.rows[0].speedup) == (None,) * 3
    assert summary.sentence.startswith("Nothing can be said")


def test_runs_come_back_only_with_the_same_settings(tmp_path):
    folder = RunFolder(tmp_path)
    mark = fingerprint({"epochs": 3})
    kept = RunRecord(**{**vars(record("UCB(c=2.0)", 1, 0.5)), "fingerprint": mark})
    folder.save("UCB(c=2.0)", kept)
    assert folder.load("UCB(c=2.0)", 1, mark) == kept
    assert folder.load("UCB(c=2.0)", 1, fingerprint({"epochs": 4})) is None
    assert folder.load("UCB(c=2.0)", 2, mark) is None
    (tmp_path / "runs" / "UCB_c_2.0-1.json").write_text('{"method": "UCB')
    assert folder.load("UCB(c=2.0)", 1, mark) is None


@pytest.mark.parametrize(
    ("waiting", "busy", "warned"), [(1.3, None, True), (1.1, None, False), (1.3, 0.5, True), (1.3, 0.9, False)]
)
def test_the_sentence_says_when_the_loader_hides_savings(waiting, busy, warned):
    runs = [
        record("full", seed, 0.9, seconds=6.0, waiting=waiting + drift, busy=busy)
        for seed, drift in enumerate((-0.05, 0.0, 3.0))  # one disturbed run does not decide
    ]
    sentence = summarise(Outcome(EPOCHS, runs), settings()).sentence
    assert ("waits for it 22% of the time" in sentence) is warned
