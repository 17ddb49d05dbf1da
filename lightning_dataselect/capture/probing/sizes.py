"""Note what sizes a step's tensors have, and where it multiplies by the number of its samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.recording.picks import tensors_among

_RESHAPING = {"reshape", "view", "flatten"}
_LAYING = {"cat", "concat", "concatenate", "vstack", "stack", "repeat", "tile"}
_MULTIPLYING = {"mul", "mul_", "multiply", "multiply_"}
_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_ASKING = {"__len__", "size"}


class Sizes:
    """Tell by the sizes of a step's tensors how the rows of a sample lie in them.

    Args:
        size: The number of samples.

    Attributes:
        views: How many batches were concatenated.
        has_equal_axes: True if another axis is as long as the batch, and nothing tells the two apart.
        times: What was multiplied by the number of samples; True where the step has asked for that number in the same
            function, and has not written it down.

    Example:
        >>> sizes, tokens = Sizes(4), torch.ones(6, 4, 3)
        >>> sizes.note("tanh", torch.tanh, [tokens], tokens)
        >>> sizes.are_strided(torch.Size([24])), sizes.has_seen(4, 6)
        (True, False)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._leading: set[tuple[int, int]] = set()  # the first two sizes of every tensor of data
        self._asked_in: set[CodeType] = set()
        self.views: set[int] = set()
        self.times: dict[Node, bool] = {}
        self.has_equal_axes = False

    def note(self, name: str, func: Any, data: Sequence[Tensor], out: Any) -> None:
        """Take a torch call into account: its name, itself, its inputs that are not made of parameters, its result."""
        outs = tensors_among([out])
        for tensor in (*data, *outs):
            if tensor.dim() > 1:
                self._leading.add((tensor.shape[0], tensor.shape[1]))
        has_rows = any(tensor.shape[:1] == (self._size,) for tensor in data)
        if name in _RESHAPING and data and data[0].shape[:1] == (self._size,):
            self._leading.add((self._size, out.shape[:1].numel() // self._size))
        for tensor in outs if name in _LAYING and has_rows else ():
            rows = tensor.shape[0] * (tensor.shape[1] if func is torch.stack else 1)
            self.views.add(rows // self._size)

    def asks(self, func: Any, args: Sequence[Any]) -> bool:
        """Tell if a call asks for the number of samples."""
        asks = func.__name__ in _ASKING or func == _SHAPE
        return asks and isinstance(args[0], Tensor) and args[0].shape[:1] == (self._size,)

    def multiplies(self, name: str, values: Iterable[Any]) -> bool:
        """Tell if a call multiplies by as many as there are samples."""
        return name in _MULTIPLYING and any(value == self._size for value in values if isinstance(value, int | float))

    def note_code(self, code: CodeType, product: Any) -> None:
        """Note where the step asks for the number of samples, or multiplies by it.

        Args:
            code: Of the function that calls.
            product: What was multiplied by it; anything else than a tensor of a call that asks.
        """
        if not isinstance(product, Tensor):
            self._asked_in.add(code)
        elif product.grad_fn is not None:
            self.times[product.grad_fn] = code in self._asked_in and self._size not in code.co_consts

    def has_seen(self, *sizes: int) -> bool:
        """Tell if there was a tensor of data with these two leading sizes."""
        return sizes in self._leading

    def are_strided(self, shape: torch.Size) -> bool:
        """Tell if rows of this shape lie as far apart for one sample as there are samples.

        So they do where there were tensors of (k, size, ...) and none of (size, k, ...), as with time-major tokens, and
        where k batches were concatenated.
        """
        if not shape or shape[0] % self._size or shape[0] == self._size:
            return False
        k = shape[0] // self._size
        time_major = (k, self._size) in self._leading and (self._size, k) not in self._leading
        return time_major or k in self.views
