"""The suspects, the hardest, the easiest and the most often forgotten samples, as pictures or lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_dataselect.report.figures import blank_figure, plot_selector
from lightning_dataselect.state.class_history import UNKNOWN
from lightning_dataselect.state.suspects import Suspect, most_suspicious
from lightning_dataselect.utils.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lightning_dataselect.state.results import Results

Decode = Callable[[Any], str]
_N_PICTURES, _N_TEXTS = 10, 6
_LINE = 110


@dataclass(frozen=True)
class Row:
    """Some samples of one kind.

    Attributes:
        name: What they are, such as `hardest`.
        indices: Of the samples.
        notes: What is said of each.
    """

    name: str
    indices: list[int]
    notes: list[str]


def probable_errors(selector: Results, n: int) -> list[Suspect]:
    """Return the most suspicious samples; with classes only those whose label was on average behind another class."""
    found = most_suspicious(selector.store, n)
    return [suspect for suspect in found if suspect.mean_margin is None or suspect.mean_margin < 0]


def rows_of(selector: Results, n: int) -> list[Row]:
    """The probable label errors of a fit, the extreme samples by their last loss, and those most often forgotten.

    Where classes are unknown, those most often dropped; a row that would be empty is left out.

    Args:
        selector: During or after a fit.
        n: How many of each kind.

    Raises:
        ValueError: If no sample was measured.
    """
    store, losses = selector.store, selector.losses
    known = losses.isfinite().nonzero()[:, 0]
    if not len(known):
        raise InvalidArgumentError(
            f"plot('gallery'): {type(selector).__name__} has seen no loss of any sample, so none is hard or easy."
        )
    order = known[losses[known].argsort(descending=True, stable=True)]
    chosen: list[tuple[str, Tensor, list[str] | None]]
    chosen = []
    if store.knows_classes and (suspects := probable_errors(selector, n)):
        against = [f"{100 * suspect.suspicion:.0f} % against its label" for suspect in suspects]
        chosen.append(("probable label errors", torch.tensor([suspect.index for suspect in suspects]), against))
    chosen += [("hardest", order[:n], None), ("easiest", order.flip(0)[:n], None)]
    for name, verb in (("times_forgotten", "forgotten"), ("times_dropped", "dropped")):
        if name not in store:
            continue
        times = store.column(name)
        often = order[times[order].argsort(descending=True, stable=True)][:n]
        often = often[times[often] > 0]
        if len(often):
            chosen.append((f"most often {verb}", often, [f"{verb} {int(times[i])}x" for i in often]))
            break
    rows = []
    for name, indices, said in chosen:
        said = said or [f"loss {float(losses[i]):.3g}" for i in indices]
        classes = _classes(selector, indices)
        rows.append(Row(name, indices.tolist(), [note + of for note, of in zip(said, classes, strict=True)]))
    return rows


def _classes(selector: Results, indices: Tensor) -> list[str]:
    """Of each sample its label, and the class that it was taken for if that is another; nothing if they are unknown."""
    store = selector.store
    if not store.knows_classes:
        return [""] * len(indices)
    labels, predicted = store.column("label")[indices].tolist(), store.column("predicted")[indices].tolist()
    return [
        "" if label == UNKNOWN else f", label {label}" + ("" if taken == label else f", taken for {taken}")
        for label, taken in zip(labels, predicted, strict=True)
    ]


def plot_results(selector: Results, kind: str, dataset: Any = None, decode: Decode | None = None) -> Figure:
    """Draw the figure behind `DataSelector.plot`.

    Args:
        selector: During or after a fit.
        kind: `gallery`, or one of `plot_selector`.
        dataset: For the gallery; None takes the training set itself, while somebody holds it.
        decode: Makes a string of token ids.

    Raises:
        ValueError: If there is no such kind, no data set to show, or nothing in it that can be shown.
    """
    if kind != "gallery":
        return plot_selector(selector, kind)
    dataset = selector.run_state.training_set.dataset if dataset is None else dataset
    if dataset is None:
        raise InvalidArgumentError(
            "plot('gallery'): the training set is no longer in memory; pass it, as plot('gallery', dataset=...)."
        )
    return gallery(selector, dataset, decode)


def gallery(selector: Results, dataset: Any, decode: Decode | None = None) -> Figure:
    """The probable label errors, the hardest, the easiest and the most often forgotten, as pictures or as text.

    Args:
        selector: During or after a fit.
        dataset: What was trained on. Of each sample, or of the first of its parts that fits, is shown: an image,
            (H, W), (C, H, W) or (H, W, C) with C = 1 or 3, or a PIL image; a string; or token ids, integers (T,).
        decode: Makes a string of token ids, such as `tokenizer.decode`.

    Raises:
        ValueError: If no sample was measured, or the samples are neither images nor text.
    """
    first = shown_of(dataset[0], decode)
    as_text = isinstance(first, str)
    rows = rows_of(selector, _N_TEXTS if as_text else _N_PICTURES)
    title = f"{type(selector).__name__}: samples to look at"
    return _texts(rows, dataset, decode, title) if as_text else _pictures(rows, dataset, title)


def _pictures(rows: Sequence[Row], dataset: Any, title: str) -> Figure:
    columns = max(len(row.indices) for row in rows)
    figure = blank_figure(max(1.15 * columns + 0.5, 7.5), 1.85 * len(rows) + 0.5)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for row, of_row in zip(rows, panels, strict=True):
        for panel in of_row:
            panel.set(xticks=[], yticks=[])
            panel.set_visible(False)
        of_row[0].set_ylabel(row.name.replace("often ", "often\n").replace("label ", "label\n"), size=10)
        for i, note, panel in zip(row.indices, row.notes, of_row, strict=False):
            panel.set_visible(True)
            panel.imshow(shown_of(dataset[i], None), cmap="gray")
            panel.set_title("\n".join([f"#{i}", *note.split(", ")]), size=7)
    figure.suptitle(title, x=0.01, ha="left", size=11)
    return figure


def _texts(rows: Sequence[Row], dataset: Any, decode: Decode | None, title: str) -> Figure:
    n_lines = sum(len(row.indices) + 1.6 for row in rows)
    figure = blank_figure(12.0, 0.24 * n_lines + 0.6)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(n_lines, -0.4))
    axes.axis("off")
    line = 0.0
    for row in rows:
        axes.text(0, line, row.name, weight="bold", size=10, va="top")
        for i, note in zip(row.indices, row.notes, strict=True):
            line += 1
            # what a text holds is the user's: a dollar must not begin a formula
            said = shorten(str(shown_of(dataset[i], decode)), _LINE, placeholder=" …")
            axes.text(0.01, line, f"#{i}  {note}", size=8, va="top", color="#555555")
            axes.text(0.24, line, said, size=8, va="top", parse_math=False)
        line += 1.6
    figure.suptitle(title, x=0.01, ha="left", size=11)
    return figure


def shown_of(sample: Any, decode: Decode | None = None) -> np.ndarray | str:
    """The image or the text that a sample is, or the first of its parts that is one."""
    for part in _parts(sample):
        if isinstance(part, str):
            return part
        array = _as_array(part)
        if array is None:
            continue
        if array.ndim == 1 and array.size > 1 and np.issubdtype(array.dtype, np.integer):
            return decode(part) if decode is not None else " ".join(map(str, array))
        if (pixels := _pixels(array)) is not None:
            return pixels
    raise InvalidArgumentError(
        f"plot('gallery'): a sample of the data set ({_described(sample)}) is neither an image, (H, W), (C, H, W) or"
        " (H, W, C) with C = 1 or 3, nor a string, nor token ids. Give dataset= one whose samples are, in the same"
        " order."
    )


def _parts(sample: Any) -> Iterator[Any]:
    if isinstance(sample, Mapping):
        parts = list(sample.values())
    elif isinstance(sample, tuple | list) and not (sample and isinstance(sample[0], int)):
        parts = list(sample)
    else:
        parts = [sample]
    # what a person reads comes before what it was made into
    yield from sorted(parts, key=lambda part: not isinstance(part, str))


def _as_array(part: Any) -> np.ndarray | None:
    try:
        array = np.asarray(
            part.detach().cpu().float() if isinstance(part, Tensor) and part.is_floating_point() else part
        )
    except (TypeError, ValueError):
        return None
    return array if np.issubdtype(array.dtype, np.number) or array.dtype == bool else None


def _pixels(array: np.ndarray) -> np.ndarray | None:
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3)):
        return None
    array = array.astype(np.float64)
    low, high = array.min(), array.max()
    return (array - low) / ((high - low) or 1.0)


def _described(sample: Any) -> str:
    parts = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, tuple | list) else [sample]
    return ", ".join(f"{type(part).__name__} {tuple(getattr(part, 'shape', ())) or ''}".strip() for part in parts)
