"""Make the images of a batch smaller, for a pass that only scores."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lightning_dataselect.utils.errors import UnreadableStepError


def scale_images(batch: Any, factor: float) -> Any:
    """Return a batch whose images are resized bilinearly, with everything else unchanged.

    Args:
        batch: Tensors in dicts, lists and tuples. Float tensors of four dimensions are images, (B, C, H, W).
        factor: Factor on height and width.

    Raises:
        UnreadableStepError: If there is no image.

    Example:
        >>> import torch
        >>> images, labels = scale_images([torch.zeros(2, 3, 8, 6), torch.tensor([0, 1])], 0.5)
        >>> tuple(images.shape), labels.tolist()
        ((2, 3, 4, 3), [0, 1])
    """
    found: list[Tensor] = []
    scaled = _scaled(batch, factor, found)
    if not found:
        raise UnreadableStepError(
            f"score_scale={factor!r} found no images in the batch: no float tensor of four dimensions, (batch,"
            " channels, height, width), in its dicts, lists and tuples. Leave score_scale out, or yield such a batch."
        )
    return scaled


def _scaled(part: Any, factor: float, found: list[Tensor]) -> Any:
    if isinstance(part, Tensor) and part.dim() == 4 and part.is_floating_point():
        found.append(part)
        return F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
    if type(part) is dict:
        return {key: _scaled(value, factor, found) for key, value in part.items()}
    if type(part) in (list, tuple):
        return type(part)(_scaled(value, factor, found) for value in part)
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_scaled(value, factor, found) for value in part))
    return part
