"""All that a selector knows of each sample, as a table in a file, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from lightning_dataselect.state.class_history import NEVER, UNKNOWN
from lightning_dataselect.state.earlier_scores import ABOUT, OWN, about_fit
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.stream_store import KeyedStore
from lightning_dataselect.state.suspects import averages, mean_losses, suspicions
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, MissingFileError
from lightning_dataselect.utils.reading import reading
from lightning_dataselect.utils.writing import written_whole

if TYPE_CHECKING:
    from lightning_dataselect.state.results import Results

_SUFFIXES = (".csv", ".parquet")


def to_frame(store: SampleHistoryStore, selected: Tensor, weights: Tensor | None = None) -> pd.DataFrame:
    """One row a sample, in the order of the data set, or of the keys by which samples of a stream are remembered.

    Args:
        store: the columns of a fit.
        selected: int64 (n,), indices of the kept samples.
        weights: float32 (n,), their loss weights; None stands for 1.

    Returns:
        `index` (int64), or `key` in a stream; `loss`, the last one seen, and `score` (float32, NaN = never measured);
        `selected` (bool) and `weight` (float32, 0 where a sample is not selected), of the last epoch; `times_trained`
        and `times_dropped` (int32), how often the sample was back-propagated, and left out of an epoch or of a batch;
        `mean_loss` and `suspicion` (float32, NaN = never measured), the mean of its losses and how probably it is
        labelled wrong, see :class:`~lightning_dataselect.state.suspects.Suspect`. If the steps have shown the logits of
        classes, also, as last seen: `margin` (float32), the logit of the target class minus the best other one, above 0
        where it is classified right, and `label` and `predicted` (Int32), the classes; `first_learnt` (Int32), the
        epoch in which it was first classified right, missing if never; `times_forgotten` (int32), how often it was
        classified wrong when the time before it was right; and `mean_margin`, `confidence` and `variability` (float32),
        the mean margin, the mean probability of the label and its standard deviation.

    Example:
        >>> store = SampleHistoryStore(2)
        >>> store["loss"][:2] = torch.tensor([0.5, 3.0])
        >>> frame = to_frame(store, torch.tensor([1]))
        >>> frame["selected"].tolist(), frame["weight"].tolist(), frame["times_trained"].tolist()
        ([False, True], [0.0, 1.0], [0, 0])
    """
    losses = store.column("loss")
    n = len(losses)
    if isinstance(store, KeyedStore):
        selected, names = torch.arange(n), pd.Series(store.keys, name="key")
    else:
        names = pd.Series(torch.arange(n).numpy(), name="index")
    weight, kept = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    weight[selected] = 1.0 if weights is None else weights
    kept[selected] = True
    frame = pd.DataFrame(
        {
            names.name: names,
            "loss": losses.numpy(),
            "score": store.column("score").numpy(),
            "selected": kept.numpy(),
            "weight": weight.numpy(),
            "times_trained": store.column("times_trained").numpy(),
            "times_dropped": store.column("times_dropped").numpy(),
            "mean_loss": mean_losses(store).numpy(),
            "suspicion": suspicions(store).numpy(),
        }
    )
    if store.knows_classes:
        frame["margin"] = store.column("margin").numpy()
        frame["label"] = _with_missing(store.column("label"), UNKNOWN)
        frame["predicted"] = _with_missing(store.column("predicted"), UNKNOWN)
        frame["first_learnt"] = _with_missing(store.column("first_learnt"), NEVER)
        frame["times_forgotten"] = store.column("times_forgotten").numpy()
        for name, values in averages(store).items():
            frame[name] = values.numpy()
    return frame


def _with_missing(values: Tensor, missing: int) -> pd.Series:
    return pd.Series(values.numpy(), dtype="Int32").mask(values.eq(missing).numpy())


def write_samples(selector: Results, path: str | Path) -> Path:
    """Write what is known of every sample, as :func:`to_frame` tells, and what a fit that starts from it needs.

    That is `key`, where samples of an indexed data set have keys; a column `method.…` for each that the method keeps
    besides; and `fit`, in the first row alone: the method and a fingerprint of the data set, as JSON.

    Args:
        selector: During or after a fit.
        path: Ends in `.csv` or `.parquet`.

    Returns:
        The path.

    Raises:
        TypeError: If ``path`` is none.
        ValueError: If it ends in anything else.
        FileNotFoundError: If its folder does not exist.
        UnwritableFileError: If the system refuses to write it, as on a full disk.
    """
    path = _checked(path)
    store, known = selector.store, selector.run_state.training_set
    frame = to_frame(store, selector.selected, selector.weights)
    if known.keys is not None and len(known.keys) == len(frame):
        frame.insert(1, "key", known.keys)
    for name in store.own_columns:
        frame[f"{OWN}{name}"] = store.column(name).numpy()
    about = about_fit(type(selector).__name__, known.fingerprint)
    frame[ABOUT] = pd.Series([about, *[None] * (len(frame) - 1)][: len(frame)], dtype="object")
    write: Callable[..., None] = frame.to_csv if path.suffix == ".csv" else frame.to_parquet
    with written_whole(path) as unfinished:
        write(unfinished, index=False)
    return path


def read_kept(path: str | Path) -> Tensor:
    """Return the indices that were selected when the file was written, to train on them alone.

    Args:
        path: Of a file by `DataSelector.export`.

    Returns:
        int64 (n,), sorted; `torch.utils.data.Subset(dataset, read_kept(path))` is a static run.

    Raises:
        ValueError: If the path does not end in `.csv` or `.parquet`, or the file is another's.
    """
    path = Path(path)
    _check_suffix(path)
    with reading(str(path)):
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    missing = {"index", "selected"} - set(frame.columns)
    if missing:
        raise InvalidArgumentError(
            f"{path} has no column {' and no column '.join(sorted(missing))}: "
            "give a file that export() of a selector has written."
        )
    kept = frame.loc[frame["selected"].astype(bool), "index"]
    return torch.tensor(kept.to_numpy(), dtype=torch.int64).sort().values


def _checked(given: object) -> Path:
    if not isinstance(given, str | Path):
        raise ArgumentTypeError(f"export path {given!r}: give the path of a file that ends in .csv or .parquet.")
    path = Path(given)
    _check_suffix(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"export path {str(path)!r}: there is no folder {str(path.parent)!r}. Make it first.")
    return path


def _check_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise InvalidArgumentError(f"export path {str(path)!r}: let it end in {' or '.join(_SUFFIXES)}.")
