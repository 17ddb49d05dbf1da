"""Choosing samples: pure functions on CPU tensors, O(N) in time and lean in memory.

Everything is exact in number, takes its random numbers from the `torch.Generator` that it is given,
and works through the data in parts, so that 100 million samples fit. The largest keys are found by
`radix` selection. What takes more than a byte a sample lies where `placement` says.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_dataselect.numerics.masks import places, positions, spread
from lightning_dataselect.numerics.parts import parts
from lightning_dataselect.numerics.placement import IN_MEMORY, placement
from lightning_dataselect.numerics.radix import kth_largest, ordered
from lightning_dataselect.numerics.shuffle import keys_of_positions
from lightning_dataselect.utils.errors import InvalidArgumentError

_FEWEST_KEYS = 2**20  # of more samples each has a random key, of fewer all stand in a random order


def uniform_subset(n: int, k: int, generator: torch.Generator) -> Tensor:
    """Draw ``k`` of ``n`` samples, every subset of that size being equally likely.

    Args:
        n: Number of samples.
        k: Number to choose, ``0 <= k <= n``.
        generator: Source of the random numbers.

    Returns:
        int64, shape (k,), sorted.

    Raises:
        ValueError: If ``k`` is outside [0, n].

    Example:
        >>> uniform_subset(4, 4, torch.Generator().manual_seed(0)).tolist()
        [0, 1, 2, 3]
    """
    return positions(_uniform_mask(n, k, generator))


def uniform_among(candidates: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw ``k`` of the samples that are candidates, every subset of that size being equally likely.

    Args:
        candidates: bool, shape (n,).
        k: Number to choose, from 0 to the number of candidates.
        generator: Source of the random numbers.

    Returns:
        bool, shape (n,), True for those chosen.

    Raises:
        ValueError: If ``k`` is negative, or there are fewer candidates.

    Example:
        >>> candidates = torch.tensor([False, True, True])
        >>> uniform_among(candidates, 2, torch.Generator().manual_seed(0)).tolist()
        [False, True, True]
    """
    return spread(_uniform_mask(int(candidates.count_nonzero()), k, generator), candidates)


