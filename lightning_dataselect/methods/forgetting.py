"""Forgetting: how often a sample is unlearnt.

Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon, "An Empirical Study of Example
Forgetting during Deep Neural Network Learning", ICLR 2019, arXiv 1812.05159.

    forgetting_i = number of presentations at which i is wrong, and was right at the one before

Samples never right count as most forgotten. The paper counts over a whole training, then trains anew
without the least forgotten; for that give ``scores=`` the export of a run. Here the first
``warmup_epochs`` epochs of the fit itself count by default, which then goes on with a fixed subset.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.classification import correct, logits_and_targets
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.static import StaticSelector
from lightning_dataselect.state.load_values import ValueSource
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore


def forgetting_score(events: Tensor, learnt: Tensor, epoch: int) -> Tensor:
    """Return the number of forgetting events, and for a sample never learnt more than any can have.

    Args:
        events: float32 (B,), forgetting events so far.
        learnt: float32 (B,), 1 where the sample was ever right, else 0.
        epoch: 0-based epoch; its number of epochs so far stands for a sample never learnt.

    Example:
        >>> forgetting_score(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), epoch=4)
        tensor([2., 5.])
    """
    return torch.where(learnt > 0, events, float(epoch + 1))


class Forgetting(StaticSelector):
    """Keeps the samples that are forgotten most often or never learnt, once and for good.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which events are counted, at least 2. Default 20, our
            choice; 0 if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch,
            if there is no classification loss.

    Example:
        >>> selector = Forgetting(scores=torch.tensor([0.0, 3.0, 1.0, 0.0]))
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    measuring_epochs: ClassVar[int] = 20
    fewest_epochs: ClassVar[int] = 2
    info: ClassVar[MethodInfo] = CATALOG["Forgetting"]

    def __init__(
        self,
        *,
        prune_ratio: float = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)

    def columns(self) -> dict[str, float]:
        """Name the columns: right last time, right ever, and how often forgotten."""
        return {"correct": math.nan, "learnt": 0.0, "forgotten": 0.0}

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Count the samples that were right and are wrong."""
        i = seen.indices
        now = correct(*logits_and_targets(seen, "Forgetting"))
        forgotten = store["forgotten"][i] + ((store["correct"][i] == 1) & ~now)
        learnt = store["learnt"][i].maximum(now.float())
        store["forgotten"][i] = forgotten
        store["learnt"][i] = learnt
        store["correct"][i] = now.float()
        store["score"][i] = forgetting_score(forgotten, learnt, seen.epoch)
