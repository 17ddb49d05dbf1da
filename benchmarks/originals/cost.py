"""CPU time and memory of choosing one epoch and shuffling it: InfoBatch, SeTa, OrderDP.

Of time the sides take turns, and the least of each counts. Memory is what a process of its own, which has done nothing
else, holds beyond the losses at the peak of one choice.
"""

import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

import lightning_dataselect as ours
from benchmarks.memory import process_peak_bytes, process_peak_from_now
from benchmarks.originals.agreement import Compared, shown
from benchmarks.originals.author_code import module, silenced
from benchmarks.originals.epochs import gen
from lightning_dataselect.data.sampler import SelectionSampler
from lightning_dataselect.state.plan import EpochPlan

TURNS = 3


def infobatch(clone: Path) -> list[Compared]:
    """Measure InfoBatch."""
    return [one for n in (10**6, 10**7) for one in _taken("InfoBatch", clone, n)]


def seta(clone: Path) -> list[Compared]:
    """Measure SeTa."""
    return _taken("SeTa", clone, 10**6)


def orderdp(clone: Path) -> list[Compared]:
    """Measure OrderDP."""
    return _taken("OrderDP", clone, 10**6)


def _taken(method: str, clone: Path, n: int) -> list[Compared]:
    sides: tuple[Callable[..., Callable[[], Any]], ...] = (_theirs, _ours)
    held = []
    for side in sides:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            held.append(alone.submit(_bytes_held, side, method, clone, n).result() / n)
    seconds: list[list[float]] = [[], []]
    choices = [side(method, clone, n) for side in sides]
    for _ in range(TURNS):
        for choose, taken in zip(choices, seconds, strict=True):
            begun = time.process_time()
            choose()
            taken.append(time.process_time() - begun)
    return [
        _shown(
            f"CPU time to choose among {n:,} samples and shuffle, ms", [1000 * min(each) for each in seconds], "long"
        ),
        _shown(f"memory to choose among {n:,} samples and shuffle, bytes a sample", held, "much"),
    ]


def _shown(what: str, sides: list[float], word: str) -> Compared:
    return shown(what, sides, "{:,.0f}", f"theirs takes {sides[0] / sides[1]:.1f} times as {word}")


def _theirs(method: str, clone: Path, n: int) -> Callable[[], Any]:
    if method == "InfoBatch":
        made = module(clone, "infobatch.infobatch").InfoBatch(range(n), 8, 0.5)
    elif method == "SeTa":
        made = module(clone, "seta").SeTa(range(n), 8, 0.1, 5, 0.9)
    else:
        made = module(clone, "cifar.orderDP.orderDP").OrderDP(range(n), 8, 0.75, 0.8)
    made.scores[:], made.iterations = _losses(n), 1

    def choose() -> None:
        with silenced():
            made.prune()

    return choose


def _ours(method: str, clone: Path, n: int) -> Callable[[], Any]:
    selector, sampler, losses = getattr(ours, method)(), SelectionSampler(1, shuffle=True), _losses(n)

    def choose() -> None:
        chosen = selector.select(1, losses, gen())
        sampler.plan = EpochPlan(1, chosen.indices, chosen.weights)
        next(iter(sampler))

    return choose


def _losses(n: int) -> torch.Tensor:
    return torch.empty(n).exponential_(generator=gen())


def _bytes_held(side: Callable[..., Callable[[], Any]], method: str, clone: Path, n: int) -> int:
    torch.set_num_threads(1)
    side(method, clone, 1000)()  # imports and thread pools
    choose = side(method, clone, n)
    gc.collect()
    before = process_peak_from_now()
    choose()
    return process_peak_bytes() - before
