"""Beta: draw by score x Beta density of the target's mean probability; see `lightning_dataselect.methods.dual`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets, target_probability
from lightning_dataselect.methods.samplers.base import Column, Sampler
from lightning_dataselect.methods.scores.presentations import average
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.sampling import weighted_draw
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.validation import check_positive

_N_ANCHORS = 10  # the authors': the samples of highest score whose mean probability places DUAL's Beta density
_MARGIN = 1e-6  # from 0 and 1, where a Beta density may be infinite


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
        if len(scores) == 0:
            return torch.zeros(0, dtype=torch.int64)
        weights = beta_weights(scores, column("probability"), 1 - k / len(scores), self.exponent, self.concentration)
        return weighted_draw(weights, len(scores), k, generator)

    def line_up(self, scores: Tensor, column: Column) -> Tensor:
        """Let the highest scores of the others follow."""
        return scores


def beta_weights(
    scores: Tensor, means: Tensor, prune_ratio: float, exponent: float, concentration: float
) -> Callable[[slice], Tensor]:
    """Return each sample's score times the Beta density of its mean probability, up to a common factor.

    Args:
        scores: float32 (n,), n of at least 1, not negative.
        means: (n,), the mean probability of each sample's target; NaN, never measured, counts as 1/2.
        prune_ratio: Share that is dropped, r.
        exponent: c_D.
        concentration: C.

    Returns:
        Gives those of one part of the samples, float64; see `parts`.

    Example:
        >>> means = torch.tensor([0.2, 0.9], dtype=torch.float64)
        >>> hard, easy = beta_weights(torch.ones(2), means, 0.95, 4.0, 15.0)(slice(None))
        >>> bool(easy > hard)
        True
    """
    mu = float(_known(means[_anchors(scores)]).mean())
    b = max(concentration * (1 - mu) * (1 - prune_ratio**exponent), _MARGIN)
    a = max(concentration + 1 - b, _MARGIN)

    def log_density(part: slice) -> Tensor:
        inside = _known(means[part]).clamp_(_MARGIN, 1 - _MARGIN)
        return inside.log().mul_(a - 1).add_(inside.neg_().add_(1).log_().mul_(b - 1))

    greatest = max(float(log_density(part).max()) for part in parts(len(scores)))
    return lambda part: log_density(part).sub_(greatest).exp_().mul_(scores[part])


def _known(means: Tensor) -> Tensor:
    return means.double().nan_to_num(0.5)


def _anchors(scores: Tensor) -> Tensor:
    """Return the samples of the highest scores."""
    best = [scores[part].topk(min(_N_ANCHORS, part.stop - part.start)) for part in parts(len(scores))]
    places = torch.cat([one.indices + part.start for one, part in zip(best, parts(len(scores)), strict=True)])
    return places[torch.cat([one.values for one in best]).topk(min(_N_ANCHORS, len(scores))).indices]
