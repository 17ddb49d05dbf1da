"""Tables: every method on Adult, whose easy samples are many.

    python -m benchmarks.tabular --data-dir DIR [--seeds N] [--out bench-out]

DIR holds adult/adult_train.csv.gz and adult/adult_test.csv.gz, with a header line and the target `income`. `--quick`
takes scikit-learn's breast cancer table and needs no DIR.
"""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.harness import Part, data_file, run_study, trainer_section
from benchmarks.methods import baselines, every_method, main_methods, unique
from benchmarks.resident import Resident


class TableData(pl.LightningDataModule):
    """A table, its columns of words one-hot, its numbers standardised by the training rows.

    Args:
        name: Which table.
        data_dir: Where Adult lies; the other comes with scikit-learn.
        batch_size: Of training.
        n_val: Training rows held out for validation, the same for every seed.
    """

    def __init__(
        self,
        name: Literal["adult", "breast_cancer"],
        data_dir: str | None = None,
        batch_size: int = 256,
        n_val: int = 4000,
    ) -> None:
        super().__init__()
        self.name, self.data_dir, self.batch_size, self.n_val = name, data_dir, batch_size, n_val

    def setup(self, stage: str) -> None:
        if hasattr(self, "train"):
            return
        inputs, classes, n_train = encoded(self.name, self.data_dir)
        order = torch.randperm(n_train, generator=torch.Generator().manual_seed(0))
        held_out, rest = order[: self.n_val], order[self.n_val :]
        inputs = (inputs - inputs[rest].mean(0)) / inputs[rest].std(0).clamp(min=1e-3)
        rows = {"train": rest, "val": held_out, "test": torch.arange(n_train, len(inputs))}
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        self.train, self.val, self.test = (
            Resident(inputs[rows[part]].to(device), classes[rows[part]].to(device)) for part in ("train", "val", "test")
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self.train.loader(self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.val.loader(4096)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.test.loader(4096)


def _read_adult(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    train, test = (pd.read_csv(folder / f"adult_{part}.csv.gz", skipinitialspace=True) for part in ("train", "test"))
    return train.rename(columns={"income": "target"}), test.rename(columns={"income": "target"})


def _read_breast_cancer() -> tuple[pd.DataFrame, pd.DataFrame]:
    from sklearn.datasets import load_breast_cancer

    shuffled = load_breast_cancer(as_frame=True).frame.sample(frac=1.0, random_state=0)
    return shuffled[:420], shuffled[420:]


@functools.cache  # reading is no training: only the first run of a study would pay for it
def encoded(name: str, data_dir: str | None) -> tuple[Tensor, Tensor, int]:
    """Return all rows, float32 (N, columns), their classes, int64 (N,), and how many, the first, are for training."""
    train, test = _read_adult(Path(data_dir or ".")) if name == "adult" else _read_breast_cancer()
    table = pd.concat([train, test])
    classes = torch.tensor(table["target"].astype("category").cat.codes.to_numpy(), dtype=torch.int64)
    columns = pd.get_dummies(table.drop(columns="target"), dtype=float)
    return torch.tensor(columns.to_numpy(), dtype=torch.float32), classes, len(train)


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        data: dict[str, Any] = {"name": "breast_cancer", "batch_size": 32, "n_val": 100}
        methods = [*baselines(0.5), "InfoBatch(prune_ratio=0.5)", "SelectiveBackprop(beta=1.0)"]
        return [Part("breast_cancer", "breast cancer, two hidden layers", _config(data, 30, 32), 4, methods)]
    data = {"name": "adult", "data_dir": data_file(arguments, "adult", "adult_train.csv.gz")}
    methods = unique(every_method(0.5), main_methods(0.3), main_methods(0.7))
    title = "Adult, two hidden layers of 128, 10 epochs, SGD with OneCycle"
    note = "4,000 of the 32,561 training rows are held out for validation; all 16,281 test rows for the test."
    return [Part("adult", title, _config(data, 108, 128), 10, methods, seeds=5, note=note, headline=every_method(0.5))]


def _config(data: dict[str, Any], n_inputs: int, width: int) -> dict[str, Any]:
    model = {"net": "mlp", "n_inputs": n_inputs, "n_classes": 2, "lr": 0.03, "width": width}
    return {
        "model": {"class_path": "benchmarks.classifier.Classifier", "init_args": model},
        "data": {"class_path": "benchmarks.tabular.TableData", "init_args": data},
        "trainer": trainer_section(),
    }


if __name__ == "__main__":
    sys.exit(run_study("tabular", parts, __doc__))
