"""The fits that are killed: short ones, which save a checkpoint after every step and go on from the last one."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from benchmarks.faults.moments import Marker
from lightning_dataselect import AutoAssist, Frontier, InfoBatch, SelectiveBackprop
from lightning_dataselect.methods.autoassist.assistant import Assistant
from lightning_dataselect.state.store import ScoreStore

TIMEOUT = 5  # seconds that the ranks of a fit wait for each other where one of them dies or stops
_TIMEOUT_OF_KILLED = 60  # and where the fit is killed as a whole: on a busy machine workers take long to start


class Classifier(L.LightningModule):
    """A small network; ``before_step`` is called in each step."""

    def __init__(self, before_step: Callable[[int], object] = lambda step: None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        self.before_step = before_step

    def training_step(self, batch: list[Any], batch_idx: int) -> torch.Tensor:
        self.before_step(self.global_step)
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.05)


def samples(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs and the labels of ``n`` samples."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def batches(n: int = 200, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(n)), 20, shuffle=True, **options)


class Stream(IterableDataset[Any]):
    """The samples one after the other, each with its key, shared among ranks and their workers."""

    def __init__(self, n: int, marker: Marker | None = None, n_ranks: int = 1) -> None:
        self.rows, self.marker, self.n_ranks = list(zip(*samples(n), strict=True)), marker, n_ranks
        self.rank = int(os.environ["LOCAL_RANK"]) if n_ranks > 1 else 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, str]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(first * self.n_ranks + self.rank, len(self.rows), step * self.n_ranks):
            if self.marker is None:
                yield *self.rows[i], f"s{i}"
            else:
                with self.marker.within("reader"):
                    row = *self.rows[i], f"s{i}"
                yield row


def stream(n: int = 200, marker: Marker | None = None, n_ranks: int = 1, n_workers: int = 2) -> StatefulDataLoader[Any]:
    """Read a stream in workers, by a loader that saves where it is."""
    return StatefulDataLoader(Stream(n, marker, n_ranks), 20, num_workers=n_workers, multiprocessing_context="fork")


def fit(
    folder: Path,
    *,
    selector: Any = None,
    module: L.LightningModule | None = None,
    train: Any = None,
    **flags: Any,
) -> Any:
    """Fit, from the last checkpoint in ``folder`` if there is one, and leave the outcome there."""
    selector, module, last = selector or InfoBatch(), module or Classifier(), folder / "last.ckpt"
    keep = ModelCheckpoint(folder, filename="last", every_n_train_steps=1, enable_version_counter=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"accelerator": "cpu", "max_epochs": 6, "callbacks": [selector, keep], **quiet, **flags}
    trainer = L.Trainer(**options)
    trainer.fit(module, batches() if train is None else train, ckpt_path=last if last.exists() else None)
    torch.save(outcome(trainer, module, selector), folder / f"end-{trainer.global_rank}")
    return selector


def outcome(trainer: L.Trainer, module: L.LightningModule, selector: Any) -> dict[str, Any]:
    """Return all that two fits must agree in, so that ``==`` compares it: the weights, and what is known of samples."""
    store = selector.store
    # the Assistant's score is that of a thread, which is faster in one fit than in another
    skipped = {"score"} if isinstance(selector, AutoAssist) and not selector.synchronous else set()
    columns = {
        name: store.column(name).nan_to_num(-1).tolist() for name in sorted(store.state_dict()) if name not in skipped
    }
    names = selector.sample_ids or list(range(len(selector.losses)))
    decisions = [repr(decision) for decision in getattr(selector, "decisions", [])]
    return {
        "weights": [(name, value.tolist()) for name, value in module.state_dict().items()],
        "samples": {
            key: list(values) for key, *values in zip(names, *(columns[name] for name in columns), strict=True)
        },
        "columns": list(columns),
        "selected": selector.selected.tolist(),
        "history": [{k: v for k, v in each.items() if "seconds" not in k} for each in selector.history],
        "decisions": decisions,
        "step": trainer.global_step,
    }


@dataclass(frozen=True)
class KilledFit:
    """A fit that is killed.

    Attributes:
        run: Fits in a folder, marking its moments.
        moments: Those that kills are aimed at.
        n_ranks: Its processes that train.
    """

    run: Callable[[Path, Marker], object]
    moments: list[str]
    n_ranks: int = 1


def _mark(marker: Marker, selector: Any) -> Any:
    """Mark the moments of this process's fit; return the selector."""
    is_by_key = isinstance(selector, Frontier) and selector.sample_id is not None
    marker.around(L.Trainer, "save_checkpoint", "checkpoint")
    marker.around(selector, "leave_out" if is_by_key else "select", "selection")
    marker.around(ScoreStore, "merge", "merging")
    marker.around(Assistant, "judge", "Assistant")
    marker.around(Assistant, "learn", "Assistant")
    return selector


