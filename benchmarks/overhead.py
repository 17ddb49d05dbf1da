"""What a training step and an epoch cost with a callback, as ratios; the sides alternate in one run.

    python -m benchmarks.overhead [--quick] [--only step epoch batch] [--out results/overhead.json]

- step: a training step with a callback at prune_ratio=0 against none, for ResNet-18 on 32x32 images (batch 128; in bf16
  on a GPU) and for a two-layer MLP on digits;
- epoch: an epoch at prune_ratio=r, choosing the next one included, against a full one;
- batch: an epoch that trains on a quarter of each batch, scoring included, against a full one.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from benchmarks.environment import environment, write_json
from lightning_dataselect import EvolvedSampling, InfoBatch, RandomPruning

PARTS = ["step", "epoch", "batch"]


class Classifier(pl.LightningModule):
    """Any network under cross entropy, with a log call, as users write it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = self.loss(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def small_resnet18() -> nn.Module:
    """ResNet-18 with the stem that 32x32 images take."""
    net = resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


def resnet_task(n_batches: int) -> tuple[Classifier, DataLoader[Any]]:
    """ResNet-18, batches of 128 random images."""
    torch.manual_seed(0)
    n = 128 * n_batches
    data = TensorDataset(torch.randn(n, 3, 32, 32), torch.randint(10, (n,)))
    return Classifier(small_resnet18()), DataLoader(data, batch_size=128, shuffle=True)


def mlp_task() -> tuple[Classifier, DataLoader[Any]]:
    """A two-layer perceptron on scikit-learn's digits, batches of 64."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y))
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return Classifier(net), DataLoader(data, batch_size=64, shuffle=True)


class StepTimer(pl.Callback):
    """Seconds from the start of one batch to the start of the next."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last: float | None = None

    def on_train_epoch_start(self, *_: Any) -> None:
        self._last = None

    def on_train_batch_start(self, *_: Any) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def fit(task: tuple[Classifier, DataLoader[Any]], callbacks: list[pl.Callback], epochs: int) -> None:
    """A plain fit, quiet, in bf16 on a GPU."""
    on_gpu = torch.cuda.is_available()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if on_gpu else "32-true",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(*task)


def step_ratio(make_task: Callable[[], tuple[Classifier, DataLoader[Any]]], epochs: int, rounds: int) -> dict[str, Any]:
    """A step with InfoBatch(prune_ratio=0) against one with no callback: median of paired rounds."""
    ratios, plain, selected = [], [], []
    for round_ in range(rounds + 1):
        seconds = {}
        for side in ("plain", "selected") if round_ % 2 else ("selected", "plain"):
            timer = StepTimer()
            added = [InfoBatch(prune_ratio=0)] if side == "selected" else []
            fit(make_task(), [timer, *added], epochs)
            seconds[side] = statistics.median(timer.seconds[1:])
        if round_:  # the first round warms up
            plain.append(seconds["plain"])
            selected.append(seconds["selected"])
            ratios.append(seconds["selected"] / seconds["plain"])
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "plain_seconds": statistics.median(plain),
        "selected_seconds": statistics.median(selected),
    }


class EveryOtherStep(InfoBatch):
    """Captures and records every other batch only, so that both sides are measured in one fit."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % 2 == 0:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


def alternating_step_ratio(task: tuple[Classifier, DataLoader[Any]]) -> dict[str, Any]:
    """A recorded step against the plain one after it: median of pairs, for steps that take long."""
    timer = StepTimer()
    fit(task, [timer, EveryOtherStep(prune_ratio=0)], epochs=1)
    seconds = timer.seconds[2:]
    pairs = list(zip(seconds[0::2], seconds[1::2], strict=False))
    ratios = [recorded / plain for recorded, plain in pairs]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "plain_seconds": statistics.median(plain for _, plain in pairs),
        "selected_seconds": statistics.median(recorded for recorded, _ in pairs),
    }


class AlternatingRandom(RandomPruning):
    """Every other epoch full, so that both sides are measured in one run."""

    def trains_on_everything(self, epoch: int) -> bool:
        return epoch % 2 == 0


class AlternatingES(EvolvedSampling):
    """Every other epoch with whole batches."""

    def trains_on_whole_batches(self, epoch: int) -> bool:
        return epoch % 2 == 0


def epoch_ratio(selector: Any, task: tuple[Classifier, DataLoader[Any]], pairs: int) -> dict[str, Any]:
    """Odd epochs, their selection included, against even ones: median of pairs."""
    fit(task, [selector], epochs=2 * pairs + 2)
    seconds = [record["seconds"] + record["select_seconds"] for record in selector.history][2:]
    full, pruned = seconds[0::2], seconds[1::2]
    ratios = [p / f for p, f in zip(pruned, full, strict=True)]
    return {"ratio": statistics.median(ratios), "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, with less certain figures")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure anew")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batches, steps, rounds, pairs = (2, 4, 1, 1) if args.quick else (5, 26, 7, 2)
    known = json.loads(args.out.read_text()) if args.out.exists() and args.only != PARTS else {"results": {}}
    results: dict[str, Any] = known["results"]

    def measured(name: str, limit: float, result: dict[str, Any]) -> None:
        results[name] = result | {"limit": limit}
        print(f"{name:<55} {result['ratio']:6.3f}   limit {limit:.3f}", flush=True)
        write_json(args.out, {"environment": environment(), "quick": args.quick, "results": results})

    if "step" in args.only:
        limit = 1.01 if torch.cuda.is_available() else 1.02
        measured("step, two-layer MLP on digits", 1.10, step_ratio(mlp_task, 4 if args.quick else 10, rounds))
        measured("step, ResNet-18, batch 128", limit, alternating_step_ratio(resnet_task(steps)))
    if "epoch" in args.only:
        for ratio in (0.3, 0.5, 0.7):
            result = epoch_ratio(AlternatingRandom(prune_ratio=ratio), resnet_task(batches), pairs)
            measured(f"epoch, ResNet-18, prune_ratio={ratio}", 1 - ratio + 0.02, result)
    if "batch" in args.only:
        result = epoch_ratio(AlternatingES(batch_ratio=0.25), resnet_task(batches), pairs)
        measured("epoch, ResNet-18, batch_ratio=0.25", 0.62, result)


if __name__ == "__main__":
    main()
