"""The line at the end of a fit."""

import logging

import pytest
from helpers import Net, Shares, fit, loader, trainer
from lightning_utilities.core import rank_zero

from lightning_dataselect import ESWP, EvolvedSampling, InfoBatch
from lightning_dataselect.fit.summary import fit_summary


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def said(monkeypatch):
    """Lines of Lightning's logger that a selector has said."""
    kept = Kept()
    logger = logging.Logger("everything")
    logger.addHandler(kept)
    monkeypatch.setattr(rank_zero, "log", logger)
    return lambda: [line for line in kept.lines if "samples an epoch" in line]


def record(n_selected=100, n_trained=None, *, seconds, n_left_out=0, **changed):
    n = n_selected if n_trained is None else n_trained
    counts = {"n_forward": n, "n_backward": n, "n_trained": n, "n_left_out": n_left_out}
    return {"epoch": 0, "n_total": 100, "n_selected": n_selected, **counts, "seconds": seconds, "select_seconds": 0.0,
            **changed}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "options", "line"),
    [
        (lambda: Shares(1.0, 0.5), {}, "Shares: trained on 75 of 100 samples an epoch (25 % dropped)"),
        # what the loader or the Trainer leaves out is not dropped by the method
        (
            lambda: Shares(1.0, 0.5),
            {"train": loader(105, drop_last=True)},
            "Shares: trained on 75 of 100 samples an epoch (25 % dropped)",
        ),
        (
            lambda: Shares(0.5),
            {"limit_train_batches": 0.4},
            "Shares: trained on 20 of 40 samples an epoch (50 % dropped)",
        ),
        (
            lambda: Shares(1.0),
            {"train": loader(105, drop_last=True)},
            "Shares dropped nothing: trained on all 100 samples an epoch, for 2 epochs",
        ),
        # within batches, and before them too
        (
            lambda: EvolvedSampling(batch_ratio=0.3, warmup_epochs=1, anneal=0.0),
            {},
            "EvolvedSampling: trained on 65 of 100 samples an epoch (35 % dropped)",
        ),
        (
            lambda: ESWP(batch_ratio=0.3, prune_ratio=0.4, warmup_epochs=1, anneal=0.0),
            {},
            "ESWP: trained on 59 of 100 samples an epoch (41 % dropped)",
        ),
        (
            lambda: InfoBatch(),
            {"max_epochs": 1},
            "InfoBatch dropped nothing: trained on all 100 samples an epoch, for 1 epoch",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*will drop nothing")
def test_a_fit_ends_with_what_it_dropped(make, options, line, said):
    fit(make(), **{"max_epochs": 2, **options})
    assert said() == [line]


def test_the_line_can_be_turned_off_and_barebones_says_nothing(said):
    fit(Shares(0.5, log=False), max_epochs=1)
    made = trainer(Shares(0.5), logger=None, enable_checkpointing=None, enable_progress_bar=None,
                   enable_model_summary=None, barebones=True, max_epochs=1)  # fmt: skip
    made.fit(Net(), loader())
    fit(Shares(0.5), max_epochs=1, overfit_batches=2)
    assert said() == []


def test_a_resumed_fit_tells_of_all_its_epochs(tmp_path, said):
    made, _ = fit(Shares(1.0, 0.5), max_epochs=1)
    made.save_checkpoint(tmp_path / "one.ckpt")
    fit(Shares(1.0, 0.5), max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert said()[-1] == "Shares: trained on 75 of 100 samples an epoch (25 % dropped)"


def test_the_time_is_measured_against_the_fits_own_full_epochs(clock, said):
    class Timed(Net):
        def training_step(self, batch, batch_idx):
            clock.advance(len(batch[0]))
            return super().training_step(batch, batch_idx)

    fit(Shares(1.0, 0.5, 1.0, 0.5, 1.0), Timed(), max_epochs=5)
    # 100 + 50 + 100 + 50 + 100 seconds, and those of finding out what the step does, which full data has not
    assert said() == ["Shares: trained on 80 of 100 samples an epoch (20 % dropped), 20 % less time than planned"]


FULL, HALF = record(seconds=2.0), record(50, seconds=1.2)


@pytest.mark.parametrize(
    ("history", "time"),
    [
        # by hand: 1 - (2 + 1.2 + 1.2 + 2 + 2) / (2 + 4 * 2) = 16 %
        ([FULL, HALF, HALF, FULL, FULL], ", 16 % less time than planned"),
        # the first epoch's time counts on both sides: 1 - (12 + 6.4) / (12 + 8) = 8 %
        ([record(seconds=12.0), HALF, HALF, FULL, FULL], ", 8 % less time than planned"),
        # a pruned first one against full ones: 1 - (1.2 + 1.2 + 2 + 2) / 8 = 20 %
        ([HALF, HALF, FULL, FULL], ", 20 % less time than planned"),
        # choosing is paid for: 1 - (8.4 + 2) / 10
        ([FULL, record(50, seconds=1.2, select_seconds=2.0), HALF, FULL, FULL], ", 4 % more time than planned"),
        # an epoch that was cut by the end of the fit counts as what it did
        ([FULL, HALF, HALF, FULL, record(100, 50, seconds=1.0)], ", 18 % less time than planned"),
        ([FULL, HALF, HALF, FULL], ""),  # one full epoch has no spread
        ([FULL, HALF, HALF, record(seconds=1.0), record(seconds=2.5)], ""),  # a saving by one, a loss by the other
        ([FULL, HALF, HALF, record(seconds=2.6), record(seconds=2.0)], ""),  # they are far apart
        ([record(seconds=1.0), HALF, HALF, record(seconds=9.0), record(seconds=9.0)], ""),  # more than was dropped
        ([record(seconds=2.0, n_backward=300), HALF, HALF, FULL, FULL], ""),  # other models were trained, untimed
        ([FULL, HALF, record(seconds=1.5, n_forward=200), record(seconds=1.5, n_forward=200)], ""),  # with scoring
    ],
)
def test_the_time_is_named_where_it_was_measured(history, time):
    line = fit_summary("Mine", history)
    assert line.startswith("Mine: trained on ") and line.endswith(f"dropped){time}")


@pytest.mark.parametrize(
    ("history", "line"),
    [
        (
            [FULL, FULL, record(100, 50, seconds=1.0)],
            "Mine dropped nothing: trained on all 100 samples an epoch, for 2.5 epochs",
        ),
        (
            [record(3000, seconds=1.0, n_total=3000), record(3000, 1504, seconds=1.0, n_total=3000)],
            "Mine dropped nothing: trained on all 3,000 samples an epoch, for 1.5 epochs",
        ),
        # the 10 of the last epoch are all that the budget had left
        ([FULL, HALF, record(50, 10, seconds=0.2)], "Mine: trained on 75 of 100 samples an epoch (25 % dropped)"),
        # a loader that leaves samples out does so in every epoch
        (2 * [record(50, 40, seconds=1.0)], "Mine: trained on 40 of 80 samples an epoch (50 % dropped)"),
    ],
)
def test_an_epoch_that_the_end_of_the_fit_cut_is_no_average_epoch(history, line):
    assert fit_summary("Mine", history) == line


def test_less_than_a_percent_is_not_called_nothing():
    line = fit_summary("Mine", [record(1000, seconds=1.0, n_total=1000), record(999, seconds=1.0, n_total=1000)])
    assert line == "Mine: trained on 1,000 of 1,000 samples an epoch (less than 1 % dropped)"
