"""Start a fit from what an earlier one knew about its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_dataselect.data.fingerprint import has_changed
from lightning_dataselect.state.earlier_scores import OWN, EarlierScores, read_earlier_scores
from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.stream_store import KeyedStore
from lightning_dataselect.utils.errors import InvalidArgumentError


def start_from_file(run: RunState, policy: SelectionPolicy, dataset: Any) -> None:
    """Give the samples of a map-style data set the losses and scores that an earlier fit exported.

    A sample that is not in the file counts as never measured.

    Args:
        run: Holds the columns of the fit, which has just begun.
        policy: Names the file, and says what the method ranks by.
        dataset: That of the train loader.

    Raises:
        InvalidArgumentError: If the file is about other samples, or from a method whose scores mean something else.
    """
    assert policy.start_from is not None
    earlier = read_earlier_scores(policy.start_from)
    keys, n = run.training_set.keys, len(dataset)
    if keys is not None and earlier.keys is not None:
        rows = earlier.rows_by_key(keys)
    else:
        _check_same_data_set(earlier, dataset, has_keys=keys is not None)
        rows = earlier.rows_by_index(n)
    _take_over(run, policy, earlier, torch.arange(n), rows)


def start_stream_from_file(run: RunState, policy: SelectionPolicy) -> None:
    """Give the samples of a stream, as they come, the losses and scores that an earlier fit exported by key.

    Raises:
        InvalidArgumentError: If the file or the stream has no keys, or the scores mean something else.
    """
    assert policy.start_from is not None
    earlier, store = read_earlier_scores(policy.start_from), run.store
    if not isinstance(store, KeyedStore) or earlier.keys is None:
        lacks = f"{_named(earlier)} has no column 'key'" if isinstance(store, KeyedStore) else "sample_id is not given"
        raise InvalidArgumentError(
            f"The samples of a stream are found again by their keys alone, but {lacks}. Give sample_id=... to the fit"
            " that exports, and to this one."
        )
    keys: Sequence[Any] = earlier.keys[-policy.history_size :]
    first = len(earlier.keys) - len(keys)
    slots = store.open_batch(keys)
    _take_over(run, policy, earlier, slots, first + torch.arange(len(keys)))


def _take_over(run: RunState, policy: SelectionPolicy, earlier: EarlierScores, slots: Tensor, rows: Tensor) -> None:
    """Write the rows of a file, -1 for none, into the slots of their samples."""
    known, name, store = rows >= 0, type(policy).__name__, run.store
    if not bool(known.any()):
        raise InvalidArgumentError(
            f"{_named(earlier)} knows none of the {rows.numel()} samples of the train loader: it was written for other"
            " samples, or with another sample_id."
        )
    columns = ["loss"]
    if not policy.ranks_by_loss:
        if earlier.method not in (None, name):
            raise InvalidArgumentError(
                f"{_named(earlier)} was written by {earlier.method}, whose scores mean something different from those"
                f" of {name}. Start from a file of {name}, or take a method that ranks by the loss, such as InfoBatch."
            )
        columns += ["score", *(name for name in earlier.columns if name.startswith(OWN))]
    for column in columns:
        own = column.removeprefix(OWN)
        if column in earlier.columns and own in store:
            values = earlier.columns[column][rows[known]]
            store[own][slots[known]] = values.to(store[own].device)
    n_new = int((~known).sum())
    rest = f"; the other {n_new} count as never measured" if n_new else ""
    rank_zero_info(f"{name} starts from what {earlier.source} knows of {int(known.sum())} samples{rest}.")


def _check_same_data_set(earlier: EarlierScores, dataset: Any, *, has_keys: bool) -> None:
    n, fix = len(dataset), "Give both fits sample_id=..., keys by which samples are found again wherever they stand"
    if has_keys or earlier.index is None:
        lacks = "no column 'key'" if has_keys else "no column 'index', but keys"
        raise InvalidArgumentError(f"{_named(earlier)} has {lacks}. {fix}.")
    n_before = int(earlier.index.max()) + 1
    if has_changed(earlier.samples, dataset) or n < n_before:
        raise InvalidArgumentError(
            f"{_named(earlier)} was written for {n_before} samples, but the train loader's data set of {n} has others"
            f" in their places, or fewer: scores would be taken for those of other samples. {fix}."
        )
    if n > n_before and earlier.method is not None and not earlier.samples:
        raise InvalidArgumentError(
            f"{_named(earlier)} was written for {n_before} samples, and the train loader's data set has {n}. Whether"
            f" the first {n_before} are the same cannot be told, as its samples could not be read. {fix}."
        )


def _named(earlier: EarlierScores) -> str:
    return f"start_from={earlier.source!r}"
