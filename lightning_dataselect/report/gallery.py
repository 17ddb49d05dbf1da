"""The hardest and the easiest samples, to look at."""

from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_dataselect.report.figures import blank_figure


def gallery(dataset: Sized, scores: Tensor, n: int = 8) -> Figure:
    """The samples with the highest and with the lowest scores, as pictures.

    Args:
        dataset: Its samples begin with an image: (H, W), (C, H, W) or (H, W, C), C = 1 or 3.
        scores: float32 (N,), NaN = never measured; such samples are left out.
        n: How many of each kind.

    Raises:
        ValueError: If a sample does not begin with an image.
    """
    known = torch.isfinite(scores).nonzero()[:, 0]
    order = known[scores[known].argsort(descending=True)]
    n = min(n, len(order))
    figure = blank_figure(1.2 * max(n, 1) + 0.6, 3.6)
    panels = figure.subplots(2, max(n, 1), squeeze=False)
    for row, name, chosen in zip(panels, ("highest", "lowest"), (order[:n], order.flip(0)[:n]), strict=True):
        for panel in row:
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, size=11)
        for panel, i in zip(row, chosen.tolist(), strict=False):
            sample = dataset[i]  # type: ignore[index]
            image = sample[0] if isinstance(sample, tuple | list) else sample
            panel.imshow(_pixels(image), cmap="gray")
            panel.set_title(f"#{i}\n{float(scores[i]):.3g}", size=8)
    figure.suptitle("Highest and lowest scores (index, score)", x=0.01, ha="left", size=12)
    return figure


def _pixels(image: Any) -> np.ndarray:
    array = np.asarray(image, dtype=np.float64)
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3)):
        raise ValueError(f"gallery: a sample of shape {array.shape} is no image; (H, W), (C, H, W) and (H, W, C) are.")
    low, high = array.min(), array.max()
    return (array - low) / ((high - low) or 1.0)
