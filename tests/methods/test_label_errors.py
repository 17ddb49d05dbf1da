"""Sorting by what export() tells of each sample finds the labels that are wrong."""

import pandas as pd
import pytest
import torch
from helpers import trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import EL2N, InfoBatch
from lightning_dataselect.demo import DigitsData, DigitsModel

roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score


@pytest.mark.parametrize("make", [InfoBatch, lambda: EL2N(warmup_epochs=4, prune_ratio=0.3)])
def test_tenth_of_the_labels_flipped_at_random_is_found(make, tmp_path):
    data = DigitsData()
    data.setup("fit")
    images, classes = data.train.tensors
    generator = torch.Generator().manual_seed(0)
    flipped = torch.rand(len(classes), generator=generator) < 0.1
    wrong = (classes + torch.randint(1, 10, classes.shape, generator=generator)) % 10
    train = DataLoader(TensorDataset(images, torch.where(flipped, wrong, classes)), 32, shuffle=True)
    torch.manual_seed(0)
    selector = make()
    trainer(selector, max_epochs=5).fit(DigitsModel(), train)
    frame = pd.read_csv(selector.export(tmp_path / "samples.csv"))
    assert roc_auc_score(flipped, -frame["margin"]) > 0.98
    assert roc_auc_score(flipped, frame["loss"]) > 0.98
    assert roc_auc_score(flipped, frame["score"]) > 0.95
    suspects = frame.sort_values("margin")["index"][: int(flipped.sum())]
    assert flipped[suspects.to_numpy()].float().mean() > 0.8
