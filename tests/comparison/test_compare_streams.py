"""A comparison on a stream: methods that take one run to their end, and cost what their budget says."""

import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_dataselect.comparison.api import compare
from lightning_dataselect.demo import DigitsData, DigitsModel


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        for i in torch.randperm(len(self.rows)).tolist():
            yield *self.rows[i], i


class Keyed(DigitsModel):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[:2], batch_idx)


def loaders():
    data = DigitsData()
    data.setup("fit")
    return DataLoader(Stream(data.train_dataloader().dataset), 64), data.val_dataloader()


def test_methods_that_take_a_stream_are_compared(tmp_path):
    methods = "full,FewerEpochs,Frontier(sample_id=2)"
    found = compare(Keyed, loaders, max_epochs=6, methods=methods, seeds=1, out=tmp_path, quiet=True)
    assert found.table["label"].tolist() == ["full", "FewerEpochs", "Frontier(sample_id=2)"]
    assert found.table["ended"].tolist() == ["", "", ""]
    assert ((found.table["saved"][1:] - 0.5).abs() < 0.03).all()