def _infobatch(folder: Path, marker: Marker) -> None:
    fit(folder, selector=_mark(marker, InfoBatch()))


def _on_two_ranks(folder: Path, selector: Any, **options: Any) -> None:
    strategy = DDPStrategy(timeout=timedelta(seconds=_TIMEOUT_OF_KILLED))
    fit(folder, selector=selector, strategy=strategy, devices=2, **{"max_epochs": 8, **options})


def _ranks(folder: Path, marker: Marker) -> None:
    _on_two_ranks(folder, _mark(marker, InfoBatch()))


def _gathering_ranks(folder: Path, marker: Marker) -> None:
    _on_two_ranks(folder, _mark(marker, SelectiveBackprop(constant_batch_size=True)))


def _autoassist(folder: Path, marker: Marker) -> None:
    # trains on everything, since what else it trains on depends on how fast the thread is
    fit(folder, selector=_mark(marker, AutoAssist(base_prob=1.0)), max_epochs=5)


def _autoassist_in_step(folder: Path, marker: Marker) -> None:
    fit(folder, selector=_mark(marker, AutoAssist(base_prob=0.3, synchronous=True)), max_epochs=5)


def _frontier(folder: Path, marker: Marker) -> None:
    selector = _mark(marker, Frontier(budget=0.5, sample_id=2))
    fit(folder, selector=selector, train=stream(marker=marker), max_epochs=10)


def _frontier_ranks(folder: Path, marker: Marker) -> None:
    train = batches(num_workers=4, multiprocessing_context="fork")
    _on_two_ranks(folder, _mark(marker, Frontier(budget=0.5)), train=train, max_epochs=10)


def _frontier_stream_ranks(folder: Path, marker: Marker) -> None:
    selector = _mark(marker, Frontier(budget=0.5, sample_id=2))
    _on_two_ranks(folder, selector, train=stream(320, marker, n_ranks=2, n_workers=4), max_epochs=10)


FITS = {
    "InfoBatch": KilledFit(_infobatch, ["checkpoint", "selection"]),
    "AutoAssist, a thread": KilledFit(_autoassist, ["checkpoint", "Assistant"]),
    "AutoAssist, synchronous": KilledFit(_autoassist_in_step, ["checkpoint", "Assistant"]),
    "Frontier on a stream, 2 workers": KilledFit(_frontier, ["checkpoint", "selection", "reader"]),
    "InfoBatch on 2 ranks": KilledFit(_ranks, ["checkpoint", "selection", "merging"], n_ranks=2),
    "SelectiveBackprop gathering batches on 2 ranks": KilledFit(_gathering_ranks, ["checkpoint", "merging"], n_ranks=2),
    "Frontier on 2 ranks, 4 workers each": KilledFit(
        _frontier_ranks, ["checkpoint", "selection", "merging"], n_ranks=2
    ),
    "Frontier on a stream, 2 ranks, 4 workers each": KilledFit(
        _frontier_stream_ranks, ["checkpoint", "selection", "reader"], n_ranks=2
    ),
}
