"""Find the Assistant's inputs, the raw input and the label of each sample, in the user's own batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_dataselect.data.batch_tree import Path, part_at, tensors_in
from lightning_dataselect.utils.errors import ArgumentTypeError, UnsupportedLoaderError

Kind = Literal["images", "tabular", "tokens"]
InputFinder = Callable[[Any], tuple[Tensor, Tensor | None]]
"""The user's own way to take ``(x, labels)`` out of a batch."""

_LABELS = ("labels", "label", "y", "targets", "target", "decoder_input_ids", "decoder_ids")
_TOKENS = ("input_ids", "tokens", "token_ids")
_MASK = "attention_mask"
_NO_INPUT = (_MASK, "token_type_ids", "position_ids", "special_tokens_mask", "idx", "index", "indices", "id", "ids")


@dataclass(frozen=True)
class SampleInputs:
    """The raw inputs of a batch, on the CPU.

    Attributes:
        x: (B, ...) float or uint8, or int64 (B, T) token ids, negative where masked.
        labels: int64 (B,) classes, or int64 (B, S) target tokens, negative where masked; None if there are none.
    """

    x: Tensor
    labels: Tensor | None

    def __getitem__(self, positions: Tensor) -> SampleInputs:
        """Return the inputs of the samples at ``positions``, int64 (b,)."""
        return SampleInputs(self.x[positions], None if self.labels is None else self.labels[positions])

    def clone(self) -> SampleInputs:
        """Return a copy that nobody else writes to."""
        return SampleInputs(self.x.clone(), None if self.labels is None else self.labels.clone())


class InputReader:
    """Take the inputs of the samples out of batches that are all made like the first one.

    Float or uint8 tensors of three and more axes are images, those of one or two are tabular, integer ones of two
    token ids. Of several the first one counts, or the one called ``input_ids``; labels are what is called so, or else
    the last tensor of integers, one a sample (or one row of tokens a sample where the input is tokens).

    Args:
        batch: The first batch.
        size: Number of its samples.
        finder: The user's own function of a batch, or None.

    Raises:
        TypeError: If no tensor of the batch can be an input, or ``finder`` returns none.

    Example:
        >>> reader = InputReader({"pixel_values": torch.rand(4, 3, 8, 8), "label": torch.arange(4)}, size=4)
        >>> reader.kind, reader.read({"pixel_values": torch.rand(2, 3, 8, 8), "label": torch.ones(2).long()}).labels
        ('images', tensor([1, 1]))
    """

    def __init__(self, batch: Any, size: int, finder: InputFinder | None = None) -> None:
        self._finder = finder
        if finder is None:
            tensors = {path: part for path, part in tensors_in(batch) if part.dim() and part.shape[0] == size}
            self._x = _input_path(tensors, batch, size)
            tokens = _kind(tensors[self._x]) == "tokens"
            self._labels = _label_path(tensors, self._x, tokens)
            self._mask = next((path for path in tensors if tokens and _name(path) == _MASK), None)
        self.kind = _checked_kind(self.read(batch).x, size)

    def read(self, batch: Any) -> SampleInputs:
        """Return the inputs of ``batch``, which share its memory."""
        if self._finder is not None:
            return _checked(self._finder(batch))
        x = part_at(batch, self._x)
        labels = None if self._labels is None else part_at(batch, self._labels).long()
        if self._mask is not None:
            x = torch.where(part_at(batch, self._mask).bool(), x, -1)
        return SampleInputs(x.cpu(), labels if labels is None else labels.cpu())


def _kind(tensor: Tensor) -> Kind | None:
    if tensor.is_floating_point() or (tensor.dtype == torch.uint8 and tensor.dim() > 2):
        return "images" if tensor.dim() > 2 else "tabular"
    whole = not tensor.is_complex() and tensor.dtype != torch.bool
    return "tokens" if whole and tensor.dim() == 2 else None


def _name(path: Path) -> str:
    return str(path[-1]).lower() if path else ""


def _input_path(tensors: Mapping[Path, Tensor], batch: Any, size: int) -> Path:
    possible = [p for p, t in tensors.items() if _kind(t) and _name(p) not in (*_LABELS, *_NO_INPUT)]
    if not possible:
        seen = ", ".join(f"{'.'.join(map(str, p)) or 'batch'}: {t.dtype} {tuple(t.shape)}" for p, t in tensors.items())
        raise UnsupportedLoaderError(
            f"The Assistant found no input in the batch ({type(batch).__name__} of {size} samples; with a sample axis:"
            f" {seen or 'nothing'}). It looks for a tensor of floats or bytes (B, ...) or of token ids (B, T). Give"
            " `inputs=`, a function of the batch that returns the tensors (x, labels), labels None if there are none."
        )
    return min(possible, key=lambda p: _name(p) not in _TOKENS)


def _label_path(tensors: Mapping[Path, Tensor], x: Path, tokens: bool) -> Path | None:
    def may_be(tensor: Tensor) -> bool:
        whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
        return whole and tensor.dim() <= (2 if tokens else 1)

    others = [p for p, t in tensors.items() if p != x and may_be(t) and _name(p) not in _NO_INPUT]
    named = [p for p in others if _name(p) in _LABELS]
    return named[0] if named else others[-1] if others else None


def _checked(found: object) -> SampleInputs:
    match found:
        case (Tensor() as x, None):
            return SampleInputs(x.detach().cpu(), None)
        case (Tensor() as x, Tensor() as labels):
            return SampleInputs(x.detach().cpu(), labels.detach().long().cpu())
    raise ArgumentTypeError(
        f"inputs= returned {type(found).__name__}: return two tensors (x, labels), labels may be None."
    )


def _checked_kind(x: Tensor, size: int) -> Kind:
    kind = _kind(x)
    if kind is None or x.shape[0] != size:
        raise ArgumentTypeError(
            f"inputs= returned x of dtype {x.dtype} and shape {tuple(x.shape)} for {size} samples: it must be floats or"
            " bytes (B, ...) or token ids (B, T), one row a sample."
        )
    return kind
