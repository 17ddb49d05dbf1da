"""Samples of a fit as a page can show them: images, text, or the numbers of a table; probable label errors first."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Sequence
from io import BytesIO
from textwrap import shorten
from typing import Any

import numpy as np
from PIL import Image

from lightning_dataselect.report.gallery import probable_errors, shown_of
from lightning_dataselect.state.class_history import UNKNOWN
from lightning_dataselect.state.results import Results

N_OF_EACH = 8
_SUSPECTS = {True: "probable label errors", False: "highest mean loss, the target may be wrong"}
_PIXELS = 72
_LETTERS = 160
_NUMBERS = 6


def specimens(
    selector: Results, dataset: Any, predict: Callable[[Any], float | None], n: int = N_OF_EACH
) -> list[dict[str, Any]]:
    """Return groups of samples, each with what is known of them.

    First those that are probably labelled wrong, by :mod:`~lightning_dataselect.state.suspects`: with classes, where
    the label was on average behind another class; without, the highest mean losses. Then, with classes, those most
    often forgotten; those most often dropped; the easiest.

    Args:
        selector: After a fit.
        dataset: What was trained on.
        predict: Gives one number for an item, or None; asked where no classes are known.
        n: How many of each group.

    Returns:
        Groups with `name` and `items`; an item has `index`, `loss`, and, as far as they are known, `label`,
        `predicted`, `target`, `suspicion` (of a probable label error), and `image` (a data URI), `text` or `numbers`.
    """
    plain, names = without_transforms(dataset), class_names(dataset)
    suspicion = {suspect.index: {"suspicion": suspect.suspicion} for suspect in probable_errors(selector, n)}
    groups = [(_SUSPECTS[selector.store.knows_classes], list(suspicion)), *_groups(selector, n, list(suspicion))]
    return [
        {
            "name": name,
            "items": [
                _item(selector, index, dataset, plain, names, predict)
                | (suspicion.get(index, {}) if position == 0 else {})
                for index in indices
            ],
        }
        for position, (name, indices) in enumerate(groups)
        if indices
    ]


def _groups(selector: Results, n: int, suspects: Sequence[int]) -> list[tuple[str, list[int]]]:
    store, losses = selector.store, selector.losses
    known = losses.isfinite().nonzero()[:, 0]
    by_loss = known[losses[known].argsort(descending=True, stable=True)]
    dropped = store.column("times_dropped")
    often = by_loss[dropped[by_loss].argsort(descending=True, stable=True)]
    others = [
        ("most often dropped", often[dropped[often] > 0][:n].tolist()),
        ("easiest" if store.knows_classes else "lowest loss", by_loss.flip(0)[:n].tolist()),
    ]
    if not store.knows_classes:
        return others
    forgotten = store.column("times_forgotten")
    lost = by_loss[forgotten[by_loss].argsort(descending=True, stable=True)]
    lost_others = [i for i in lost[forgotten[lost] > 0].tolist() if i not in suspects]
    return [("most often forgotten", lost_others[:n]), *others]


def _item(
    selector: Results,
    index: int,
    dataset: Any,
    plain: Any,
    names: Sequence[str] | None,
    predict: Callable[[Any], float | None],
) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "loss": float(selector.losses[index])}
    try:
        sample = plain[index]
    except Exception:
        sample = None
    store = selector.store
    if store.knows_classes:
        for name in ("label", "predicted"):
            found[name] = _named(int(store.column(name)[index]), names)
    else:
        found["target"] = target_of(sample)
        try:
            found["predicted"] = predict(dataset[index])
        except Exception:
            found["predicted"] = None
    try:
        shown = shown_of(sample)
    except ValueError:
        numbers = _numbers(sample)
        if numbers is not None:
            found["numbers"] = numbers
        return found
    if isinstance(shown, str):
        found["text"] = shorten(shown, _LETTERS, placeholder=" …")
    else:
        found["image"] = as_uri(shown)
    return found


def without_transforms(dataset: Any) -> Any:
    """Return the data set as it is before augmentation, where it is known how: without torchvision's `transform`.

    Args:
        dataset: Left as it is; a copy without transforms is returned if its items can still be read.
    """
    if not (getattr(dataset, "transform", None) or getattr(dataset, "transforms", None)):
        inner = getattr(dataset, "dataset", None)
        if inner is None or not hasattr(dataset, "indices"):
            return dataset
        copied = copy.copy(dataset)
        copied.dataset = without_transforms(inner)
        return copied
    copied = copy.copy(dataset)
    for name in ("transform", "transforms"):
        if hasattr(copied, name):
            setattr(copied, name, None)
    try:
        shown_of(copied[0])
    except Exception:
        return dataset
    return copied


def class_names(dataset: Any) -> Sequence[str] | None:
    """Return the names of the classes, where the data set holds them as torchvision's do, in `classes`."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return names
        dataset = getattr(dataset, "dataset", None)
    return None


def target_of(sample: Any) -> float | None:
    """Return the number that a sample of a regression is to be, its second part; None if that is no single number.

    Example:
        >>> target_of((np.zeros(3), np.array([2.5]))), target_of((np.zeros(3), np.zeros(2)))
        (2.5, None)
    """
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        return None
    try:
        target = np.asarray(sample[1], dtype=float)
    except (TypeError, ValueError):
        return None
    return float(target.reshape(-1)[0]) if target.size == 1 else None


def _named(label: int, names: Sequence[str] | None) -> str | None:
    if label == UNKNOWN:
        return None
    return names[label] if names is not None and 0 <= label < len(names) else str(label)


def _numbers(sample: Any) -> str | None:
    first = sample[0] if isinstance(sample, tuple | list) and len(sample) else sample
    try:
        values = np.asarray(first, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        return None
    return ", ".join(f"{value:.3g}" for value in values[:_NUMBERS]) + (", …" if len(values) > _NUMBERS else "")


def as_uri(pixels: np.ndarray) -> str:
    """Return a PNG of a picture as a data URI, without padding that takes up most of it, and enlarged to be seen.

    Args:
        pixels: (H, W) or (H, W, C) with C = 1 or 3, from 0 to 1.

    Example:
        >>> as_uri(np.ones((2, 2)))[:22]
        'data:image/png;base64,'
    """
    array = (255 * _without_border(pixels)).round().astype(np.uint8)
    image = Image.fromarray(array.squeeze(-1) if array.ndim == 3 and array.shape[-1] == 1 else array)
    scale = _PIXELS / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = BytesIO()
    image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _without_border(pixels: np.ndarray) -> np.ndarray:
    """Without the rows and columns at the edges that are black throughout, if these are more than half of the pixels.

    A dark margin is a part of the picture: digits that were cut to their strokes could not be told apart.
    """
    lit = pixels if pixels.ndim == 2 else pixels.max(-1)
    rows, columns = (np.flatnonzero(lit.max(axis) > 0) for axis in (1, 0))
    if not len(rows):
        return pixels
    within = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return pixels if 2 * within.size >= pixels.size else within
