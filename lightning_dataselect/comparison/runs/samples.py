"""Per-sample results of a method: drops by epoch, a data map, and some samples to look at."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.comparison.runs.meter import Meter
from lightning_dataselect.report.specimens import specimens
from lightning_dataselect.state.store import Identity
from lightning_dataselect.utils.writing import written_whole

_MOST_POINTS = 500
_THIRDS = torch.tensor([1 / 3, 2 / 3])
OF_CLASSES = ("learnt", "contradicted", "not seen yet")
OF_LOSSES = ("easy third", "middle third", "hard third", "not seen yet")


class SampleLog(pl.Callback):
    """Follow the samples of a selector, outside of the time that its meter takes.

    Args:
        selector: Stands before this one among the callbacks, as does the meter.
        meter: Whose clock stands still meanwhile.
    """

    def __init__(self, selector: DataSelector, meter: Meter) -> None:
        self.selector, self.meter = selector, meter
        self.dropped: list[dict[str, float]] = []
        self._times: Tensor | None = None
        self._n = self._sum = self._squares = torch.zeros(0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count what the epoch has left out, and how sure the model was of each sample."""
        store = self.selector.store
        if store.identity is not Identity.INDEX:
            return  # how many samples a stream has, and which, is unknown
        with self.meter.paused():
            times, losses = store.column("times_dropped").clone(), store.column("loss")
            before = torch.zeros_like(times) if self._times is None else self._times
            self._times = times
            out = times > before
            kinds = _kinds(losses, store.column("margin") if store.knows_classes else None)
            self.dropped.append({name: float((out & kind).sum()) / len(out) for name, kind in kinds.items()})
            sure = _sureness(losses, store.column("margin") if store.knows_classes else None)
            if not len(self._n):
                self._n, self._sum, self._squares = torch.zeros(3, len(out), dtype=torch.float64)
            known = sure.isfinite() & ~out
            value = torch.where(known, sure, 0.0).double()
            self._n += known
            self._sum += value
            self._squares += value * value

    def write(self, path: Path, module: pl.LightningModule, dataset: Any) -> None:
        """Write all of it as JSON, as far as it is known, and what the selector has decided.

        Args:
            path: The file.
            module: As it is after the fit, for predictions where no classes are known.
            dataset: What was trained on, or None.
        """
        store = self.selector.store
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {
            "dropped": self.dropped,
            "decisions": [asdict(decision) for decision in self.selector.decisions],
            "map": self._map(),
            "sure": "confidence" if store.knows_classes else "loss",
            "specimens": [] if dataset is None else specimens(self.selector, dataset, _predictor(module)),
        }
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(known))

    def _map(self) -> list[list[float]]:
        """Of some samples: how sure on average, how much that varied, and the share of the epochs that dropped it."""
        if self._times is None:
            return []
        mean = self._sum / self._n.clamp(min=1)
        deviation = (self._squares / self._n.clamp(min=1) - mean * mean).clamp(min=0).sqrt()
        share = self._times / max(1, len(self.dropped))
        known = (self._n > 1).nonzero()[:, 0]
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:_MOST_POINTS]
        chosen = known[order]
        return [[round(float(column[i]), 4) for column in (mean, deviation, share)] for i in chosen.tolist()]


def _kinds(losses: Tensor, margin: Tensor | None) -> dict[str, Tensor]:
    known = losses.isfinite()
    if margin is not None:
        right = margin > 0
        return dict(zip(OF_CLASSES, (known & right, known & ~right, ~known), strict=True))
    low, high = losses[known].quantile(_THIRDS.to(losses.dtype)) if known.any() else (0.0, 0.0)
    easy, hard = known & (losses <= low), known & (losses > high)
    return dict(zip(OF_LOSSES, (easy, known & ~easy & ~hard, hard, ~known), strict=True))


def _sureness(losses: Tensor, margin: Tensor | None) -> Tensor:
    """The odds of the label against the best other class, as a probability; without classes the loss."""
    return losses if margin is None else margin.sigmoid()


def _predictor(module: pl.LightningModule) -> Any:
    """Return what the module says of one item, if `forward` takes the item's first part; else None."""
    module = copy.copy(module).eval()

    def predict(item: Any) -> float | None:
        try:
            first = default_collate([item])[0].to(module.device)
            with torch.no_grad():
                found = module(first)
            return float(found) if found.numel() == 1 else None
        except Exception:
            return None

    return predict


def read(path: Path) -> dict[str, Any]:
    """Return what `SampleLog.write` wrote, or nothing where there is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