def top_k(scores: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Take the ``k`` samples with the highest scores.

    NaN (never measured) and +inf (broken) come before every finite score. Ties are broken at
    random, not by index. Scores are ranked in float32.

    Args:
        scores: Shape (n,), any float or integer dtype.
        k: Number to choose, ``0 <= k <= n``.
        generator: Source of the random numbers for ties.

    Returns:
        int64, shape (k,), sorted by index.

    Raises:
        ValueError: If ``scores`` is not one-dimensional or ``k`` is outside [0, n].

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> top_k(torch.tensor([0.1, float("nan"), 0.3, 0.2]), 2, generator).tolist()
        [1, 2]
    """
    return positions(top_mask(scores, k, generator))


def top_mask(scores: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Mark the ``k`` samples that :func:`top_k` takes, bool (n,).

    Example:
        >>> top_mask(torch.tensor([0.1, 0.3, 0.2]), 2, torch.Generator().manual_seed(0)).tolist()
        [False, True, True]
    """
    _check_vector("scores", scores)
    return _top_mask(lambda part: ordered(scores[part]), len(scores), k, generator)


def top_among(scores: Tensor, candidates: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Take the ``k`` candidates with the highest scores, as :func:`top_k` does of all samples.

    Args:
        scores: Shape (n,), any float or integer dtype.
        candidates: bool, shape (n,).
        k: Number to choose, from 0 to the number of candidates.
        generator: Source of the random numbers for ties.

    Returns:
        bool, shape (n,), True for those chosen.

    Raises:
        ValueError: If ``k`` is negative, or there are fewer samples.

    Example:
        >>> candidates = torch.tensor([True, True, False, True])
        >>> top_among(torch.tensor([0.1, 0.2, 0.9, 0.3]), candidates, 2, torch.Generator()).tolist()
        [False, True, False, True]
    """
    nobody = torch.iinfo(torch.int32).min  # below the key of every score, -inf too

    def key(part: slice) -> Tensor:
        hidden = candidates[part].int().sub_(1)  # all bits of those that are none, without a branch
        return ordered(scores[part]).bitwise_and_(~hidden).bitwise_or_(hidden & nobody)

    return _top_mask(key, len(scores), k, generator)


def weighted_subset(p: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw ``k`` samples without replacement, one after another in proportion to ``p``.

    Exponential keys (Efraimidis and Spirakis 2006): the k largest of ``p_i / e_i`` with
    ``e_i ~ Exp(1)``. The exponentials have 53 random bits, so that rare samples stay rare among 100
    million. Samples of weight zero come only when nothing else is left; NaN (never measured)
    and +inf come first; ``p`` need not sum to 1.

    Args:
        p: Shape (n,), non-negative weights.
        k: Number to draw, ``0 <= k <= n``.
        generator: Source of the random numbers.

    Returns:
        int64, shape (k,), sorted by index.

    Raises:
        ValueError: If ``p`` is not one-dimensional or has a negative entry, or ``k`` is outside
            [0, n].

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> weighted_subset(torch.tensor([0.0, 2.0, 0.0, 1.0]), 2, generator).tolist()
        [1, 3]
    """
    _check_vector("p", p)
    return weighted_draw(lambda part: p[part], len(p), k, generator)


def weighted_draw(weights: Callable[[slice], Tensor], n: int, k: int, generator: torch.Generator) -> Tensor:
    """Draw as :func:`weighted_subset` does, by weights that are computed a part at a time, twice.

    Args:
        weights: Gives the weights of one part of the samples; see `parts`.
        n: Number of samples.
        k: Number to draw, ``0 <= k <= n``.
        generator: Source of the random numbers.

    Returns:
        int64, shape (k,), sorted by index.

    Example:
        >>> p = torch.tensor([0.0, 2.0, 0.0, 1.0])
        >>> weighted_draw(lambda part: p[part], 4, 2, torch.Generator().manual_seed(0)).tolist()
        [1, 3]
    """
    keys = placement().empty((n,), torch.int32)
    largest = max((_largest_finite(weights(part)) for part in parts(n)), default=0.0) or 1.0
    for part in parts(n):
        keys[part] = ordered(exponential_keys(weights(part).double() / largest, generator))
    return positions(_top_mask(lambda part: keys[part], n, k, generator))


def is_ascending(indices: Tensor) -> bool:
    """Return whether each of ``indices``, shape (k,), is greater than the one before.

    Example:
        >>> is_ascending(torch.tensor([1, 4, 5])), is_ascending(torch.tensor([1, 1]))
        (True, False)
    """
    before = parts(max(len(indices) - 1, 0))
    return all(bool((indices[part.start + 1 : part.stop + 1] > indices[part]).all()) for part in before)


def _check_k(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise InvalidArgumentError(f"k must lie between 0 and the number of samples, {n}, not {k}.")


def _check_vector(name: str, values: Tensor) -> None:
    if values.dim() != 1:
        raise InvalidArgumentError(f"{name} must have one dimension, not shape {tuple(values.shape)}.")


def exponential_keys(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the keys of :func:`weighted_subset`: samples of the largest ones are a draw in proportion to ``weights``.

    Args:
        weights: float64 (n,), none negative, the largest of all about 1.
        generator: Source of the random numbers.

    Returns:
        float64 (n,), above zero where the weight is, by as much as a float32 can tell.

    Example:
        >>> weights = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> exponential_keys(weights, torch.Generator().manual_seed(0)) > 0
        tensor([False,  True])
    """
    draws = torch.rand(len(weights), dtype=torch.float64, generator=generator)
    waits = draws.neg_().log1p_().neg_().clamp_(min=2.0**-54)  # a wait of zero must not occur
    # at least the least positive float32: a positive weight never ties with zero
    return torch.div(weights, waits, out=waits).clamp_(min=2.0**-149).masked_fill_(weights == 0, 0.0)


def _largest_finite(weights: Tensor) -> float:
    if bool((weights < 0).any()):
        raise InvalidArgumentError(f"Weights must not be negative, but one is {float(weights.min())}.")
    return float(torch.nan_to_num(weights, nan=0.0, posinf=0.0).max())


def _uniform_mask(n: int, k: int, generator: torch.Generator) -> Tensor:
    _check_k(k, n)
    if n <= _FEWEST_KEYS:
        # the first k of `random_order`, but for the order among them, which need not be sorted for it
        mask = torch.zeros(n, dtype=torch.bool)
        keys, position = keys_of_positions(n, generator)
        if 0 < k < n:
            keys.numpy().partition(k - 1)
        mask[keys[:k].bitwise_and_(position)] = True
        return mask
    keys = placement().empty((n,), torch.int32).random_(generator=generator)
    if k == n:
        return torch.ones(n, dtype=torch.bool)
    return _top_mask(lambda part: keys[part], n, k, generator)


def _top_mask(key: Callable[[slice], Tensor], n: int, k: int, generator: torch.Generator) -> Tensor:
    """Mark the ``k`` largest int32 keys, bool (n,); ``key`` gives one chunk of them at a time."""
    _check_k(k, n)
    mask = IN_MEMORY.full((n,), False, torch.bool)
    if k == 0:
        return mask
    limit, n_above, n_tied = kth_largest(key, n, k)
    lucky = _uniform_mask(n_tied, k - n_above, generator)
    used = 0
    for part in parts(n):
        keys = key(part)
        torch.gt(keys, limit, out=mask[part])
        tied = places(keys == limit)
        mask[part].index_copy_(0, tied, lucky[used : used + len(tied)])
        used += len(tied)
    return mask
