"""The settings of the matrix: one a method, with what it promises, and a task of 48 samples.

A refusal is the error that a user gets where a method cannot do what a column asks, and the words in it.
"""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import SAFELY, ByHand, trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_dataselect.methods.registry import get

N, BATCH, EPOCHS, CLASSES = 48, 8, 4, 3
N_BATCHES = N // BATCH
HOLDOUT = "holdout.csv"


@dataclass(frozen=True)
class Refusal:
    error: type[Exception]
    words: str


@dataclass(frozen=True)
class Setting:
    """How a method is constructed here, and what it promises.

    Attributes:
        method: name of the class.
        arguments: make it prune within four epochs.
        selected: how many samples each epoch takes, as a number or a range.
        backward: how many each epoch back-propagates; None for those it takes.
        share: share of the samples that is kept exactly, or None.
        everything: arguments with which it trains on everything.
        repeats: whether the same fit gives the same bits.
        measures: whether it reads the losses of samples.
        refuses: what it refuses, by column.
    """

    method: str
    arguments: dict[str, Any]
    selected: tuple[int | range, ...]
    everything: dict[str, Any] = field(default_factory=lambda: {"prune_ratio": 0.0})
    backward: tuple[int | range, ...] | None = None
    share: float | None = None
    repeats: bool = True
    measures: bool = True
    refuses: dict[str, Refusal] = field(default_factory=dict)

    def make(self, folder, **changes):
        """The selector, with a file of holdout losses in ``folder`` if it reads one."""
        return get(self.method).cls(**(self.written(folder) | changes))

    def written(self, folder):
        """The arguments, as they would stand in a config file; the numbers of samples are those without filling up."""
        arguments = self.arguments
        if "whole_batches" not in get(self.method).cls.unused:
            arguments = {"whole_batches": False} | arguments
        if arguments.get("holdout_losses") != HOLDOUT:
            return arguments
        (folder / HOLDOUT).write_text("loss\n" + "\n".join(str(i / N) for i in range(N)))
        return arguments | {"holdout_losses": str(folder / HOLDOUT)}


ALL = (N,) * EPOCHS
AFTER_ONE, AFTER_TWO = (48, 24, 24, 24), (48, 48, 24, 24)
NO_SUBSET = {"balance": Refusal(TypeError, "has no use for balance='class': it takes every sample.*or ESWP")}
TRAINS_ON_ALL = {
    "balance": Refusal(TypeError, "has no use for balance='class': it trains on everything, for as long as `budget`")
}
PASSES = {"manual": Refusal(TypeError, "but with manual optimization the step trains.*Use automatic optimization")}
NO_MODEL = {"stream": Refusal(ValueError, "On a stream RHOLoss cannot look irreducible losses up.*holdout_model=")}
ONE_DEVICE = {"ranks": Refusal(ValueError, "trains its holdout models on one device. With several, measure first")}
SOME = range(1, N)  # fewer than all
AUTOASSIST = {"base_prob": 0.05, "learning_rate": 0.5}
AT_LEAST_TWO_A_BATCH = (range(2 * N_BATCHES, N + 1),) * EPOCHS

