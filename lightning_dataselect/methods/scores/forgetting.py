"""Forgetting: how often a sample is unlearnt; see `lightning_dataselect.methods.forgetting`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.classification import correct, logits_and_targets
from lightning_dataselect.methods.scores.base import Score
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


@dataclass(frozen=True)
class ForgettingScore(Score):
    """Score by how often a sample was right and then wrong; one never right counts as forgotten most."""

    measuring_epochs: ClassVar[int] = 20

    @property
    def fewest_epochs(self) -> int:
        """Two presentations: forgetting is a change between them."""
        return 2

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
