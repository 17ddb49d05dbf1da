"""When methods start and stop to choose, and what their loaders make of it: InfoBatch, KAKURENBO, DataCull."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import lightning_dataselect as ours
from benchmarks.originals.agreement import Compared, counts, numbers
from benchmarks.originals.author_code import definitions, module, silenced
from benchmarks.originals.epochs import KAKURENBO_SCRIPT, gen, labelled, values_of
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.state.plan import EpochPlan


def infobatch(clone: Path) -> list[Compared]:
    """Compare when pruning ends, which weights stay, and whether a loader ends its epoch."""
    make = module(clone, "infobatch.infobatch").InfoBatch
    return [
        *(_first_whole_epoch(make, ours.InfoBatch(), epochs) for epochs in (8, 30, 200)),
        *(_weights_in_annealing(make, epochs) for epochs in (8, 30)),
        *_epochs_of_a_loader(make),
    ]


def _first_whole_epoch(make: Any, selector: Any, epochs: int) -> Compared:
    theirs = make(list(range(100)), epochs)
    sampler, kept = theirs.sampler, []
    for epoch in range(epochs):
        with silenced():
            sampler.reset()
        kept.append(len(sampler))
        theirs.scores[:] = torch.arange(100.0) + epoch
    selector.max_epochs = epochs
    whole = [epoch for epoch in range(1, epochs) if kept[epoch] == 100]
    mine = [epoch for epoch in range(1, epochs) if selector.trains_on_everything(epoch)]
    return counts(f"first epoch of annealing, counted from 0, of {epochs}", whole[0], mine[0])


def _weights_in_annealing(make: Any, epochs: int) -> Compared:
    theirs = make(list(range(100)), epochs)
    sampler = theirs.sampler
    for _ in range(epochs):
        sampler.reset()
        theirs.scores[:] = torch.arange(100.0)
    return counts(f"weights in the last of {epochs} epochs, other than 1", values_of(theirs.weights), "none")


def _epochs_of_a_loader(make: Any) -> list[Compared]:
    n, size = 64, 8
    found = []
    for drop_last in (False, True):
        theirs = make(list(range(n)), 8)
        loader = DataLoader(theirs, size, sampler=theirs.sampler, drop_last=drop_last)
        theirs.scores[:] = torch.arange(float(n))
        theirs_read = sum(1 for _ in itertools.islice(iter(loader), 10 * n))
        chosen = ours.InfoBatch().select(1, torch.arange(float(n)), gen())
        sampler = SelectionSampler(1, shuffle=True)
        sampler.plan = EpochPlan(1, chosen.indices, chosen.weights)
        mine = DataLoader(TensorDataset(torch.arange(n)), size, sampler=sampler, drop_last=drop_last)
        read = sum(1 for _ in mine)
        said = f"batches of {size} in a pruned epoch of {n} samples{', drop_last' if drop_last else ''}"
        theirs_shown = f"no end ({theirs_read} read)" if theirs_read == 10 * n else str(theirs_read)
        found.append(counts(said, theirs_shown, str(read)))
    return found


def kakurenbo(clone: Path) -> list[Compared]:
    """Compare how the share that may be hidden falls, and what the learning rate is multiplied by."""
    options = SimpleNamespace(warmup_epochs=5, base_lr=1.0, batches_per_allreduce=1)
    theirs = definitions(clone / KAKURENBO_SCRIPT, "adjust_fraction", args=options)
    selector = ours.KAKURENBO(prune_ratio=0.3)
    selector.max_epochs = 200
    shares = [[f(e) for e in range(200)] for f in (lambda e: theirs.adjust_fraction(e, 0.3), selector.hidden_share)]
    group: dict[str, float] = {}
    rate = definitions(
        clone / KAKURENBO_SCRIPT, "adjust_learning_rate", args=options, train_loader=[0],
        hvd=SimpleNamespace(size=lambda: 1), optimizer=SimpleNamespace(param_groups=[group]),
    )  # fmt: skip
    rate.adjust_learning_rate(10, 0, 0.3)
    n = 1000
    selector.run_state.open(selector, n, world_size=1, epoch=0)
    selector.state.plan = EpochPlan(1, torch.arange(n - 200), None)  # 200 of 1000 are hidden, of 300 that may be
    return [
        numbers("the share that may be hidden, in 200 epochs", *shares),
        counts(
            "factor of the learning rate, 20 % hidden of 30 %", f"{group['lr']:.3f}", f"{selector.lr_factor(10):.3f}"
        ),
    ]


def datacull(clone: Path) -> list[Compared]:
    """Compare what a ratio of 0.3 drops."""
    data = module(clone, "datacull", absent=["orjsonl"])
    loader = data.RS2DataLoader(labelled(torch.zeros(1000)), 0.3, sampling_with_replacement=True)
    mine = ours.RandomPruning(prune_ratio=0.3).select(0, torch.zeros(1000), gen())
    kept = len(loader.compute_subset([])), len(mine.indices)
    return [counts("kept of 1,000 with pruning_rate=0.3 and prune_ratio=0.3", *kept)]