SETTINGS = {
    "AutoAssist": Setting(
        "AutoAssist", AUTOASSIST | {"synchronous": True}, ALL, {"base_prob": 1.0}, AT_LEAST_TWO_A_BATCH,
        refuses=NO_SUBSET,
    ),
    "AutoAssist, asynchronous": Setting(
        "AutoAssist", AUTOASSIST, ALL, {"base_prob": 1.0}, AT_LEAST_TWO_A_BATCH, repeats=False, refuses=NO_SUBSET
    ),
    "DBPD": Setting(
        "DBPD", {"threshold": 0.4, "anneal": 0.0}, ALL, {"threshold": 1.0}, (SOME,) * EPOCHS,
        refuses=NO_SUBSET | PASSES,
    ),
    "DivBS": Setting(
        "DivBS", {"batch_ratio": 0.5}, ALL, {"batch_ratio": 1.0}, (24,) * EPOCHS, refuses=NO_SUBSET | PASSES
    ),
    "CCS": Setting("CCS", {"prune_ratio": 0.5, "warmup_epochs": 1}, AFTER_ONE, share=0.5),
    "DUAL": Setting("DUAL", {"prune_ratio": 0.5, "window": 2, "warmup_epochs": 2}, AFTER_TWO, share=0.5),
    "EL2N": Setting("EL2N", {"prune_ratio": 0.5, "warmup_epochs": 1}, AFTER_ONE, share=0.5),
    "EpsilonGreedy": Setting("EpsilonGreedy", {"prune_ratio": 0.5, "every_n_epochs": 1}, AFTER_ONE, share=0.5),
    "EpsilonGreedy, rescored": Setting(
        "EpsilonGreedy", {"prune_ratio": 0.5, "every_n_epochs": 1, "rescore": True}, AFTER_ONE, share=0.5,
        refuses=PASSES,
    ),
    "ESWP": Setting(
        "ESWP",
        {"batch_ratio": 0.5, "prune_ratio": 0.25, "anneal": 0.0},
        (48, 36, 36, 36),
        {"batch_ratio": 1.0, "prune_ratio": 0.0},
        (48, 18, 18, 18),
        share=0.75,
        refuses=PASSES,
    ),
    "EvolvedSampling": Setting(
        "EvolvedSampling", {"batch_ratio": 0.5, "anneal": 0.0}, ALL, {"batch_ratio": 1.0}, AFTER_ONE,
        refuses=NO_SUBSET | PASSES,
    ),
    "EvolvedSampling, half of the compute": Setting(
        # 96 samples: the first epoch, and then 24 / 3 + 12 = 20 less
        "EvolvedSampling", {"batch_ratio": 0.5, "anneal": 0.0, "budget": 0.5}, (48, 48, 48),
        {"batch_ratio": 1.0, "budget": 1.0}, (48, 24, 4), refuses=NO_SUBSET | PASSES,
    ),
    "EvolvedSampling, every second batch scored": Setting(
        "EvolvedSampling", {"batch_ratio": 0.5, "anneal": 0.0, "score_every_n_batches": 2}, ALL, {"batch_ratio": 1.0},
        AFTER_ONE, refuses=NO_SUBSET | PASSES,
    ),
    "EvolvedSampling, batches of constant size": Setting(
        "EvolvedSampling", {"batch_ratio": 0.5, "anneal": 0.0, "constant_batch_size": True}, ALL, {"batch_ratio": 1.0},
        AFTER_ONE, refuses=NO_SUBSET | PASSES,
    ),
    "FewerEpochs": Setting(
        "FewerEpochs", {"budget": 0.5}, (48, 48), {"budget": 1.0}, measures=False, refuses=TRAINS_ON_ALL
    ),
    "EvolvedSampling, every third batch whole": Setting(
        "EvolvedSampling", {"batch_ratio": 0.5, "anneal": 0.0, "whole_every_n_batches": 3}, ALL, {"batch_ratio": 1.0},
        (48, 32, 32, 32), refuses=NO_SUBSET | PASSES,
    ),
    "Forgetting": Setting("Forgetting", {"prune_ratio": 0.5, "warmup_epochs": 2}, AFTER_TWO, share=0.5),
    "Frontier": Setting(
        # its third pass, the first on evidence, begins in the last epoch
        "Frontier", {"budget": 2 / 3}, (32,) * EPOCHS, {"budget": 1.0}, share=2 / 3,
        refuses={"balance": Refusal(TypeError, "Frontier has no use for balance='class': `budget` says how much")},
    ),
    "GraNd": Setting("GraNd", {"prune_ratio": 0.5, "warmup_epochs": 1}, AFTER_ONE, share=0.5),
    "GraNd, all layers": Setting(
        # the gradients of the first epoch are a backward pass more
        "GraNd", {"prune_ratio": 0.5, "warmup_epochs": 1, "layers": "all"}, AFTER_ONE, backward=(96, 24, 24, 24),
        share=0.5, refuses=PASSES,
    ),
    "IES": Setting(
        "IES", {"window": 1, "threshold": 0.05, "warmup_epochs": 3}, (48, 48, 48, SOME), {"threshold": 0.0},
        refuses={**PASSES, "balance": Refusal(TypeError, "IES has no use for balance='class': each epoch leaves out")},
    ),
    "InfoBatch": Setting("InfoBatch", {"prune_ratio": 0.5, "anneal": 0.0}, (48, *[range(24, 48)] * 3)),
    "KAKURENBO": Setting(
        "KAKURENBO", {"prune_ratio": 0.5, "tau": 0.0, "phases": []}, (48, *[range(24, 48)] * 3), refuses=PASSES
    ),
    "OrderDP": Setting("OrderDP", {"prune_ratio": 0.5}, (24,) * EPOCHS, share=0.5),
    "RCAP": Setting(
        "RCAP", {"prune_ratio": 0.5}, AFTER_ONE, share=0.5,
        refuses={"balance": Refusal(TypeError, "RCAP has no use for balance='class'.*a budget for each class")},
    ),
    "RandomPruning": Setting("RandomPruning", {"prune_ratio": 0.5}, (24, 24, 24, 24), share=0.5),
    "RandomPruning, three quarters of the compute": Setting(
        # 144 samples, in more epochs than the Trainer plans
        "RandomPruning", {"prune_ratio": 0.5, "budget": 0.75}, (24,) * 6, {"prune_ratio": 0.0, "budget": 1.0},
        share=0.5,
    ),
    "RandomPruning, by a schedule": Setting(
        "RandomPruning", {"prune_ratio": "linear(start=0.25, end=0.75)"}, (36, 28, 20, 12)
    ),
    "RHOLoss": Setting(
        "RHOLoss", {"holdout_losses": HOLDOUT, "batch_ratio": 0.25}, ALL, {"batch_ratio": 1.0}, (12, 12, 12, 12),
        refuses=NO_SUBSET | PASSES | NO_MODEL,
    ),
    "RHOLoss, cross-fitted": Setting(
        # the first epoch's count has the two copies' training in it
        "RHOLoss", {"holdout_epochs": 1, "batch_ratio": 0.25}, ALL, {"batch_ratio": 1.0}, (12 + N, 12, 12, 12),
        refuses=NO_SUBSET | PASSES | NO_MODEL | ONE_DEVICE,
    ),
    "ScoreSelector": Setting(
        "ScoreSelector", {"score": "margin", "sampler": "window(start=0.1)", "prune_ratio": 0.5}, AFTER_ONE, share=0.5
    ),
    "ScoreSelector, dynamic": Setting(
        "ScoreSelector", {"score": "el2n", "sampler": "proportional", "dynamic": True, "prune_ratio": 0.5}, AFTER_ONE,
        share=0.5,
    ),
    "SelectiveBackprop": Setting(
        "SelectiveBackprop", {"beta": 1.0}, ALL, {"beta": 0.0}, (48, SOME, SOME, SOME), refuses=NO_SUBSET | PASSES
    ),
    "SelectiveBackprop, every second batch scored": Setting(
        "SelectiveBackprop", {"beta": 1.0, "score_every_n_batches": 2}, ALL, {"beta": 0.0}, (48, SOME, SOME, SOME),
        refuses=NO_SUBSET | PASSES,
    ),
    "SelectiveBackprop, batches of constant size": Setting(
        "SelectiveBackprop", {"beta": 1.0, "constant_batch_size": True}, ALL, {"beta": 0.0}, (48, SOME, SOME, SOME),
        refuses=NO_SUBSET | PASSES,
    ),
    "SeTa": Setting(
        "SeTa", {"prune_ratio": 0.25, "n_groups": 3, "window_scale": 0.6, "anneal": 0.0}, (36, *[range(1, 36)] * 3),
        {"prune_ratio": 0.0, "window_scale": 1.0},
    ),
    "SMRD": Setting(
        "SMRD", {"threshold": 0.4, "anneal": 0.0}, ALL, {"threshold": 1.0}, (SOME,) * EPOCHS,
        refuses=NO_SUBSET | PASSES,
    ),
    "SRD": Setting("SRD", {"decay": 0.8, "anneal": 0.0}, (48, 39, 31, 25), {"decay": 1.0}),
    "TDDS": Setting(
        # its first scores come from two movements, of three presentations
        "TDDS", {"prune_ratio": 0.5, "window": 3, "warmup_epochs": 3}, (48, 48, 48, 24), share=0.5
    ),
    "UCB": Setting("UCB", {"prune_ratio": 0.5, "every_n_epochs": 1}, AFTER_ONE, share=0.5),
    "SwiftLearn": Setting(
        "SwiftLearn", {"prune_ratio": 0.5, "every_n_epochs": 1}, AFTER_TWO, share=0.5, refuses=PASSES
    ),
}  # fmt: skip


