"""What is kept of scored samples: each sampler is a way to take ``k`` of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets, target_probability
from lightning_dataselect.methods.scores.presentations import average
from lightning_dataselect.numerics.quotas import quotas
from lightning_dataselect.numerics.sampling import top_k, uniform_subset, weighted_subset
from lightning_dataselect.numerics.strata import stratified_subset
from lightning_dataselect.state.selection import Observation, class_targets
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_count, check_positive, check_share

Column: TypeAlias = Callable[[str], Tensor]
"""Gives a column of the samples that are chosen among, float32 (n,), on the CPU."""

_N_ANCHORS = 10  # the authors': the samples of highest score whose mean probability places DUAL's Beta density
_MARGIN = 1e-6  # from 0 and 1, where a Beta density may be infinite


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
        >>> scores = torch.tensor([1.0, float("nan"), 3.0])
        >>> choose_unknown_first(Highest(), scores, 2, torch.Generator().manual_seed(0), scores.new_zeros)
        tensor([1, 2])
    """
    unknown = is_unknown(scores)
    n_unknown = int(unknown.sum())
    if n_unknown == 0:
        return sampler.choose(scores, k, generator, column)
    known, unknown = (~unknown).nonzero().squeeze(1), unknown.nonzero().squeeze(1)
    if n_unknown >= k:
        return unknown[uniform_subset(n_unknown, k, generator)]
    chosen = sampler.choose(scores[known], k - n_unknown, generator, lambda name: column(name)[known])
    return torch.cat([unknown, known[chosen]])


def is_unknown(scores: Tensor) -> Tensor:
    """Return where there is no score, bool (n,): NaN is never measured, +inf is broken."""
    return scores.isnan() | scores.isposinf()


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
    """Draw any samples, whatever their scores: with one subset for good the static random baseline."""

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


def _highest_share(scores: Tensor, share: float, at_most: int, generator: torch.Generator) -> Tensor:
    """Return which samples are among the highest ``share``, but for no more than ``at_most``, bool (n,)."""
    is_highest = torch.zeros(len(scores), dtype=torch.bool)
    is_highest[top_k(scores, min(math.floor(round(share * len(scores), 6)), at_most), generator)] = True
    return is_highest


def _line_below(scores: Tensor, share: float, line: Tensor) -> Tensor:
    """Return ``line`` with the highest ``share`` of all scores at its end."""
    generator = torch.Generator().manual_seed(0)
    return line.masked_fill(_highest_share(scores, share, len(scores), generator), -math.inf)


@dataclass(frozen=True)
class Window(Sampler):
    """Take the highest scores but for those above a window.

    Args:
        start: Share of all samples that are left out because their scores are higher still, in [0, 1]. Default 0.1,
            our choice. Never so many that fewer than ``k`` are left.
    """

    start: float = 0.1

    def __post_init__(self) -> None:
        check_share("start", self.start)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Take the top of what is not above the window."""
        rest = (~_highest_share(scores, self.start, len(scores) - k, generator)).nonzero().squeeze(1)
        return rest[top_k(scores[rest], k, generator)]

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let those just below the window follow."""
        return _line_below(scores, self.start, scores)


@dataclass(frozen=True)
class Stratified(Sampler):
    """Draw evenly from strata of the score, without the highest; see `lightning_dataselect.methods.ccs`.

    Args:
        n_strata: Number of strata, of equal width. Default 50, the authors'.
        cutoff: Share of all samples that is dropped for the highest scores first, in [0, 1], where mislabelled samples
            are; never more than are dropped in all. Default 0.1, our choice: the authors tune it for each ratio, to 0.3
            for CIFAR-10 with nine tenths dropped.
    """

    n_strata: int = 50
    cutoff: float = 0.1

    def __post_init__(self) -> None:
        check_count("n_strata", self.n_strata, minimum=1)
        check_share("cutoff", self.cutoff)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Cut off the highest, and draw."""
        rest = (~_highest_share(scores, self.cutoff, len(scores) - k, generator)).nonzero().squeeze(1)
        return rest[stratified_subset(scores[rest], k, self.n_strata, generator)]

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let any that is not cut off follow."""
        return _line_below(scores, self.cutoff, torch.zeros_like(scores))


@dataclass(frozen=True)
class Beta(Sampler):
    """Draw by score x Beta density of the target's mean probability; see `lightning_dataselect.methods.dual`.

    Args:
        exponent: Of the prune ratio, c_D: the higher, the later the density moves to easy samples. Default 4, that of
            the authors' code.
        concentration: C; the density's parameters sum to C + 1. Default 15, the authors'.
    """

    exponent: float = 4.0
    concentration: float = 15.0

    draws_by_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("exponent", self.exponent)
        check_positive("concentration", self.concentration)

    def columns(self) -> dict[str, float]:
        """Name the columns of the target's mean probability, and of how often it was measured."""
        return {"probability": math.nan, "probability_count": 0.0}

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Average the target's probability."""
        p = target_probability(*logits_and_targets(seen, "sampler='beta'"))
        average(store, "probability", "probability_count", seen.indices, p)

    def choose(self, scores: Tensor, k: int, generator: torch.Generator, column: Column) -> Tensor:
        """Draw by weight."""
        return weighted_subset(self._weights(scores, 1 - k / max(len(scores), 1), column), k, generator)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the highest scores of the others follow."""
        return scores

    def _weights(self, scores: Tensor, prune_ratio: float, column: Column) -> Tensor:
        means = column("probability").double().nan_to_num(0.5)
        return beta_weights(scores, means, prune_ratio, self.exponent, self.concentration)


def beta_weights(scores: Tensor, means: Tensor, prune_ratio: float, exponent: float, concentration: float) -> Tensor:
    """Return each sample's score times the Beta density of its mean probability, up to a common factor.

    Args:
        scores: float32 (n,), not negative.
        means: float64 (n,), the mean probability of each sample's target.
        prune_ratio: Share that is dropped, r.
        exponent: c_D.
        concentration: C.

    Returns:
        float64 (n,).

    Example:
        >>> means = torch.tensor([0.2, 0.9], dtype=torch.float64)
        >>> hard, easy = beta_weights(torch.ones(2), means, 0.95, 4.0, 15.0)
        >>> bool(easy > hard)
        True
    """
    anchors = scores.topk(min(_N_ANCHORS, len(scores))).indices
    mu = float(means[anchors].mean()) if len(scores) else 0.0
    b = max(concentration * (1 - mu) * (1 - prune_ratio**exponent), _MARGIN)
    a = max(concentration + 1 - b, _MARGIN)
    inside = means.clamp(_MARGIN, 1 - _MARGIN)
    log_density = (a - 1) * inside.log() + (b - 1) * (1 - inside).log()
    return (log_density - log_density.amax() if len(scores) else log_density).exp() * scores


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
