"""The model of what many ranks cost says what ranks do, and its constants are found again."""

import pytest

from benchmarks.rank_scale import KINDS, WORK, Point, extrapolated, fitted, measure, merge_bytes, predicted, study

MADE = {
    "merge": {"merge": 1e-3, "sample": 2e-9, "value taken in": 5e-9, "byte received": 1e-9, "rank's column": 4e-6},
    "choose": {"choice": 1e-4, "sample": 5e-8, "sample seen": 1e-8},
    "order": {"order": 1e-4, "sample chosen": 6e-8},
    "checkpoint": {"checkpoint": 1e-3, "rank": 1e-5, "value": 4e-10},
}


def row_of(at):
    parts = {part: predicted(part, constants, at) for part, constants in MADE.items()}
    return {"ranks": at.ranks, "n": at.n, "kind": at.kind, "share": at.share, "merge_sent": merge_bytes(at), **parts}


ROWS = [
    row_of(Point(ranks, n, kind, share))
    for ranks in (2, 4, 8)
    for n in (10**4, 10**6, 10**7)
    for kind in KINDS
    for share in (1.0, 0.5)
]


@pytest.mark.parametrize("part", WORK)
def test_the_constants_that_made_the_seconds_are_found_again(part):
    assert fitted(part, ROWS) == pytest.approx(MADE[part], rel=1e-4)


def test_what_is_known_of_a_part_is_left_as_it_is():
    column = MADE["merge"]["rank's column"]
    assert fitted("merge", ROWS, {"rank's column": column}) == pytest.approx(MADE["merge"], rel=1e-4)
    assert fitted("merge", ROWS, {"rank's column": 2 * column})["rank's column"] == 2 * column


def test_no_work_takes_less_than_no_time():
    rows = [
        {"ranks": 1, "n": n, "kind": "plain", "share": 1.0, "choose": 1e-8 * n - 1e-5} for n in (2000, 10**5, 10**6)
    ]
    constants = fitted("choose", rows)
    assert "choice" not in constants and min(constants.values()) >= 0


def test_what_was_held_out_is_predicted_from_few_ranks_and_samples():
    found = study([dict(row) for row in ROWS], MADE["merge"]["rank's column"], quick=False)
    for row in found["results"]:
        assert row["predicted"] == pytest.approx({name: row[name] for name in row["predicted"]}, rel=1e-3)


def test_the_end_of_an_epoch_is_a_hundredth_of_it_where_samples_take_as_long_as_is_said():
    at = Point(64, 10**8)
    found = extrapolated(MADE, at)
    for name, seconds in found["boundary_seconds"].items():
        epoch = found["seconds_a_sample_for_one_percent"][name] * at.rows / at.ranks
        assert seconds == pytest.approx(epoch / 100)
        assert seconds > found["network_seconds"][name] > at.rows * 20 * 63 / 64 / 12.5e9


@pytest.mark.parametrize(("kind", "share"), [("classes", 1.0), ("plain", 0.5)])
def test_ranks_send_what_the_model_says_and_nothing_in_a_step(kind, share):
    at = Point(2, 40_000, kind, share)
    found = measure(at)
    assert found["merge_sent"] == pytest.approx(merge_bytes(at), rel=0.03)
    assert found["step_sent"] == 0 < found["step"]
    assert 4096 / 2 < found["checkpoint_sent"] < 4096, "the second rank sends its own to the first, and nothing else"
    assert min(found[part] for part in WORK) > 0