KINDS = ("AutoAssist", "DBPD", "EL2N", "EpsilonGreedy", "EvolvedSampling", "FewerEpochs", "Frontier", "InfoBatch")
KINDS += ("RHOLoss", "SelectiveBackprop", "SwiftLearn")


def of_each_kind(by_name):
    """Parameters for what concerns the loader or the Trainer more than the choice: all but one of a kind are slow."""
    return [
        pytest.param(value, id=name, marks=() if name in KINDS else pytest.mark.slow) for name, value in by_name.items()
    ]


class Tiny(L.LightningModule):
    """A classifier of four features."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self.network()

    def network(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Manual(ByHand, Tiny):
    """Takes its optimizer steps itself."""


class WithLabels(nn.Module):
    """A model that makes its loss of the labels it is given, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, input_ids, attention_mask, labels=None):
        mask = attention_mask[..., None].float()
        logits = self.head((self.embedding(input_ids) * mask).sum(1) / mask.sum(1))
        loss = None if labels is None else F.cross_entropy(logits.view(-1, CLASSES), labels.view(-1))
        return SimpleNamespace(loss=loss, logits=logits)


class Texts(Tiny):
    """Hands its batches, encodings, to a model with labels."""

    def network(self):
        return WithLabels()

    def training_step(self, batch, batch_idx):
        assert type(batch) is Encoding and batch.kept == "with the batch"
        return self.model(**batch).loss


