"""Collate functions that put the samples of a batch into an order of their own, as by length.

Losses are given to samples by their places in the batch, and nothing in a batch tells that they were changed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from lightning_dataselect.data.batch_tree import Path, tensors_in
from lightning_dataselect.utils.errors import InvalidLoaderError

Collate = Callable[[Any], Any]

# As many show an order; two batches of large images would cost time.
_N_TRIED = 8


class OrderChecked:
    """A collate function whose first batch is collated in reverse order, too, to see whether it sorts its samples.

    Args:
        collate_fn: the loader's.
        required: whether one that sorts is an error, or only worth a warning.
    """

    def __init__(self, collate_fn: Collate, *, required: bool) -> None:
        self.collate_fn = collate_fn
        self._required = required
        self._is_checked = False

    def __call__(self, samples: Any) -> Any:
        """Collate ``samples``.

        Raises:
            ValueError: if `collate_fn` puts them into another order.
        """
        if not self._is_checked:
            self._is_checked = True
            worker = get_worker_info()
            if (worker is None or worker.id == 0) and sorts_samples(self.collate_fn, samples):
                self._say()
        return self.collate_fn(samples)

    def _say(self) -> None:
        name = getattr(self.collate_fn, "__qualname__", type(self.collate_fn).__name__)
        words = (
            f"The train loader's collate_fn, {name}, puts the samples of a batch into an order of its own, so what one"
            " sample loses would be taken for another's. Keep the order in which they come:"
            " torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) takes sequences in any."
        )
        if self._required:
            raise InvalidLoaderError(words)
        warnings.warn(words, stacklevel=2)


def checked(collate_fn: Collate, *, required: bool) -> Collate:
    """``collate_fn`` as `OrderChecked`; torch's own, which keeps the order, as it is."""
    if collate_fn is default_collate or isinstance(collate_fn, OrderChecked):
        return collate_fn
    return OrderChecked(collate_fn, required=required)


def sorts_samples(collate_fn: Collate, samples: Any) -> bool:
    """Whether ``collate_fn`` changes the order of the first samples, for all that can be told.

    They are copied, as it may change them, and random states are put back. Nothing can be told where it mixes samples,
    changes them at random, or gives no tensor with a row for each.

    Example:
        >>> from torch.nn.utils.rnn import pad_sequence
        >>> texts = [torch.ones(2), torch.ones(4), torch.ones(3)]
        >>> sorts_samples(lambda samples: pad_sequence(samples, batch_first=True), texts)
        False
        >>> sorts_samples(lambda samples: pad_sequence(sorted(samples, key=len), batch_first=True), texts)
        True
    """
    if not isinstance(samples, list):
        return False
    tried = samples[: min(_N_TRIED, len(samples) // 2 * 2)]  # of an odd number, one would keep its place
    try:
        forth, back = (_rows(collate_fn, some) for some in (tried, tried[::-1]))
    except Exception:  # it will say itself what is wrong, of the whole batch
        return False
    if forth.keys() != back.keys():
        return False
    changed = False
    for path, given in forth.items():
        turned, expected = back[path], given.flip(0)
        if torch.equal(given, expected):
            continue
        if torch.equal(turned, expected) or not _are_same_rows(given, turned):
            return False
        changed = True
    return changed


def _rows(collate_fn: Collate, samples: list[Any]) -> dict[Path, Tensor]:
    """The tensors of a batch that have a row for each sample, by where they lie in it."""
    with isolate_rng(include_cuda=False):
        batch = collate_fn(copy.deepcopy(samples))
    found = {path: tensor for path, tensor in tensors_in(batch) if not tensor.is_sparse and not tensor.is_nested}
    return {path: tensor for path, tensor in found.items() if tensor.dim() > 0 and len(tensor) == len(samples)}


def _are_same_rows(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    n = len(a)
    equal = (a.reshape(n, 1, -1) == b.reshape(1, n, -1)).all(2)
    return bool(equal.any(0).all() and equal.any(1).all())
