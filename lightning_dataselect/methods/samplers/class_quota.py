"""ClassQuota: a budget for each class, by its size and its loss; see `lightning_dataselect.methods.rcap`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_dataselect.methods.samplers.base import Column, Sampler
from lightning_dataselect.numerics.quotas import quotas
from lightning_dataselect.numerics.sampling import weighted_subset
from lightning_dataselect.state.selection import Observation, class_targets
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_positive


@dataclass(frozen=True)
class ClassQuota(Sampler):
    """Draw from each class a number that follows its size and its loss; see `lightning_dataselect.methods.rcap`.

    Args:
        temperature: What scores are divided by before the softmax of a class, above 0. Default 1.
        clip: Scores above it count as it; ``"log_classes"`` for the logarithm of the number of classes, the loss of a
            guess; None (default) for no limit.
        class_loss: ``"importance"`` (default) weighs a class by the share of its softmax that its samples of the last
            subset had, as the authors' code does, ``"score"`` by their summed scores, clipped, as their paper reads.
    """

    temperature: float = 1.0
    clip: float | Literal["log_classes"] | None = None
    class_loss: Literal["importance", "score"] = "importance"

    is_of_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        check_choice("class_loss", self.class_loss, ("importance", "score"))
        if isinstance(self.clip, str) and self.clip != "log_classes":
            raise InvalidArgumentError(f"clip={self.clip!r} is unknown: give a number, 'log_classes' or None.")
        if self.clip is not None and not isinstance(self.clip, str):
            check_positive("clip", self.clip)

    def columns(self) -> dict[str, float]:
        """Name the columns of the class, and of the epoch in which a sample was last seen."""
        return {"quota_class": math.nan, "last_epoch": math.nan}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Keep the class, and that the sample was in the subset."""
        store["quota_class"][seen.indices] = class_targets(seen, "sampler='class_quota'").float()
        if not seen.is_rescoring:
            store["last_epoch"][seen.indices] = float(seen.epoch)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Make budgets, and draw by importance in each class."""
        if len(scores) == 0:
            return torch.zeros(0, dtype=torch.int64)
        last_epoch = column("last_epoch")
        in_subset = last_epoch == last_epoch.nan_to_num(-math.inf).max()
        groups, sizes, importance, loss = self._of_classes(scores, column, in_subset)
        budgets = quotas((loss * sizes / len(scores)).sqrt(), sizes, k)
        parts = [
            members[weighted_subset(importance[members], budget, generator)]
            for members, budget in zip(groups, budgets.tolist(), strict=True)
        ]
        return torch.cat(parts)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the highest scores of the others follow."""
        return scores

    def _of_classes(
        self, scores: Tensor, column: Column, in_subset: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Return the members of each class, their number, each sample's importance, and the loss of each class."""
        by_class, order = column("quota_class").nan_to_num(-1).sort(stable=True)
        sizes = by_class.unique_consecutive(return_counts=True)[1]
        groups = list(order.split(sizes.tolist()))
        values = scores.double()
        if self.clip is not None:
            limit = math.log(len(groups)) if self.clip == "log_classes" else float(self.clip)
            values = values.clamp(0, limit)
        importance, losses = torch.zeros_like(values), []
        for members in groups:
            importance[members] = (values[members] / self.temperature).softmax(0)
            weighed = importance if self.class_loss == "importance" else values
            losses.append(weighed[members][in_subset[members]].sum().clamp(min=0))
        return groups, sizes, importance, torch.stack(losses)
