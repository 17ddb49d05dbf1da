"""Tabular libraries: PyTorch Tabular, which imports pytorch_lightning, and DeepTab."""

import numpy as np
import pytest

from lightning_dataselect import InfoBatch


@pytest.fixture
def frame():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True).frame.sample(80, random_state=0).reset_index(drop=True)
    return data.iloc[:, [0, 1, 2, 3, 4, -1]]


def check(selector, epochs):
    assert len(selector.history) == epochs and selector.losses.isfinite().all()
    assert min(record["n_backward"] for record in selector.history) < selector.history[0]["n_total"]


@pytest.mark.parametrize("model", ["CategoryEmbeddingModelConfig", "FTTransformerConfig"])
def test_pytorch_tabular(frame, model):
    library = pytest.importorskip("pytorch_tabular")
    from pytorch_tabular import config, models

    selector = InfoBatch(prune_ratio=0.5)
    quiet = {"checkpoints": None, "load_best": False, "early_stopping": None, "progress_bar": "none"}
    made = library.TabularModel(
        data_config=config.DataConfig(target=["target"], continuous_cols=list(frame.columns[:5])),
        model_config=getattr(models, model)(task="classification"),
        optimizer_config=config.OptimizerConfig(),
        trainer_config=config.TrainerConfig(max_epochs=4, batch_size=8, accelerator="cpu", **quiet),
        verbose=False,
        suppress_lightning_logger=True,
    )
    made.fit(train=frame, callbacks=[selector], seed=1)
    check(selector, 4)


def test_deeptab(frame):
    models = pytest.importorskip("deeptab.models")
    selector = InfoBatch(prune_ratio=0.5)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    target = frame.pop("target").to_numpy().astype(np.int64)
    models.MLPClassifier().fit(
        frame, target, max_epochs=4, batch_size=8, accelerator="cpu", callbacks=[selector], **quiet
    )
    check(selector, 4)
