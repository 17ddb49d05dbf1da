"""The line at the end of a fit."""

import logging

import lightning as L
import pytest
import torch
from helpers import Net, Shares, dataset, fit, loader, trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning_utilities.core import rank_zero
from ranks import on_ranks
from torch.utils.data import DataLoader, WeightedRandomSampler

from lightning_dataselect import ESWP, EvolvedSampling, Frontier, InfoBatch
from lightning_dataselect.fit.summary import fit_summary
from lightning_dataselect.report.figures import trained_share


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


def record(n_selected=100, n_trained=None, *, seconds, n_left_out=0, done=1.0, **changed):
    n = round(done * n_selected) if n_trained is None else n_trained
    counts = {"n_forward": n, "n_backward": n, "n_trained": n, "n_left_out": n_left_out, "n_full": round(100 * done)}
    times = {"seconds": seconds, "select_seconds": 0.0}
    return {"epoch": 0, "done": done, "n_total": 100, "n_selected": n_selected, **counts, **times, **changed}


def drawn(n):
    """A loader whose sampler draws ``n`` of the samples, each as likely."""
    return DataLoader(dataset(), batch_size=10, sampler=WeightedRandomSampler(torch.ones(100), n, replacement=n > 100))


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
        # 60 of 119 are three batches, and all of them five
        (
            lambda: Shares(60 / 119),
            {"train": loader(119, batch_size=20, drop_last=True)},
            "Shares: trained on 60 of 100 samples an epoch (40 % dropped)",
        ),
        # full epochs are limited, and pruned ones need not be
        (
            lambda: Shares(1.0, 0.5),
            {"limit_train_batches": 7},
            "Shares: trained on 60 of 70 samples an epoch (14 % dropped)",
        ),
        (
            lambda: Shares(1.0, 0.9),
            {"limit_train_batches": 0.4},
            "Shares: trained on 35 of 40 samples an epoch (12 % dropped)",
        ),
        (
            lambda: Shares(0.5),
            {"limit_train_batches": 3},
            "Shares saved nothing: trained on 30 samples an epoch, as many as without it, since the Trainer or the"
            " loader limits their number",
        ),
        (
            lambda: Shares(1.0, 0.5),
            {"max_epochs": -1, "max_steps": 13},
            "Shares: trained on 81 of 100 samples an epoch (19 % dropped)",  # 130 in 1.6 epochs
        ),
        (
            lambda: Shares(1.0),
            {"max_epochs": -1, "max_steps": 3},
            "Shares dropped nothing: trained on all 100 samples an epoch, for 0.3 epochs",
        ),
        (
            lambda: Shares(0.5),
            {"fast_dev_run": 3},
            "Shares saved nothing: trained on 30 samples an epoch, as many as without it, since the Trainer or the"
            " loader limits their number",
        ),
        # what a sampler of the user's own would draw of everything
        (
            lambda: EvolvedSampling(batch_ratio=0.3, warmup_epochs=1, anneal=0.0),
            {"train": drawn(60)},
            "EvolvedSampling: trained on 39 of 60 samples an epoch (35 % dropped)",
        ),
        (
            lambda: EvolvedSampling(batch_ratio=0.3, warmup_epochs=1, anneal=0.0),
            {"train": drawn(240)},
            "EvolvedSampling: trained on 156 of 240 samples an epoch (35 % dropped)",
        ),
        (
            lambda: Shares(1.0),
            {"train": drawn(240)},
            "Shares dropped nothing: trained on all 240 samples an epoch, for 2 epochs",
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


@pytest.mark.parametrize(
    ("selector", "options"),
    [
        (Frontier(budget=0.5), {"limit_train_batches": 5}),
        (InfoBatch(budget=0.4), {}),
        (EvolvedSampling(batch_ratio=0.5, budget=0.3), {}),
    ],
    ids=str,
)
def test_a_fit_with_a_budget_ends_with_the_share_of_the_compute_that_it_spent(selector, options, said):
    fit(selector, max_epochs=6, **options)
    whole = 6 * 10 * options.get("limit_train_batches", 10)
    spent = sum(r["n_forward"] / 3 + r["n_backward"] * 2 / 3 for r in selector.history)
    (line,) = said()
    assert f", {100 * spent / whole:.0f} % of the compute of training on everything" in line
    assert spent / whole == pytest.approx(selector.budget, abs=0.02)


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
            if self.training:  # not where a step is looked at on single samples
                clock.advance(len(batch[0]))
            return super().training_step(batch, batch_idx)

    fit(Shares(1.0, 0.5, 1.0, 0.5, 1.0), Timed(), max_epochs=5)
    # 100 + 50 + 100 + 50 + 100 seconds
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
        ([FULL, HALF, HALF, FULL, record(100, seconds=1.0, done=0.5)], ", 18 % less time than planned"),
        ([FULL, HALF, HALF, FULL], ""),  # one full epoch has no spread
        ([FULL, HALF, HALF, record(seconds=1.0), record(seconds=2.5)], ""),  # a saving by one, a loss by the other
        ([FULL, HALF, HALF, record(seconds=2.6), record(seconds=2.0)], ""),  # they are far apart
        ([record(seconds=1.0), HALF, HALF, record(seconds=9.0), record(seconds=9.0)], ""),  # more than was dropped
        ([record(seconds=2.0, n_backward=300), HALF, HALF, FULL, FULL], ""),  # other models were trained, untimed
        ([FULL, HALF, HALF, record(seconds=0.0), FULL], ""),  # killed after its last batch, and resumed
        ([record(seconds=0.0), HALF, HALF, record(seconds=0.0), record(seconds=0.0)], ""),
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
            [FULL, FULL, record(100, seconds=1.0, done=0.5)],
            "Mine dropped nothing: trained on all 100 samples an epoch, for 2.5 epochs",
        ),
        (
            [
                record(3000, seconds=1.0, n_total=3000, n_full=3000),
                record(3000, 1504, seconds=1.0, n_total=3000, n_full=1504, done=0.5),
            ],
            "Mine dropped nothing: trained on all 3,003 samples an epoch, for 1.5 epochs",
        ),
        # the 10 of the last epoch are all that the budget had left: 160 in 2.2 epochs
        ([FULL, HALF, record(50, seconds=0.2, done=0.2)], "Mine: trained on 73 of 100 samples an epoch (27 % dropped)"),
        ([record(50, seconds=0.2, done=0.2)], "Mine: trained on 50 of 100 samples an epoch (50 % dropped)"),
        # a loader that leaves samples out does so in every epoch
        (2 * [record(50, 40, seconds=1.0, n_full=80)], "Mine: trained on 40 of 80 samples an epoch (50 % dropped)"),
        # epochs of data sets that differ in size: 100 + 100 of 100 + 300
        (
            [FULL, record(100, seconds=1.0, n_total=300, n_full=300)],
            "Mine: trained on 100 of 200 samples an epoch (50 % dropped)",
        ),
        (
            2 * [record(50, 30, seconds=1.0, n_full=30)],
            "Mine saved nothing: trained on 30 samples an epoch, as many as without it, since the Trainer or the loader"
            " limits their number",
        ),
    ],
)
def test_what_is_dropped_is_counted_against_as_much_of_full_epochs(history, line):
    assert fit_summary("Mine", history) == line


