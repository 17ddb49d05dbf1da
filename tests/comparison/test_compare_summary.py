"""The table's arithmetic against numpy, and a sentence that flatters no one."""

from pathlib import Path

import numpy as np
import pytest
from comparison_records import EPOCHS, N, pruned, record

from lightning_dataselect.comparison.findings.power import detectable, is_clear, seeds_for
from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans.numbers import spread
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.runs.records import Point, RunFolder, RunRecord


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
    assert "UCB (+0.8 ± 2.0 points) is not measurably better or worse than simply" in sentence


def test_a_clear_win_and_a_clear_loss_are_called_so():
    wins = outcome_of([0.9, 0.9, 0.9], [0.900, 0.910, 0.920], [0.950, 0.961, 0.969])
    assert "UCB (+5.00 ± 0.10 points) is better than simply" in summarise(wins, settings()).sentence
    loses = outcome_of([0.9, 0.9, 0.9], [0.950, 0.961, 0.969], [0.900, 0.910, 0.920])
    assert "UCB (-5.00 ± 0.10 points) is worse than simply" in summarise(loses, settings()).sentence
    # of a loss, less is better
    turned = summarise(loses, settings(maximize=False))
    assert "is better than simply" in turned.sentence
    assert not turned.percent


def test_times_with_different_numbers_of_threads_are_not_compared_in_silence():
    outcome = outcome_of([0.9, 0.9, 0.9], [0.90, 0.91, 0.92], [0.93, 0.90, 0.925])
    words = "Some runs computed with 1 thread and others with 2, so their times cannot be compared"
    assert words not in " ".join(summarise(outcome, settings()).notes)
    outcome.runs[0] = RunRecord(**{**vars(outcome.runs[0]), "n_threads": 2})
    assert words in " ".join(summarise(outcome, settings()).notes)


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


def test_runs_come_back_from_their_folder(tmp_path):
    folder = RunFolder(tmp_path)
    kept = RunRecord(**{**vars(record("UCB(c=2.0)", 1, 0.5)), "fingerprint": {"settings": "a"}})
    folder.save("UCB(c=2.0)", kept)
    assert folder.load("UCB(c=2.0)", 1) == kept
    assert folder.load("UCB(c=2.0)", 2) is None
    (tmp_path / "runs" / "UCB_c_2.0-1.json").write_text('{"method": "UCB')
    assert folder.load("UCB(c=2.0)", 1) is None


@pytest.mark.parametrize(
    ("waiting", "busy", "warned"), [(1.3, None, True), (1.1, None, False), (1.3, 0.5, True), (1.3, 0.9, False)]
)
def test_a_note_says_when_the_loader_hides_savings(waiting, busy, warned):
    runs = [
        record("full", seed, 0.9, seconds=6.0, waiting=waiting + drift, busy=busy)
        for seed, drift in enumerate((-0.05, 0.0, 3.0))  # one disturbed run does not decide
    ]
    notes = " ".join(summarise(Outcome(EPOCHS, runs), settings()).notes)
    assert ("waits for it 22% of the time" in notes) is warned


# ---- ahead by what it computes is not enough ---------------------------------------------------------------------


def slow_method(seconds, full=(0.90, 0.91, 0.92), method=(0.930, 0.941, 0.949), **clock):
    """Half of the compute, `seconds` of time where full data takes 10, and clearly ahead of 5 epochs."""
    runs = []
    for seed, (a, b) in enumerate(zip(full, method, strict=True)):
        runs += [record("full", seed, a, seconds=10.0, **clock), pruned("UCB", seed, b, seconds=seconds, **clock)]
        runs += [record("short", seed, 0.88 + 0.001 * seed, epochs=5, seconds=5.0, **clock)]
    return Outcome(EPOCHS, runs)


def test_a_method_that_is_ahead_by_counts_and_behind_by_time_is_not_better():
    fast = summarise(slow_method(5.0), settings())
    assert fast.verdicts == {"UCB": "better"} and fast.row("UCB").pareto and not fast.row("short, 5 epochs").pareto
    # as long as full data, which ends above it
    behind = summarise(slow_method(10.0, full=[0.951, 0.962, 0.971]), settings())
    assert behind.verdicts == {"UCB": "worse"} and behind.row("UCB").dominated
    assert behind.row("UCB").vs_time.mean == pytest.approx(-2.13, abs=0.01)
    # nearly as good: ahead at equal compute, not clearly behind in time, and not better
    near = summarise(slow_method(17.0, full=[0.92, 0.95, 0.96]), settings())
    assert near.verdicts == {"UCB": "mixed"} and not near.row("UCB").pareto
    assert "ahead at equal compute, but not at equal time" in near.sentence
    assert "no method is better than simply" in near.sentence


