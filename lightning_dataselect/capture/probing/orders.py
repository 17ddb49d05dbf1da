"""Tell which calls sort, rank or pick the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.capture.recording.picks import covers, tensors_among

SORTING = {"sort", "argsort", "msort", "topk"}


# The argument that says along which axis a call ranks, and its default; None: all entries.
_RANKING: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("sort", "argsort"), (1, -1)),
    **dict.fromkeys(("topk", "kthvalue"), (2, -1)),
    **dict.fromkeys(("median", "nanmedian"), (1, None)),
    **dict.fromkeys(("quantile", "nanquantile"), (2, None)),
    "msort": (1, 0),
}


COMPARING = {
    name for of in ("ge", "gt", "le", "lt") for name in (of, f"__{of}__", f"{of}_")
} | {"greater_equal", "greater", "less_equal", "less"}  # fmt: skip


class Orders:
    """Note what a step sorts, and in which order it takes the rows of its samples.

    Attributes:
        sorts: True if something was sorted, or rows of the samples were taken by an index or a mask.
        reorders: True if that has changed their order.

    Example:
        >>> orders, rows = Orders(), torch.ones(3)
        >>> orders.note("__getitem__", (rows, torch.tensor([2, 0, 1])), rows, 3)
        >>> orders.sorts, orders.reorders
        (True, True)
    """

    def __init__(self) -> None:
        self.sorts = self.reorders = False

    def note(self, name: str, args: tuple[Any, ...], out: Any, size: int) -> None:
        """Take a torch call on a batch of so many samples into account."""
        if name in SORTING:
            self.sorts = True
            order = tensors_among([out])[-1:]
            self.reorders |= any(bool((o.diff(dim=-1) < 0).any()) for o in order if o.dim() > 0)
        elif (taken := order_of_rows(name, args, size)) is not None:
            self.sorts = True
            self.reorders |= moves(taken)


def order_of_rows(name: str, args: tuple[Any, ...], batch_size: int) -> Any:
    """Return the index or mask by which a call takes rows out of a tensor with one row per sample, or None."""
    if name == "__getitem__":
        index = args[1]
        if isinstance(index, tuple) and index and all(isinstance(part, slice) for part in index[1:]):
            index = index[0]
    elif name == "index_select" and len(args) == 3 and args[1] == 0:
        index = args[2]
    else:
        return None
    if not isinstance(args[0], Tensor) or args[0].shape[:1] != (batch_size,) or batch_size == 1:
        return None
    if not isinstance(index, Tensor | np.ndarray | list):
        return None
    try:
        index = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):  # a list of slices, say
        return None
    is_index = index.dim() == 1 and not index.is_floating_point()
    return index if is_index and (index.dtype != torch.bool or len(index) == batch_size) else None


def moves(index: Tensor) -> bool:
    """Tell if rows that an index or a mask takes are not the first ones, in their order.

    Example:
        >>> [moves(torch.tensor(index)) for index in ([0, 1, 2], [1, 0], [True, False], [False, True])]
        [False, True, False, True]
    """
    taken = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
    return bool((taken != torch.arange(len(taken), device=taken.device)).any())


def ranks_rows(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell if a call ranks what lies along the first axis, as the losses of samples and unlike a sample's logits.

    Example:
        >>> logits = torch.ones(4, 3)
        >>> ranks_rows("topk", (logits, 2), {}), ranks_rows("topk", (logits, 2), {"dim": 0})
        (False, True)
        >>> ranks_rows("argsort", (logits[:, 0],), {}), ranks_rows("quantile", (logits, 0.5), {})
        (True, True)
    """
    if name not in _RANKING:
        return False
    place, default = _RANKING[name]
    dim = kwargs.get("dim", args[place] if len(args) > place else default)
    given = args[0] if args else kwargs["input"]
    return given.dim() < 2 or not isinstance(dim, int) or dim % given.dim() == 0


def is_one_of_many(number: Tensor, inputs: Iterable[Tensor]) -> bool:
    """Tell if many values are compared with one, as losses with their mean."""
    return number.numel() == 1 and any(tensor.numel() > 1 for tensor in inputs)


_LAID_LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}


def tensors_with_a_say(name: str, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the inputs of a call whose values decide on the result, and not their shape and type alone.

    Example:
        >>> mask, losses = torch.tensor([True, False]), torch.ones(2)
        >>> tensors_with_a_say("to", [mask, losses]), tensors_with_a_say("zeros_like", [losses])
        ([tensor([ True, False])], [])
    """
    if name.endswith("_like") or name.startswith("new_"):
        return []
    return inputs[:1] if name in _LAID_LIKE else inputs


def picks_rows(name: str, args: tuple[Any, ...], out: Tensor, batch_size: int) -> bool:
    """Tell if a call picks rows out of a tensor, as many as there happen to be."""
    if name == "masked_select":
        return True
    if name in ("index_select", "take", "take_along_dim"):
        return out.dim() > 0 and len(out) != batch_size
    index = tensors_among([args[1]]) if name == "__getitem__" and out.dim() > 0 else []
    return any(
        covers(part, batch_size) if part.dtype == torch.bool else part.dim() == 1 and len(out) != batch_size
        for part in index
    )