def test_less_than_a_percent_is_not_called_nothing():
    line = fit_summary("Mine", [record(n, seconds=1.0, n_total=1000, n_full=1000) for n in (1000, 999)])
    assert line == "Mine: trained on 1,000 of 1,000 samples an epoch (less than 1 % dropped)"


def test_a_batch_that_the_step_passes_over_is_not_dropped(said):
    class PassesOver(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 3 else super().training_step(batch, batch_idx)

    fit(Shares(1.0, 0.5), PassesOver(), max_epochs=2)
    assert said() == ["Shares: trained on 65 of 85 samples an epoch (24 % dropped)"]


class Growing(L.LightningDataModule):
    """As many samples more in every epoch as there were in the first."""

    def train_dataloader(self):
        return loader(100 * (1 + self.trainer.current_epoch))


def test_epochs_of_different_sizes_are_counted_each_by_its_own(said):
    # 50 of 100, and of 200 the half of those that there were, with all that are new
    made = trainer(Shares(0.5), max_epochs=2, reload_dataloaders_every_n_epochs=1, limit_val_batches=0)
    made.fit(Net(), datamodule=Growing())
    assert said() == ["Shares: trained on 100 of 150 samples an epoch (33 % dropped)"]


class Partly(Net):
    """Trains on one of two loaders."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["a"], batch_idx)


@pytest.mark.parametrize(
    ("n_other", "line"),
    [
        # the loader is gone through twice or four times, so that an epoch stays as long as the other one
        (200, "Shares saved nothing: trained on 200 samples an epoch, as many as without it, since the Trainer or the"
              " loader limits their number"),
        (50, "Shares: trained on 75 of 100 samples an epoch (25 % dropped)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*as long as")
def test_rounds_of_a_loader_that_begins_again_are_counted(n_other, line, said):
    loaders = CombinedLoader({"a": loader(), "b": loader(n_other)}, "max_size_cycle")
    fit(Shares(1.0, 0.5, loader="a"), Partly(), loaders, max_epochs=2)
    assert said() == [line]


def line_of(selector, options, **ranks):
    fit(selector, train=loader(101), **options, **ranks)
    return fit_summary("Shares", selector.history)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        # 101 are 51 a rank, one of them twice
        ({"max_epochs": 2}, "Shares: trained on 76 of 102 samples an epoch (25 % dropped)"),
        ({"max_epochs": 2, "limit_train_batches": 4}, "Shares: trained on 65 of 80 samples an epoch (19 % dropped)"),
        ({"max_epochs": -1, "max_steps": 8}, "Shares: trained on 79 of 102 samples an epoch (23 % dropped)"),
    ],
)
def test_the_samples_of_all_ranks_are_counted(options, line, tmp_path):
    assert on_ranks(line_of, 2, tmp_path / "ranks", selector=Shares(1.0, 0.5), options=options) == [line] * 2


def test_the_logged_saving_and_the_figure_count_likewise():
    selector = Shares(1.0, 0.5)
    made, _ = fit(selector, train=drawn(240), max_epochs=2)
    saved = sum(240 - record["n_backward"] for record in selector.history)
    assert made.callback_metrics["dataselect/samples_saved"] == saved
    assert trained_share(selector.history) == [1.0, selector.history[1]["n_backward"] / 240]


def test_what_a_sampler_draws_of_a_selection_is_counted_against_what_it_draws_of_everything(said):
    selector = Shares(0.5)
    fit(selector, train=drawn(60), max_epochs=2)
    mean = sum(record["n_trained"] for record in selector.history) / 2  # at random, about 30
    assert said() == [f"Shares: trained on {mean:,.0f} of 60 samples an epoch ({100 * (1 - mean / 60):.0f} % dropped)"]
    assert [record["n_full"] for record in selector.history] == [60, 60]
