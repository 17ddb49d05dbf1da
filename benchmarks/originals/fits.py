"""The test accuracy of whole fits: the authors' loader in a plain loop beside our callback in a Trainer."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_dataselect as ours
from benchmarks.originals.agreement import Compared, shown
from benchmarks.originals.author_code import module, silenced
from benchmarks.originals.trajectories import fashion, perceptron
from benchmarks.resident import Resident

EPOCHS, BATCH, N = 16, 128, 10_000
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def infobatch(clone: Path, data_dir: str, seeds: int) -> list[Compared]:
    """Compare fits under InfoBatch."""
    make = module(clone, "infobatch.infobatch").InfoBatch
    return _compared(lambda data: make(data, EPOCHS, 0.5), lambda seed: ours.InfoBatch(seed=seed), data_dir, seeds)


def seta(clone: Path, data_dir: str, seeds: int) -> list[Compared]:
    """Compare fits under SeTa."""
    make = module(clone, "seta").SeTa
    return _compared(lambda data: make(data, EPOCHS, 0.1, 5, 0.9), lambda seed: ours.SeTa(seed=seed), data_dir, seeds)


def orderdp(clone: Path, data_dir: str, seeds: int) -> list[Compared]:
    """Compare fits under OrderDP."""
    make = module(clone, "cifar.orderDP.orderDP").OrderDP
    return _compared(lambda data: make(data, EPOCHS, 0.75, 0.8), lambda seed: ours.OrderDP(seed=seed), data_dir, seeds)


def _compared(
    theirs: Callable[[Any], Any], mine: Callable[[int], pl.Callback], data_dir: str, seeds: int
) -> list[Compared]:
    found: list[list[tuple[float, int]]] = [[], []]
    for seed in range(seeds):
        data = fashion(data_dir, N, seed)
        found[0].append(_under_theirs(theirs, data, seed))
        found[1].append(_under_ours(mine(seed), data, seed))
    accuracy = [[100 * each[0] for each in side] for side in found]
    gaps = [a - b for a, b in zip(*accuracy, strict=True)]
    error = stdev(gaps) / len(gaps) ** 0.5
    trained = [fmean(each[1] for each in side) / (EPOCHS * N) for side in found]
    what = f"test accuracy of {seeds} fits of {EPOCHS} epochs, %"
    gain = f"ours {-fmean(gaps):+.2f} ± {error:.2f} (standard error)"
    gap = f"within {100 * abs(trained[0] - trained[1]):.2f} points"
    return [
        shown(what, [(fmean(side), stdev(side)) for side in accuracy], "{:.2f} ± {:.2f}", gain),
        shown("trained on in them, of all", [100 * share for share in trained], "{:.2f} %", gap),
    ]


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def _accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model(data[2]).argmax(1) == data[3]).float().mean())


def _under_theirs(wrap: Callable[[Any], Any], data: Data, seed: int) -> tuple[float, int]:
    x, y, *_ = data
    torch.manual_seed(seed)
    model = perceptron()
    optimizer, dataset, trained = _optimizer(model), wrap(list(range(len(y)))), 0
    with silenced():
        sampler = dataset.sampler
    for _ in range(EPOCHS):
        with silenced():
            sampler.reset()  # once an epoch, as iter() did before torch asked for it once a batch
        for batch in _batches(torch.as_tensor(sampler.sample_indices)):
            dataset.set_active_indices(batch)
            optimizer.zero_grad()
            dataset.update(F.cross_entropy(model(x[batch]), y[batch], reduction="none")).backward()
            optimizer.step()
            trained += len(batch)
    return _accuracy(model, data), trained


def _batches(indices: Tensor) -> Iterator[Tensor]:
    yield from indices.split(BATCH)


class _Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _optimizer(self.net)


def _under_ours(selector: Any, data: Data, seed: int) -> tuple[float, int]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    model = _Module()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, callbacks=[selector], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, Resident(data[0], data[1]).loader(BATCH, shuffle=True))
    return _accuracy(model.net, data), sum(record["n_backward"] for record in selector.history)
