"""PyTorch Forecasting, GluonTS, NeuralForecast and Darts; the last two import pytorch_lightning."""

import warnings

import numpy as np
import pytest
import torch
from harness import Case, check_batch_method, check_losses, check_trains, rows_loader

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def waves(n, length):
    time = np.arange(length)
    noise = 0.1 * np.random.default_rng(0).normal(size=(n, length))
    return (np.sin(time / 3 + np.arange(n)[:, None]) + 2 + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "loss", "arguments"),
    [
        ("TemporalFusionTransformer", "QuantileLoss", {"hidden_size": 8, "attention_head_size": 1, "dropout": 0.0}),
        ("NBeats", "SMAPE", {"widths": [16, 16]}),
        ("DeepAR", "NormalDistributionLoss", {"hidden_size": 8, "rnn_layers": 1}),
    ],
)
def test_pytorch_forecasting(model, loss, arguments):
    forecasting = pytest.importorskip("pytorch_forecasting")
    import pandas as pd
    from pytorch_forecasting.data import GroupNormalizer

    frames = [pd.DataFrame({"t": range(30), "g": str(i), "y": y}) for i, y in enumerate(waves(4, 30))]
    known = {} if model == "NBeats" else {"time_varying_known_reals": ["t"]}
    data = forecasting.TimeSeriesDataSet(
        pd.concat(frames, ignore_index=True), time_idx="t", target="y", group_ids=["g"], max_encoder_length=8,
        max_prediction_length=3, time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["g"]), **known,
    )  # fmt: skip

    def make():
        torch.manual_seed(0)
        measure = getattr(forecasting.metrics, loss)()
        with warnings.catch_warnings(action="ignore"):
            return getattr(forecasting, model).from_dataset(data, learning_rate=0.01, loss=measure, **arguments)

    made = Case(make, lambda size: data.to_dataloader(train=size > 1, batch_size=size, num_workers=0, drop_last=False))
    check_losses(made)
    check_trains(made)
    check_batch_method(made)


@pytest.mark.parametrize(
    ("name", "path", "arguments"),
    [
        ("SimpleFeedForward", "simple_feedforward", {"hidden_dimensions": [8]}),
        ("DeepAR", "deepar", {"freq": "D", "num_layers": 1, "hidden_size": 8, "dropout_rate": 0.0, "lags_seq": [1, 2]}),
        ("TemporalFusionTransformer", "tft", {"freq": "D", "hidden_dim": 8, "num_heads": 1, "dropout_rate": 0.0}),
    ],
)
def test_gluonts(name, path, arguments):
    module = pytest.importorskip(f"gluonts.torch.model.{path}")
    from gluonts.dataset.common import ListDataset

    np.random.seed(0)
    data = ListDataset([{"start": "2020-01-01", "target": y} for y in waves(8, 40)], freq="D")
    sizes = {"prediction_length": 3, "context_length": 8, "batch_size": 6, "num_batches_per_epoch": 8}
    estimator = getattr(module, f"{name}Estimator")(**sizes, **arguments)

    def make():
        torch.manual_seed(0)
        return estimator.create_lightning_module()

    windows = estimator.create_training_data_loader(
        estimator.create_transformation().apply(data, is_train=True), estimator.create_lightning_module()
    )
    rows = [dict(zip(b, row, strict=True)) for b in windows for row in zip(*b.values(), strict=True)]
    made = Case(make, rows_loader(rows))
    check_losses(made)
    check_trains(made)


def test_gluonts_estimators_draw_windows_without_an_index():
    module = pytest.importorskip("gluonts.torch.model.simple_feedforward")
    from gluonts.dataset.common import ListDataset

    data = ListDataset([{"start": "2020-01-01", "target": y} for y in waves(8, 40)], freq="D")
    options = {**QUIET, "max_epochs": 1, "callbacks": [InfoBatch()]}
    estimator = module.SimpleFeedForwardEstimator(3, 8, batch_size=8, num_batches_per_epoch=2, trainer_kwargs=options)
    with pytest.raises(TypeError, match="IterableSlice is a stream: its samples have no index"):
        estimator.train(data)


def test_neuralforecast_draws_windows_of_all_series_of_a_batch():
    library = pytest.importorskip("neuralforecast")
    import pandas as pd
    from neuralforecast.models import MLP

    days = pd.date_range("2020-01-01", periods=40)
    frame = pd.concat([pd.DataFrame({"unique_id": str(i), "ds": days, "y": y}) for i, y in enumerate(waves(12, 40))])
    sizes = {"h": 3, "input_size": 8, "hidden_size": 16, "num_layers": 1, "max_steps": 20, "batch_size": 4}
    model = MLP(**sizes, **QUIET, enable_checkpointing=False, callbacks=[InfoBatch()])
    with pytest.raises(CaptureError, match=r"nothing shows which rows belong to which sample.*sample_loss"):
        library.NeuralForecast([model], freq="D").fit(frame)


@pytest.mark.parametrize("model", ["BlockRNNModel", "NBEATSModel"])
def test_darts(model):
    models = pytest.importorskip("darts.models")
    from darts import TimeSeries

    selector = InfoBatch(prune_ratio=0.5)
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "callbacks": [selector]}
    made = getattr(models, model)(8, 3, n_epochs=4, batch_size=8, pl_trainer_kwargs=trainer, random_state=0)
    made.fit(TimeSeries.from_values(waves(1, 60)[0]))
    assert selector.losses.isfinite().all() and selector.losses.unique().numel() == selector.losses.numel() == 50
    assert min(record["n_backward"] for record in selector.history) < 45
