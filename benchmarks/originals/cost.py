"""The CPU time of choosing one epoch and shuffling it: InfoBatch, SeTa, OrderDP; the sides take turns."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lightning_dataselect as ours
from benchmarks.originals.agreement import Compared, shown
from benchmarks.originals.author_code import module, silenced
from benchmarks.originals.epochs import gen
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.state.plan import EpochPlan

TURNS = 5


def infobatch(clone: Path) -> list[Compared]:
    """Time InfoBatch."""
    make = module(clone, "infobatch.infobatch").InfoBatch
    return _timed(lambda n: make(range(n), 8, 0.5), ours.InfoBatch(), 10**6)


def seta(clone: Path) -> list[Compared]:
    """Time SeTa, among fewer samples, since theirs goes through them in a loop."""
    make = module(clone, "seta").SeTa
    return _timed(lambda n: make(range(n), 8, 0.1, 5, 0.9), ours.SeTa(), 10**5)


def orderdp(clone: Path) -> list[Compared]:
    """Time OrderDP, among fewer samples, since theirs goes through them in a loop."""
    make = module(clone, "cifar.orderDP.orderDP").OrderDP
    return _timed(lambda n: make(range(n), 8, 0.75, 0.8), ours.OrderDP(), 10**5)


def _timed(make: Callable[[int], Any], selector: Any, n: int) -> list[Compared]:
    losses = torch.distributions.Exponential(1.0).sample((n,))
    theirs = make(n)
    theirs.scores[:], theirs.iterations = losses, 1
    sampler = SelectionSampler(1, shuffle=True)

    def mine() -> None:
        chosen = selector.select(1, losses, gen())
        sampler.plan = EpochPlan(1, chosen.indices, chosen.weights)
        next(iter(sampler))

    seconds: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for side, choose in enumerate((theirs.prune, mine)):
            begun = time.process_time()
            with silenced():
                choose()
            seconds[side].append(time.process_time() - begun)
    least = [min(side) for side in seconds]
    gain = f"theirs takes {least[0] / least[1]:.1f} times as long"
    return [
        shown(
            f"CPU time to choose among {n:,} samples and shuffle, ms", [1000 * each for each in least], "{:.0f}", gain
        )
    ]
