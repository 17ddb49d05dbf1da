"""What a selector answers during and after a fit."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_dataselect.state.fit_state import EpochRecord, FitState
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.utils.errors import InvalidArgumentError, NoFitYetError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Results:
    """Per-sample results of a fit, its history, and ways to look at them."""

    _store: SampleHistoryStore | None
    _state: FitState | None
    _data: Callable[[], Any] | None = None  # the training set, while somebody else holds it
    _members: Tensor | None  # the samples that select() is choosing among; None: all

    @property
    def store(self) -> SampleHistoryStore:
        """The per-sample columns of the fit."""
        if self._store is None:
            raise NoFitYetError(
                f"{type(self).__name__} has no per-sample state before a fit has begun. That of a fit whose processes"
                " the Trainer started (ddp_spawn, ddp_fork, ddp_notebook) ended with them: read it in a callback's"
                " on_train_end, or from a checkpoint."
            )
        return self._store

    @property
    def state(self) -> FitState:
        """Where the fit stands."""
        if self._state is None:
            raise NoFitYetError(f"{type(self).__name__} has selected nothing before a fit has begun.")
        return self._state

    def column(self, name: str) -> Tensor:
        """The column ``name`` of the samples that :meth:`select` is choosing among.

        Returns:
            float32, as long as its ``scores``, on the CPU; with ``balance="class"`` that is one class.
        """
        column = self.store.column(name)
        return column if self._members is None else column[self._members]

    @contextlib.contextmanager
    def among(self, members: Tensor) -> Iterator[None]:
        """Let :meth:`column` answer for the samples ``members``, int64 (m,), alone."""
        self._members = members
        try:
            yield
        finally:
            self._members = None

    @property
    def history(self) -> list[EpochRecord]:
        """One record for each epoch that has ended; see :class:`~.fit_state.EpochRecord`."""
        return [] if self._state is None else self._state.history

    @property
    def scores(self) -> Tensor:
        """float32 (N,), on the CPU: the importance that the method ranks by; NaN = never measured."""
        return self.store.column("score").clone()

    @property
    def losses(self) -> Tensor:
        """float32 (N,), on the CPU: the last loss seen of each sample; NaN = never seen."""
        return self.store.column("loss").clone()

    @property
    def selected(self) -> Tensor:
        """int64 (n,): the dataset indices of the present epoch, sorted."""
        return self.state.plan.indices

    @property
    def weights(self) -> Tensor | None:
        """float32 (n,): the loss weight of each selected sample, or None for the plain loss."""
        return self.state.plan.weights

    def export(self, path: str | Path) -> Path:
        """Write one row a sample as .csv or .parquet.

        Columns: ``index``; ``loss``, the last one seen; ``score``; ``selected`` and ``weight`` in the last epoch;
        ``times_trained``; ``times_dropped``, of an epoch or of a batch. Where the steps have shown the logits of
        classes also ``margin`` (the target's logit minus the best other one), ``predicted``, ``first_learnt`` (an
        epoch, missing if never) and ``times_forgotten``; :func:`~lightning_dataselect.report.export.to_frame` tells
        more.
        """
        from lightning_dataselect.report.export import write_samples

        return write_samples(self, path)

    def plot(
        self, kind: str = "kept_share", *, dataset: Any = None, decode: Callable[[Any], str] | None = None
    ) -> Figure:
        """Draw a matplotlib figure.

        Args:
            kind: ``"kept_share"`` by epoch, ``"score_histogram"``, ``"data_map"`` (each sample by its last loss and
                its score, or, where that is the loss, by how often it was forgotten or trained on), or ``"gallery"``:
                the hardest, the easiest and the most often forgotten samples themselves, with label and prediction.
            dataset: of the gallery, images or text in the order of the training set; None takes the training set
                itself, while somebody holds it.
            decode: makes a string of a sample's token ids, such as ``tokenizer.decode``.

        Raises:
            ValueError: if there is no such kind, no data set to show, or nothing in it that can be shown.
        """
        from lightning_dataselect.report.figures import plot_selector
        from lightning_dataselect.report.gallery import gallery

        if kind != "gallery":
            return plot_selector(self, kind)
        dataset = self._data() if dataset is None and self._data is not None else dataset
        if dataset is None:
            raise InvalidArgumentError(
                "plot('gallery'): the training set is gone; give it again, as plot('gallery', dataset=...)."
            )
        return gallery(self, dataset, decode)

    def remember(self, dataset: object) -> None:
        """Keep in mind what is trained on, without keeping it alive."""
        try:
            self._data = weakref.ref(dataset)
        except TypeError:  # a list, say, has no weak references
            self._data = None