def test_a_method_that_only_time_shows_to_be_worse_is_not_called_worse_at_equal_compute():
    runs = []
    for seed, (full, short, method) in enumerate([(0.960, 0.90, 0.905), (0.961, 0.91, 0.90), (0.962, 0.92, 0.91)]):
        runs += [record("full", seed, full, seconds=10.0), record("short", seed, short, epochs=5, seconds=5.0)]
        runs += [pruned("UCB", seed, method, seconds=10.0)]
    summary = summarise(Outcome(EPOCHS, runs), settings())
    assert summary.verdicts == {"UCB": "worse"}
    assert "no method is better than simply" in summary.sentence
    assert "is worse than full data that trains for as long" in summary.sentence


def test_full_data_of_less_time_and_a_better_end_dominates():
    outcome = slow_method(6.0, full=[0.90, 0.91, 0.92])
    # 4 epochs do better than 5 and 10: the line between them says nothing of that
    outcome.runs += [record("short", seed, 0.97, epochs=4, seconds=4.0) for seed in range(3)]
    summary = summarise(outcome, settings())
    assert summary.row("UCB").dominated and summary.verdicts["UCB"] != "better"


def test_cpu_time_is_believed_where_nothing_ran_on_a_gpu():
    outcome = slow_method(30.0, cpu=None)
    outcome.runs = [RunRecord(**{**vars(run), "cpu_seconds": 5.0 if run.kept else run.seconds}) for run in outcome.runs]
    summary = summarise(outcome, settings())
    assert outcome.clock == "cpu" and summary.verdicts == {"UCB": "better"}
    assert summary.row("UCB").saved_time == pytest.approx(0.5)
    assert any("The wall clock says otherwise: UCB takes 200% more time." in note for note in summary.notes)
    on_gpu = Outcome(EPOCHS, [RunRecord(**{**vars(run), "device": "cuda"}) for run in outcome.runs])
    summary = summarise(on_gpu, settings())
    assert on_gpu.clock == "wall" and summary.row("UCB").saved_time == pytest.approx(-2.0)
    assert any(
        "Samples saved are not time saved: UCB saves 50% of the samples but takes 200% more time." in n
        for n in summary.notes
    )


def test_both_savings_of_each_method_are_told_in_one_clause():
    outcome = slow_method(3.5)
    slow = {"method": "GraNd", "kept": [1.0], "n_forward": 12 * N, "n_backward": 12 * N}
    slow |= {"seconds": 30.0, "cpu_seconds": 30.0}
    outcome.runs += [RunRecord(**{**vars(run), **slow}) for run in outcome.runs if run.method == "UCB"]
    summary = summarise(outcome, settings("full,short,UCB,GraNd"))
    told = next(note for note in summary.notes if note.startswith("Samples saved"))
    assert "UCB saves 50% of the samples and 65% of the time; " in told
    assert "GraNd takes 20% more samples and 200% more time." in told


@pytest.mark.parametrize("same_way", [False, True])
def test_a_method_that_ends_where_full_data_does_is_said_to_have_gone_another_way(same_way):
    runs = []
    for seed, value in enumerate([0.95, 0.97, 0.96]):
        way = [Point(1.0, 0.5, 1.0, N), Point(2.0, value, 2.0, 2 * N)]
        other = way if same_way else [Point(1.0, 0.6, 1.0, N), way[1]]
        runs += [record("full", seed, value, curve=way), record("short", seed, 0.9, epochs=5)]
        runs += [pruned("UCB", seed, value, curve=other)]
    summary = summarise(Outcome(EPOCHS, runs), settings())
    assert (summary.row("UCB").vs_full.mean, summary.row("UCB").vs_full.std) == (0.0, 0.0)
    told = [note for note in summary.notes if note.startswith("UCB ended at exactly the val_acc of full data")]
    assert len(told) == (not same_way)


