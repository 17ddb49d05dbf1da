"""ClassQuota: a budget for each class, by its size and its loss; see `lightning_dataselect.methods.rcap`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_dataselect.methods.samplers.base import Column, Sampler
from lightning_dataselect.numerics.groups import top_of_groups
from lightning_dataselect.numerics.masks import positions
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.quotas import quotas
from lightning_dataselect.numerics.sampling import exponential_keys
from lightning_dataselect.state.selection import Observation, class_targets
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_positive


class _Classes:
    """Number the classes of samples, float32 (n,), from 0 on; NaN, no class, is one more.

    Attributes:
        sizes: int64 (c,), of each number, 0 where no class has it.
    """

    def __init__(self, classes: Tensor) -> None:
        self._classes = classes
        ranges = [classes[part].nan_to_num(-1).aminmax() for part in parts(len(classes))]
        self._lowest = min(float(each.min) for each in ranges)
        self.sizes = torch.zeros(int(max(float(each.max) for each in ranges) - self._lowest) + 1, dtype=torch.int64)
        for part in parts(len(classes)):
            self.sizes += torch.bincount(self.of(part), minlength=len(self.sizes))

    def of(self, part: slice) -> Tensor:
        """Return the numbers of a part of the samples, int64."""
        return self._classes[part].nan_to_num(-1).sub_(self._lowest).long()


@dataclass(frozen=True)
class ClassQuota(Sampler):
    """Draw from each class a number that follows its size and its loss; see `lightning_dataselect.methods.rcap`.

    Args:
        temperature: What scores are divided by before the softmax of a class, above 0. Default 1.
        clip: Largest score that counts, to which higher ones are lowered; ``"log_classes"`` for the logarithm of the
            number of classes, the loss of a guess; None (default) for no limit.
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
        latest = last_epoch.nan_to_num(-math.inf).max()
        classes = _Classes(column("quota_class"))
        values = self._values(scores, classes)
        in_class, in_subset = torch.zeros(2, len(classes.sizes), dtype=torch.float64)
        greatest = torch.full_like(in_class, -math.inf)
        for part in parts(len(scores)):
            greatest.scatter_reduce_(0, classes.of(part), values(part), "amax")
        for part in parts(len(scores)):
            of_sample, value = classes.of(part), values(part)
            importance = (value - greatest.index_select(0, of_sample)).exp_()
            weighed = importance if self.class_loss == "importance" else value.mul_(self.temperature)
            in_class += torch.bincount(of_sample, importance, minlength=len(in_class))
            in_subset += torch.bincount(of_sample, weighed * (last_epoch[part] == latest), minlength=len(in_class))
        losses = in_subset.clamp(min=0)
        if self.class_loss == "importance":
            losses /= in_class.clamp(min=1)  # the sum of a softmax has a term of 1
        budgets = quotas((losses * classes.sizes / len(scores)).sqrt(), classes.sizes, k)
        keys = placement().empty((len(scores),), torch.float32)
        for part in parts(len(scores)):
            above = greatest.index_select(0, classes.of(part))
            keys[part] = exponential_keys((values(part) - above).exp_(), generator)
        # the bits of floats that are not negative stand in their order
        return positions(top_of_groups(keys.view(torch.int32), classes.of, budgets))

    def _values(self, scores: Tensor, classes: _Classes) -> Callable[[slice], Tensor]:
        """Return what a part of the samples have their softmax of, float64."""
        limit = math.inf if self.clip is None else self.clip
        if limit == "log_classes":
            limit = math.log(int(classes.sizes.count_nonzero()))
        lowest = -math.inf if self.clip is None else 0.0

        def values(part: slice) -> Tensor:
            return scores[part].double().clamp_(lowest, float(limit)).div_(self.temperature)

        return values

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the highest scores of the others follow."""
        return scores
