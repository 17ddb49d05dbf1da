"""The cost of a training step and an epoch with a callback, as ratios; the sides alternate in one run.

    python -m benchmarks.overhead [--quick] [--only step epoch batch memory] [--clock cpu] [--out results/overhead.json]

- step: a training step with a callback at prune_ratio=0 against none, for ResNet-18 on 32x32 images (batch 128; in bf16
  on a GPU), for a two-layer MLP on digits, and for the models of `benchmarks.models` whose losses are of other kinds;
- memory: the peak of a step's memory, the first one's too, for the same models;
- epoch: an epoch at prune_ratio=r, choosing the next one included, against a full one;
- batch: an epoch that trains on a quarter of each batch, scoring included, against a full one.
"""

import argparse
import functools
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks import models
from benchmarks.environment import environment, write_json
from benchmarks.memory import PeakMemory
from benchmarks.models import Task
from lightning_dataselect import EvolvedSampling, InfoBatch, RandomPruning

PARTS = ["step", "epoch", "batch", "memory"]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LOSSES: dict[str, Callable[[int], Task]] = {
    "Hugging Face classifier, 128 tokens, batch 16": models.classifier,
    "causal LM, vocabulary 32,000, batch 4": models.language_model,
    "segmentation, 128x128 pixels, batch 4": models.segmenter,
    "focal loss by hand, ResNet-18, batch 16": models.focal_resnet,
}


class StepTimer(pl.Callback):
    """Records the seconds from the start of one batch to the start of the next."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: list[float] = []
        self._clock = clock
        self._last: float | None = None

    def on_train_epoch_start(self, *_: Any) -> None:
        self._last = None

    def on_train_batch_start(self, *_: Any) -> None:
        now = self._clock()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def fit(task: Task, callbacks: list[pl.Callback], epochs: int) -> None:
    """Fit a task without output, in bf16 on a GPU."""
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


def step_ratio(make_task: Callable[[], Task], epochs: int, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Compare a step with InfoBatch(prune_ratio=0) with one without a callback: median of paired rounds."""
    ratios, plain, selected = [], [], []
    for round_ in range(rounds + 1):
        seconds = {}
        for side in ("plain", "selected") if round_ % 2 else ("selected", "plain"):
            timer = StepTimer(clock)
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


def alternating_step_ratio(task: Task, clock: Callable[[], float]) -> dict[str, Any]:
    """Compare a recorded step with the plain one after it: median of pairs, for steps that take long."""
    timer = StepTimer(clock)
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


def memory_ratio(make_task: Callable[[], Task]) -> dict[str, Any]:
    """Compare the peak memory of each step, the first one too, with InfoBatch(prune_ratio=0) and without."""
    peaks = []
    for added in ([], [InfoBatch(prune_ratio=0)]):
        memory = PeakMemory()
        fit(make_task(), [memory, *added], epochs=1)
        peaks.append(memory.peaks)
    ratios = [selected / plain for plain, selected in zip(*peaks, strict=True)]
    return {"ratio": max(ratios), "ratios": ratios, "plain_bytes": max(peaks[0]), "selected_bytes": max(peaks[1])}


class AlternatingRandom(RandomPruning):
    """Trains on everything in every other epoch, so that both sides are measured in one run."""

    def trains_on_everything(self, epoch: int) -> bool:
        return epoch % 2 == 0


class AlternatingES(EvolvedSampling):
    """Trains on whole batches in every other epoch."""

    def trains_on_whole_batches(self, epoch: int) -> bool:
        return epoch % 2 == 0


class EpochTimer(pl.Callback):
    """Records the seconds from the start of one epoch to the start of the next, its selection included."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.starts: list[float] = []
        self._clock = clock

    def on_train_epoch_start(self, *_: Any) -> None:
        self.starts.append(self._clock())

    @property
    def seconds(self) -> list[float]:
        return [end - start for start, end in pairwise(self.starts)]


def epoch_ratio(selector: Any, task: Task, pairs: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Compare odd epochs, their selection included, with even ones: median of pairs."""
    timer = EpochTimer(clock)
    fit(task, [timer, selector], epochs=2 * pairs + 3)
    seconds = timer.seconds[2:]
    full, pruned = seconds[0::2], seconds[1::2]
    ratios = [p / f for p, f in zip(pruned, full, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "plain_seconds": statistics.median(full),
        "selected_seconds": statistics.median(pruned),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute, with less certain figures")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure anew")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of use on a machine that others use")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batches, steps, rounds, pairs = (2, 4, 1, 1) if args.quick else (5, 26, 7, 5)
    clock = CLOCKS[args.clock]
    known = json.loads(args.out.read_text()) if args.out.exists() and args.only != PARTS else {"results": {}}
    results: dict[str, Any] = known["results"]

    def measured(name: str, limit: float, result: dict[str, Any]) -> None:
        results[name] = result | {"limit": limit}
        print(f"{name:<55} {result['ratio']:6.3f}   limit {limit:.3f}", flush=True)
        write_json(
            args.out, {"environment": environment(), "quick": args.quick, "clock": args.clock, "results": results}
        )

    if "step" in args.only:
        limit = 1.01 if torch.cuda.is_available() else 1.02
        mlp_epochs = 4 if args.quick else 10
        measured("step, two-layer MLP on digits", 1.10, step_ratio(models.mlp, mlp_epochs, rounds, clock))
        measured("step, ResNet-18, batch 128", limit, alternating_step_ratio(models.resnet(steps), clock))
        for name, make_task in LOSSES.items():
            measured(f"step, {name}", limit, alternating_step_ratio(make_task(2 * steps), clock))
    if "memory" in args.only:
        for name, make_task in LOSSES.items():
            measured(f"peak memory of a step, {name}", 1.01, memory_ratio(functools.partial(make_task, 4)))
    if "epoch" in args.only:
        for ratio in (0.3, 0.5, 0.7):
            result = epoch_ratio(AlternatingRandom(prune_ratio=ratio), models.resnet(batches), pairs, clock)
            measured(f"epoch, ResNet-18, prune_ratio={ratio}", 1 - ratio + 0.02, result)
    if "batch" in args.only:
        result = epoch_ratio(AlternatingES(batch_ratio=0.25), models.resnet(batches), pairs, clock)
        measured("epoch, ResNet-18, batch_ratio=0.25", 0.62, result)


if __name__ == "__main__":
    main()