def test_the_line_of_full_data_does_not_fold_back_on_itself():
    # something held up the run of 4 epochs, which took longer than the one of 5
    runs = [record("full", 0, 0.95, seconds=10.0), pruned("UCB", 0, 0.9, 500, seconds=4.5)]
    runs += [record("short", 0, 0.80, epochs=4, seconds=9.0), record("short", 0, 0.90, epochs=5, seconds=5.0)]
    outcome = Outcome(EPOCHS, runs)
    assert outcome.epoch_time() == 1.0
    assert outcome.at_equal_time(runs[1]) == pytest.approx(0.85)


def test_a_method_of_other_time_than_compute_asks_for_a_run_at_equal_time():
    runs = [record("full", 0, 0.95, seconds=10.0), pruned("UCB", 0, 0.9, 500, seconds=8.0)]
    assert Outcome(EPOCHS, runs).wanted_epochs(runs[1]) == {5, 8}
    # what the first seed took decides for the others
    assert Outcome(EPOCHS, [runs[0], pruned("UCB", 0, 0.9, 500, seconds=5.2)]).wanted_epochs(runs[1]) == {5}
    slow = pruned("UCB", 0, 0.9, 500, seconds=50.0)
    assert Outcome(EPOCHS, [runs[0], slow]).wanted_epochs(slow) == {5, 10}


# ---- runs that something has stopped ------------------------------------------------------------------------------


def test_equal_compute_goes_by_what_was_spent():
    # full data was stopped after 4 of 10 epochs; the method spent 3: between 2 epochs and those 4
    stopped = record("full", 0, 0.92, n_backward=4 * N, epochs_done=4, ended_by="EarlyStopping")
    method = pruned("UCB", 0, 0.9, 300, epochs_done=6, ended_by="EarlyStopping")
    short = record("short", 0, 0.88, epochs=3, n_backward=2 * N, epochs_done=2, ended_by="its time limit")
    outcome = Outcome(EPOCHS, [stopped, method, short])
    assert outcome.short_shares(method) == {3: 1.0}
    assert outcome.at_equal_compute(method) == pytest.approx(0.90)
    summary = summarise(outcome, settings())
    assert summary.row("UCB").ended == "stopped by EarlyStopping after 6 of 10"
    (note,) = [note for note in summary.notes if "Some runs ended before their last epoch" in note]
    assert "full stopped by EarlyStopping after 4 of 10" in note and "short, 3 epochs stopped by its time limit" in note
    assert summary.row("UCB").dropped == pytest.approx(0.5)


def test_a_method_that_dropped_nothing_is_named():
    runs = [record("full", 0, 0.9), pruned("InfoBatch", 0, 0.9, N * EPOCHS), pruned("UCB", 0, 0.9)]
    notes = summarise(Outcome(EPOCHS, runs), settings("full,short,UCB,InfoBatch")).notes
    assert any(note.startswith("InfoBatch has dropped nothing") for note in notes)


# ---- what so few seeds can show -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "n_methods"), [(3, 1), (3, 4), (8, 2)])
def test_the_detectable_difference_is_found_in_most_cases(n, n_methods):
    std = 2.0
    true = detectable(std, n, n_methods)
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(2000):
        draws = generator.normal(0, std, (n_methods, n))
        draws[0] += true
        family = [spread(each) for each in draws]
        found += is_clear(family[0], family)
    # a method's own spread counts for no less than the pooled one, which makes it a little harder
    assert 0.67 < found / 2000 < 0.82


def test_seeds_are_told_that_would_show_half_a_point():
    notes = summarise(outcome_of([0.9] * 3, [0.90, 0.91, 0.92], [0.93, 0.90, 0.925]), settings()).notes
    n = seeds_for(0.5, spread([3.0, -1.0, 0.5]).std, 1)
    assert detectable(2.0207, n, 1) <= 0.5 < detectable(2.0207, n - 1, 1)
    (note,) = [note for note in notes if "that could show" in note]
    assert (
        note.startswith("With 3 seeds, the smallest difference from fewer epochs that could show is 6.3 points")
        and f"half a point needs about {n} seeds" in note
    )


def test_after_ctrl_c_the_sentence_speaks_of_what_ran():
    outcome = outcome_of([0.9] * 2, [0.90, 0.91], [0.93, 0.90])
    outcome.interrupted = True
    assert "Over 2 seeds (of 3; the others have not run)" in summarise(outcome, settings()).sentence
