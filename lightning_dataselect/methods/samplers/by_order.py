"""Samplers that go by the order of the scores, or draw by the scores themselves, or by nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.samplers.base import Column, Sampler
from lightning_dataselect.numerics.masks import positions, spread, taken
from lightning_dataselect.numerics.sampling import (
    top_among,
    top_k,
    top_mask,
    uniform_subset,
    weighted_subset,
)
from lightning_dataselect.numerics.strata import stratified_subset
from lightning_dataselect.utils.validation import check_count, check_share


@dataclass(frozen=True)
class Highest(Sampler):
    """Take the highest scores, ties at random."""

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Take the top."""
        return top_k(scores, k, generator)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the next highest follow."""
        return scores


@dataclass(frozen=True)
class Lowest(Sampler):
    """Take the lowest scores, ties at random."""

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Take the bottom."""
        return top_k(-scores.clamp(min=torch.finfo(scores.dtype).min), k, generator)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the next lowest follow."""
        return -scores


@dataclass(frozen=True)
class Uniform(Sampler):
    """Draw samples uniformly, whatever their scores: the static random baseline if drawn only once."""

    reads_scores: ClassVar[bool] = False

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Draw uniformly."""
        return uniform_subset(len(scores), k, generator)


@dataclass(frozen=True)
class Proportional(Sampler):
    """Draw without replacement in proportion to the score, which must not be negative."""

    draws_by_score: ClassVar[bool] = True

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Draw by weight."""
        return weighted_subset(scores, k, generator)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the highest of the others follow."""
        return scores


@dataclass(frozen=True)
class Window(Sampler):
    """Take the highest scores below a window.

    Args:
        start: Share of all samples that are left out because their scores are higher still, in [0, 1]. Default 0.1,
            our choice. Never so many that fewer than ``k`` are left.
    """

    start: float = 0.1

    def __post_init__(self) -> None:
        check_share("start", self.start)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Take the top of what is not above the window."""
        rest = ~_highest_share(scores, self.start, len(scores) - k, generator)
        return positions(top_among(scores, rest, k, generator))

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let those just below the window follow."""
        return _line_below(scores, self.start, scores)


@dataclass(frozen=True)
class Stratified(Sampler):
    """Draw evenly from strata of the score, without the highest; see `lightning_dataselect.methods.ccs`.

    Args:
        n_strata: Number of strata, of equal width. Default 50, the authors'.
        cutoff: Share of all samples, in [0, 1], that is dropped first: those with the highest scores, among which are
            mislabelled ones. Never more than are dropped in all. Default 0.1, our choice: the authors tune it for each
            ratio, to 0.3 for CIFAR-10 with nine tenths dropped.
    """

    n_strata: int = 50
    cutoff: float = 0.1

    def __post_init__(self) -> None:
        check_count("n_strata", self.n_strata, minimum=1)
        check_share("cutoff", self.cutoff)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Cut off the highest, and draw."""
        rest = ~_highest_share(scores, self.cutoff, len(scores) - k, generator)
        return positions(spread(stratified_subset(taken(scores, rest), k, self.n_strata, generator), rest))

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let any that is not cut off follow."""
        return _line_below(scores, self.cutoff, torch.zeros_like(scores))


def _highest_share(scores: Tensor, share: float, at_most: int, generator: torch.Generator) -> Tensor:
    """Return which samples are among the highest ``share``, but for no more than ``at_most``, bool (n,)."""
    return top_mask(scores, min(math.floor(round(share * len(scores), 6)), at_most), generator)


def _line_below(scores: Tensor, share: float, line: Tensor) -> Tensor:
    """Return ``line`` with the highest ``share`` of all scores at its end."""
    generator = torch.Generator().manual_seed(0)
    return line.masked_fill(_highest_share(scores, share, len(scores), generator), -math.inf)
