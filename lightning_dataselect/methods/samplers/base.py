"""The base of every sampler: take ``k`` of scored samples, those without a score first."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import marked, mask_of, positions, spread, taken
from lightning_dataselect.numerics.sampling import uniform_among
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore

Column: TypeAlias = Callable[[str], Tensor]
"""Gives a column of the samples that are chosen among, float32 (n,), on the CPU."""


class Sampler:
    """Take ``k`` of scored samples.

    Derive from it to write one of your own: a frozen dataclass, whose fields are its arguments, with :meth:`choose`.

    Example:
        >>> from dataclasses import dataclass
        >>> from lightning_dataselect import ScoreSelector
        >>> @dataclass(frozen=True)
        ... class NearestToMean(Sampler):
        ...     def choose(self, scores, k, generator, column):
        ...         return (scores - scores.mean()).abs().topk(k, largest=False).indices
        >>> selector = ScoreSelector(scores=torch.tensor([0.0, 5.0, 6.0, 9.0]), sampler=NearestToMean())
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    reads_scores: ClassVar[bool] = True
    """False if the scores do not matter, so that none are measured."""
    draws_by_score: ClassVar[bool] = False
    """True if scores are weights, which cannot be negative."""
    is_of_classes: ClassVar[bool] = False
    """True if it makes budgets for classes itself, so that ``balance="class"`` means nothing."""

    def columns(self) -> dict[str, float]:
        """Return the columns that it reads besides the scores, by name, with their initial values."""
        return {}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Write those columns; nothing here may wait for the device."""

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Choose among samples that are all scored.

        Args:
            scores: float32 (n,), on the CPU; neither NaN nor +inf.
            k: Number to take, ``0 <= k <= n``.
            generator: Source of the random numbers.
            column: Gives the columns that :meth:`observe` writes.

        Returns:
            int64 (k,), positions, in any order.
        """
        raise NotImplementedError(f"{type(self).__name__} must define choose(scores, k, generator, column).")

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Return what samples stand in line by to fill up a last batch; default: all alike.

        Args:
            scores: As for :meth:`choose`.
            column: As for :meth:`choose`.

        Returns:
            float32 (n,); the highest are taken first.
        """
        return torch.zeros_like(scores)


def choose_unknown_first(
    sampler: Sampler, scores: Tensor, k: int, generator: torch.Generator, column: Column
) -> Tensor:
    """Take samples without a score first, and let the sampler choose the rest.

    Args:
        sampler: Chooses among those that are scored.
        scores: float32 (n,); NaN and +inf are no score.
        k: Number to take.
        generator: Source of the random numbers.
        column: As for `Sampler.choose`, of all n samples.

    Returns:
        int64 (k,), positions, in any order.

    Example:
        >>> from lightning_dataselect.methods.samplers.by_order import Highest
        >>> scores = torch.tensor([1.0, float("nan"), 3.0])
        >>> choose_unknown_first(Highest(), scores, 2, torch.Generator().manual_seed(0), scores.new_zeros)
        tensor([1, 2])
    """
    unknown = is_unknown(scores)
    n_unknown = int(unknown.count_nonzero())
    if n_unknown == 0:
        return sampler.choose(scores, k, generator, column)
    if n_unknown >= k:
        return positions(uniform_among(unknown, k, generator))
    known = ~unknown
    chosen = sampler.choose(taken(scores, known), k - n_unknown, generator, lambda name: taken(column(name), known))
    of_known = mask_of(len(scores) - n_unknown, chosen)
    del chosen
    return positions(spread(of_known, known).logical_or_(unknown))


def is_unknown(scores: Tensor) -> Tensor:
    """Return where there is no score, bool (n,): NaN is never measured, +inf is broken."""
    return marked(len(scores), lambda part: scores[part].isnan().logical_or_(scores[part].isposinf()))
