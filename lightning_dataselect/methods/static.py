"""Common base of static scores: measured in the first epochs or before, then one subset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.numerics.sampling import keep_count, top_k
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.state.load_values import ValueSource, load_values
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError


def load_scores(source: ValueSource | Sequence[ValueSource]) -> Tensor:
    """Load scores measured before, averaged over several runs, as in the papers on static scores.

    Args:
        source: One source, or a sequence of them, one a run.

    Returns:
        float32 (N,), NaN where no run has measured a sample.

    Raises:
        ValueError: If a source is not one-dimensional or of an unknown kind, or the runs differ
            in length.

    Example:
        >>> load_scores([torch.tensor([1.0, 2.0]), torch.tensor([3.0, float("nan")])])
        tensor([2., 2.])
    """
    if isinstance(source, str | Path | Tensor):
        return load_values(source, column="score", argument="scores")
    runs = [load_values(one, column="score", argument="scores") for one in source]
    lengths = sorted({len(run) for run in runs})
    if len(lengths) != 1:
        raise InvalidArgumentError(
            f"scores={source!r} have the lengths {lengths}: give one or more runs on one data set."
        )
    return torch.stack(runs).nanmean(0)


def add_to_mean(store: ScoreStore, indices: Tensor, values: Tensor) -> None:
    """Average ``values`` (B,) into the score over presentations; needs `mean_columns`.

    A presentation that is not a number breaks the mean, and the next one begins it anew.

    Example:
        >>> store = ScoreStore(1, mean_columns())
        >>> for value in (1.0, 2.0):
        ...     add_to_mean(store, torch.tensor([0]), torch.tensor([value]))
        >>> store.column("score")
        tensor([1.5000])
    """
    old = store["score"][indices]
    count = store["presentations"][indices].masked_fill(old.isnan(), 0) + 1
    store["score"][indices] = torch.where(old.isnan(), values, old + (values - old) / count)
    store["presentations"][indices] = count


def mean_columns() -> dict[str, float]:
    """Name the column in which `add_to_mean` counts presentations since the mean began."""
    return {"presentations": 0.0}


class StaticSelector(DataSelector):
    """Keeps the highest of scores that do not change after the first epochs.

    A method on it defines `rate`, which writes ``store["score"]``; it is called only while the
    scores are measured.
    """

    measuring_epochs: ClassVar[int]
    """Epochs measured where neither ``warmup_epochs`` nor ``scores`` is given."""
    fewest_epochs: ClassVar[int] = 1
    """Epochs without which there is no score."""

    def __init__(
        self,
        *,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        if warmup_epochs is None:
            warmup_epochs = self.measuring_epochs if scores is None else 0
        super().__init__(warmup_epochs=warmup_epochs, **common)
        if scores is None and warmup_epochs < self.fewest_epochs:
            raise InvalidArgumentError(
                f"warmup_epochs={warmup_epochs} leaves {type(self).__name__} nothing to measure:"
                f" give at least {self.fewest_epochs}, or scores= from an earlier run."
            )
        self._given = None if scores is None else load_scores(scores)
        self.needs_losses = scores is None  # type: ignore[misc]

    def measures(self, epoch: int) -> bool:
        """Return whether scores are measured in ``epoch``."""
        return self._given is None and self.in_warmup(epoch)

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Write ``store["score"]`` of the samples of a batch."""
        raise NotImplementedError(f"{type(self).__name__} must define rate(seen, store).")

    @property
    def scores(self) -> Tensor:
        """The scores measured or given, float32 (N,), on the CPU; NaN for a sample never measured."""
        return super().scores if self._given is None else self._given

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Rate the batch while scores are measured."""
        if self.measures(seen.epoch):
            self.rate(seen, store)

    def line_up(self, scores: Tensor) -> Tensor:
        """Return the scores that were measured, or given."""
        return scores if self._given is None else self._given

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Keep the highest scores, and the same ones each time."""
        if self._given is not None:
            subset = self.run_state.subset
            n = len(scores) if subset is None else self.store.n
            if len(self._given) != n:
                raise InvalidArgumentError(
                    f"{type(self).__name__} was given {len(self._given)} scores, but the data set has {n} samples: give"
                    " the scores of this data set."
                )
            scores = self._given if subset is None else self._given[subset]
        k = keep_count(len(scores), self.prune_ratio)
        return Selection(top_k(scores, k, epoch_generator(self.seed, 0, "static")))
