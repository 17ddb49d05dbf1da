"""A fixed random projection of wide outputs to a bounded width, which keeps distances in expectation.

A count sketch (Charikar, Chen, Farach-Colton 2002): each number is given a sign, and those that fall into the same of
``width`` places are added up. For a difference ``d`` of two vectors, ``E |sketch(d)|^2 = |d|^2``, with a relative
standard deviation of about ``sqrt(2 / width)``. It costs one look at each number, and no stored matrix: signs are
hashes of places, the same for every batch, rank and run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, odd, as int64
_MIX = -4658895280553007687
_COLUMNS, _ROWS = 0x51ED27, 0x2C1B3C


def project(values: Tensor, width: int, valid: Tensor | None = None, largest: float = math.inf) -> Tensor:
    """Project the outputs of each sample to ``width`` numbers.

    The mean square of the result is, in expectation, the mean square of a sample's valid values. A sample with one
    vector of ``width`` numbers is returned as it is.

    Args:
        values: (B, T, C), T vectors a sample; T may change from batch to batch.
        width: Numbers kept a sample, D.
        valid: bool (B, T), False for vectors to leave out; None: none.
        largest: Numbers of a greater magnitude count as 0.

    Returns:
        float32 (B, D).

    Example:
        >>> project(torch.tensor([[[1.0, 2.0, 3.0]]]), 3)
        tensor([[1., 2., 3.]])
        >>> project(torch.ones(2, 7, 50), 16).shape
        torch.Size([2, 16])
    """
    n_samples, n_vectors, n_classes = values.shape
    if valid is None:
        n_valid = values.new_full((n_samples, 1), n_vectors, dtype=torch.float32)
    else:
        n_valid = valid.sum(1, keepdim=True).clamp(min=1).float()
    if n_classes < width:  # or short vectors would meet in the first few places
        if valid is not None:
            values = values.masked_fill(~valid.unsqueeze(2), 0)
        values, valid = values.flatten(1).unsqueeze(1), None
    kept = values.new_zeros(*values.shape[:2], width, dtype=torch.float32)
    blocks = -(-values.shape[2] // width)
    for sign, block in zip(_signs(blocks, width, _COLUMNS, values.device), values.split(width, 2), strict=True):
        bounded = torch.where(block.abs() > largest, 0.0, block)
        kept[..., : block.shape[2]] += bounded * sign[: block.shape[2]]
    if valid is not None:
        kept = kept.masked_fill(~valid.unsqueeze(2), 0)
    kept = (kept * _signs(kept.shape[1], width, _ROWS, values.device)).sum(1)
    return kept * (width / (n_valid * n_classes)).sqrt()


def _signs(rows: int, width: int, salt: int, device: torch.device) -> Tensor:
    """Return signs, float32 (rows, width), +1 in the first row; a longer table begins as a shorter one."""
    place = torch.arange(rows * width, device=device) + salt
    place = (place * _GOLDEN) ^ ((place * _GOLDEN) >> 29)
    place = (place * _MIX) ^ ((place * _MIX) >> 32)
    signs = 1.0 - 2.0 * ((place * _GOLDEN) >> 40 & 1)
    signs = signs.view(rows, width)
    signs[0] = 1.0
    return signs