class Encoding(UserDict):
    """Stands for transformers.BatchEncoding: no dict, with attributes of its own."""

    kept = None

    def to(self, device, **options):
        self.data = {name: value.to(device, **options) for name, value in self.data.items()}
        return self


class Sentences(Dataset):
    """Token ids padded with 0."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 20, (N, 6), generator=generator)
        lengths = torch.randint(2, 7, (N, 1), generator=generator)
        self.mask = (torch.arange(6) < lengths).long()
        self.ids = self.ids * self.mask
        self.labels = self.ids[:, 0] % CLASSES

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "attention_mask": self.mask[i], "labels": self.labels[i]}


def encode(samples):
    batch = Encoding({name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})
    batch.kept = "with the batch"
    return batch


def samples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0.8).long())


class Stream(IterableDataset):
    """The samples in their order, without an index."""

    def __iter__(self):
        return iter(samples())


def loader(**options):
    return DataLoader(samples(), **{"batch_size": BATCH, "shuffle": True, **options})


def fit(selector, module=None, train=None, *, callbacks=(), ckpt_path=None, max_epochs=EPOCHS, **flags):
    """Fit, and return the Trainer and the module."""
    module = Tiny() if module is None else module
    made = trainer(*([] if selector is None else [selector]), *callbacks, max_epochs=max_epochs, **flags)
    options = {"ckpt_path": ckpt_path, **SAFELY} if ckpt_path else {}
    made.fit(module, loader() if train is None else train, **options)
    return made, module
