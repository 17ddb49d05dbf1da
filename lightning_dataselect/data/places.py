"""Tell if samples change places on their way into a batch: where they are read, or where they are collated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from lightning_dataselect.data.batch_tree import Path, tensors_in

Collate = Callable[[Any], Any]

_N_TRIED = 8  # enough to reveal a change of order; two full batches of large images would take time
_N_READ = 4


def sorts_samples(collate_fn: Collate, samples: Any) -> bool:
    """Return whether ``collate_fn`` changes the order of the first samples, as far as can be told.

    The samples are copied, since it may change them, and random states are restored. Nothing can be told if it mixes
    samples, changes them at random, or returns no tensor with a row for each.

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
    tried = [sample for sample in samples if sample is not None]
    tried = tried[: min(_N_TRIED, len(tried) // 2 * 2)]  # with an odd number, one would keep its place
    places = [*range(len(tried))]
    # nothing but the order of the samples stays in place in all three: not even a collate function that turns it around
    others = [places[::-1], [*places[1:], *places[:1]], [*places[1::-1], *places[2:]]]
    try:
        forth, *anew = (_rows(collate_fn, [tried[i] for i in order]) for order in (places, *others))
    except Exception:  # it will raise its own error for the whole batch
        return False
    if any(rows.keys() != forth.keys() for rows in anew) or _has_equal_rows(forth):
        return False
    found = [_is_kept(forth, rows, order) for rows, order in zip(anew, others, strict=True)]
    return None not in found and False in found


def _is_kept(rows: dict[Path, Tensor], anew: dict[Path, Tensor], order: list[int]) -> bool | None:
    """Return whether ``rows`` are in the given order in ``anew``; None if they have changed otherwise."""
    is_moved = False
    for path, given in rows.items():
        expected = given[order]
        if torch.equal(given, expected):
            continue
        if torch.equal(anew[path], expected):
            return True
        if not _are_same_rows(given, anew[path]):
            return None
        is_moved = True
    return not is_moved


def _has_equal_rows(rows: dict[Path, Tensor]) -> bool:
    """Return whether two rows are equal in all their parts, as when a sample takes the place of a bad one."""
    if not rows:
        return False
    equal = torch.stack([_equal_rows(tensor, tensor) for tensor in rows.values()]).all(0)
    return int(equal.sum()) > len(equal)


def sorts_what_it_reads(loader: DataLoader[Any]) -> bool:
    """Return whether the data set of ``loader`` is given several indices and returns their samples in another order.

    Files in HDF5 are read at ascending indices only, so that data sets that read many samples at once may sort them.

    Example:
        >>> class Sorted(list):
        ...     def __getitems__(self, indices):
        ...         return [self[i] for i in sorted(indices)]
        >>> sorts_what_it_reads(DataLoader(Sorted([1.0, 2.0, 3.0]))), sorts_what_it_reads(DataLoader([1.0, 2.0, 3.0]))
        (True, False)
    """
    dataset: Any = loader.dataset
    innermost = dataset
    while isinstance(innermost, Subset):
        innermost = innermost.dataset
    if loader.batch_sampler is not None and not callable(getattr(innermost, "__getitems__", None)):
        return False

    def read(indices: list[int]) -> Any:
        opened = copy.copy(dataset)  # files that it opens on first use are left for the workers to open
        return loader.collate_fn(opened[indices] if loader.batch_sampler is None else opened.__getitems__(indices))

    n = len(dataset)
    return sorts_samples(read, [*range(0, n, max(n // _N_READ, 1))][:_N_READ])


def _rows(collate_fn: Collate, samples: list[Any]) -> dict[Path, Tensor]:
    """Return the tensors of a batch that have a row for each sample, by path, without NaN."""
    found = collated(collate_fn, samples)
    # NaN, as in missing values, does not even equal itself
    return {path: tensor.where(tensor == tensor, 0) for path, tensor in found.items() if len(tensor) == len(samples)}


def collated(collate_fn: Collate, samples: list[Any], seed: int | None = None) -> dict[Path, Tensor]:
    """Return what ``collate_fn`` makes of a copy of ``samples``, see `dense`; random states are restored."""
    with isolate_rng(include_cuda=False):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # of no other device, whose state would not be restored
        return dense(collate_fn(copy.deepcopy(samples)))


def dense(batch: Any) -> dict[Path, Tensor]:
    """Return the tensors of a batch that have a first axis."""
    found = {path: tensor for path, tensor in tensors_in(batch) if not tensor.is_sparse and not tensor.is_nested}
    return {path: tensor for path, tensor in found.items() if tensor.dim() > 0}


def _are_same_rows(a: Tensor, b: Tensor) -> bool:
    """Return whether ``a`` has exactly the rows of ``b``, each equally often."""
    if a.shape != b.shape:
        return False
    among_b, among_a = (_equal_rows(a, other).sum(1) for other in (b, a))
    return torch.equal(among_b, among_a)


def _equal_rows(a: Tensor, b: Tensor) -> Tensor:
    return (a.reshape(len(a), 1, -1) == b.reshape(1, len(b), -1)).all(2)
