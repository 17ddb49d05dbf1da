"""Fingerprint a data set by a few of its samples, to notice when its contents change.

Samples are identified by their positions, so another data set of the same length would inherit their scores.
"""

from __future__ import annotations

import copy
import pickle
import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_dataselect.data.batch_tree import bytes_of

Fingerprint = dict[int, dict[str, int]]
"""Checksums of each part of a few samples, by their positions."""

# With three classes, all labels agree by chance in one of 6,561 cases; more images would take time.
_N_LOOKED_AT = 8
_SEED = 0


def fingerprint(dataset: Any, n: int | None = None) -> Fingerprint:
    """Return checksums of a few samples, evenly spaced among the first ``n``, without any that cannot be read.

    Samples are read in this process, under fixed random states, from a shallow copy of the data set, so that files it
    opens on first use are still left for the workers to open.

    Args:
        dataset: A map-style data set.
        n: Number of samples to choose from, at most as many as there are; None for all.

    Example:
        >>> one, other = fingerprint([0.5, 1.5, 2.5]), fingerprint([0.5, 1.5, 3.5])
        >>> one == fingerprint([0.5, 1.5, 2.5]), one == other, one == fingerprint([0.5, 1.5, 2.5, 9.0], 3)
        (True, False, True)
    """
    n = len(dataset) if n is None else n
    positions = sorted({round(i * (n - 1) / (_N_LOOKED_AT - 1)) for i in range(_N_LOOKED_AT)})
    return _checksums(dataset, positions)


def has_changed(before: Fingerprint, dataset: Any) -> bool:
    """Return whether ``dataset`` holds other samples at the positions of ``before``.

    A part that is the same in all samples shows nothing, and neither does a random one or the position of the sample.
    As long as one part, such as a label, is unchanged in all samples, a change in another part is due to its transform.

    Example:
        >>> data = [(0.5, 0), (1.5, 1), (2.5, 1)]
        >>> has_changed(fingerprint(data), [(x + 1, y) for x, y in data]), has_changed(fingerprint(data), data[::-1])
        (False, True)
    """
    if not before or max(before) >= len(dataset):
        return bool(before)
    now = _checksums(dataset, sorted(before))
    if now == before or now.keys() != before.keys():
        return False  # a sample that cannot be read shows nothing
    again = _checksums(dataset, sorted(before))
    parts = set.intersection(*(set(found) for found in (*before.values(), *now.values())))
    telling = [
        part
        for part in parts
        if len({found[part] for found in before.values()}) > 1
        and all(now[i].get(part) == again.get(i, {}).get(part) for i in now)
        and not all(now[i][part] == before[i][part] in _checksums_of_position(i) for i in now)
    ]
    return bool(telling) and all(any(now[i][part] != before[i][part] for i in now) for part in telling)


def _checksums(dataset: Any, positions: list[int]) -> Fingerprint:
    found: Fingerprint = {}
    with isolate_rng(include_cuda=False):
        # not torch.manual_seed: it seeds other devices too, whose states nobody would restore, and takes a millisecond
        torch.default_generator.manual_seed(_SEED), random.seed(_SEED), np.random.seed(_SEED)
        for position in positions:
            try:
                sample = copy.copy(dataset)[position]
            except Exception:  # it will raise its own error in training
                continue
            found[position] = {path: zlib.crc32(content) for path, content in _parts(sample, "")}
    return found


def _checksums_of_position(position: int) -> set[int]:
    """Return the checksums of a position, in any of the types in which a sample may contain its own."""
    kinds = (np.int32, np.int64, np.float32, np.float64)
    forms = [position, str(position), *(kind(position) for kind in kinds)]
    return {zlib.crc32(content) for form in forms if (content := _content(form)) is not None}


def _parts(part: Any, path: str) -> list[tuple[str, bytes]]:
    if isinstance(part, Mapping):
        return [found for key, value in part.items() for found in _parts(value, f"{path}.{key}")]
    if isinstance(part, tuple | list):
        return [found for i, value in enumerate(part) for found in _parts(value, f"{path}.{i}")]
    content = _content(part)
    return [] if content is None else [(path, content)]


def _content(part: Any) -> bytes | None:
    """Return the content of a part; None if it has no representation that is the same in another process."""
    if isinstance(part, Tensor):
        if part.layout is not torch.strided or part.is_quantized:
            return None
        return bytes_of(part.detach().cpu())
    if isinstance(part, np.ndarray | np.generic):
        return None if part.dtype == object else part.tobytes()
    if hasattr(part, "tobytes"):  # an image
        return part.tobytes()
    return pickle.dumps(part) if isinstance(part, str | bytes | int | float) else None
