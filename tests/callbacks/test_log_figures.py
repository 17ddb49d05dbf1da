"""Figures reach the loggers that take pictures, at the stated interval."""

import importlib.util

import pytest
import torch
from helpers import Shares, fit
from lightning.pytorch.loggers import CSVLogger, Logger
from matrix_settings import Tiny
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import LogFigures


class TakesPictures(Logger):
    """Keeps what a WandbLogger would send."""

    def __init__(self):
        super().__init__()
        self.sent = []

    name, version = "pictures", 0

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *params, **more):
        pass

    def log_image(self, key, images, step=None):
        assert images[0].axes
        self.sent.append((key.removeprefix("dataselect/"), step))


class Pixels(Tiny):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0].flatten(1)), batch[1])


def images(shape):
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(32, *shape, generator=generator), torch.arange(32) % 3), 8)


def test_figures_come_at_their_interval_and_after_the_last_epoch():
    logger = TakesPictures()
    fit(Shares(1.0), Pixels(), images((2, 2)), callbacks=[LogFigures(every_n_epochs=2)], max_epochs=5, logger=logger)
    kinds = ("score_histogram", "data_map", "gallery")
    assert logger.sent == [(kind, 4 * epoch) for epoch in (2, 4, 5) for kind in kinds]


@pytest.mark.filterwarnings("ignore:Dropping samples of loader")
def test_each_of_several_selectors_is_drawn_under_the_name_of_its_loader():
    class Both(Pixels):
        def training_step(self, batch, batch_idx):
            return sum(super(Both, self).training_step(part, batch_idx) for part in batch.values())

    logger, pair = TakesPictures(), [Shares(1.0, loader="a"), Shares(1.0, loader="b")]
    train = {"a": images((4,)), "b": images((4,))}
    fit(pair[0], Both(), train, callbacks=[pair[1], LogFigures(1)], max_epochs=1, logger=[logger])
    assert sorted(name for name, _ in logger.sent) == [
        f"{loader}/{kind}" for loader in "ab" for kind in ("data_map", "score_histogram")
    ]


def test_samples_that_cannot_be_shown_leave_out_the_gallery():
    logger = TakesPictures()
    fit(Shares(1.0), Pixels(), images((4,)), callbacks=[LogFigures(1)], max_epochs=1, logger=[logger])
    assert [kind for kind, _ in logger.sent] == ["score_histogram", "data_map"]


def test_what_is_missing_is_named(tmp_path):
    with pytest.warns(
        UserWarning, match="LogFigures does nothing: none of the Trainer's loggers .* Give it a TensorBoardLogger"
    ):
        fit(Shares(1.0), Pixels(), images((4,)), callbacks=[LogFigures()], max_epochs=1, logger=CSVLogger(tmp_path))
    with pytest.raises(ValueError, match=r"the Trainer has none: add one to its callbacks, such as RandomPruning\("):
        fit(None, Pixels(), images((4,)), callbacks=[LogFigures()], max_epochs=1)
    with pytest.raises(ValueError, match="every_n_epochs=0 is too small"):
        LogFigures(0)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_takes_them(tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    fit(Shares(1.0), Pixels(), images((2, 2)), callbacks=[LogFigures(1)], max_epochs=2, logger=logger)
    found = EventAccumulator(logger.log_dir).Reload()
    assert set(found.Tags()["images"]) == {f"dataselect/{kind}" for kind in ("score_histogram", "data_map", "gallery")}
    assert [event.step for event in found.Images("dataselect/gallery")] == [4, 8]
