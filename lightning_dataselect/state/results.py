"""The results of a fit, as data."""

from __future__ import annotations

import warnings

from torch import Tensor

from lightning_dataselect.state.fit_state import EpochRecord, FitState
from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.store import Identity
from lightning_dataselect.state.stream_store import Key, KeyedStore
from lightning_dataselect.state.suspects import Suspect, most_suspicious
from lightning_dataselect.utils.errors import InvalidArgumentError, NoFitYetError
from lightning_dataselect.utils.validation import check_count


class Results:
    """Read the results of a fit, all of which are in :attr:`run_state`.

    Before a fit, ``hasattr(selector, "losses")`` is False, and reading them raises a `NoFitYetError` that says why.
    """

    run_state: RunState

    @property
    def store(self) -> SampleHistoryStore:
        """The per-sample columns of the fit."""
        return self.run_state.store

    @property
    def state(self) -> FitState:
        """The position of the fit."""
        return self.run_state.fit

    def column(self, name: str) -> Tensor:
        """Return the column ``name`` of the samples that ``select`` is choosing among.

        Returns:
            float32, as long as its ``scores``, on the CPU; with ``balance="class"``, only one class.
        """
        return self.run_state.column(name)

    @property
    def sample_ids(self) -> list[Key] | None:
        """The keys of the samples, in the order of :attr:`scores`; on a stream, this rank's. None without keys."""
        return self.store.keys if isinstance(self.store, KeyedStore) else self.run_state.training_set.keys

    def check_known_by(self, purpose: str, *identities: Identity) -> None:
        """Refuse an operation that needs another identity of the samples.

        Args:
            purpose: The operation.
            identities: The identities that it works with.

        Raises:
            InvalidArgumentError: If the samples have another one.
        """
        if self.store.identity not in identities:
            fix = "samples must have an index, as in a map-style data set"
            if Identity.KEY in identities:
                fix = "give the selector sample_id=..., by which the samples are known"
            raise InvalidArgumentError(f"The fit was on a stream, so {purpose} does not know its samples: {fix}.")

    @property
    def history(self) -> list[EpochRecord]:
        """One record for each epoch that has ended; see :class:`~.fit_state.EpochRecord`."""
        return self.state.history if self.run_state.has_begun else []

    @property
    def scores(self) -> Tensor:
        """float32 (N,), on the CPU: the score that the method ranks by; NaN = never measured.

        In a stream N is the number of samples that are remembered by their keys, 0 without keys.
        """
        self._say_why_none("scores")
        return self.store.column("score").clone()

    @property
    def losses(self) -> Tensor:
        """float32 (N,), on the CPU: the last measured loss of each sample; NaN = never measured.

        In a stream N is the number of samples that are remembered by their keys, 0 without keys.
        """
        self._say_why_none("losses")
        return self.store.column("loss").clone()

    def _say_why_none(self, what: str) -> None:
        if self.store.identity is Identity.NONE:
            warnings.warn(
                f"{type(self).__name__}.{what} is empty: the fit was on a stream without keys, whose samples are"
                " forgotten with their batch. Give the selector sample_id=..., by which they are known.",
                stacklevel=3,
            )

    @property
    def selected(self) -> Tensor:
        """int64 (n,): the dataset indices of the current epoch, sorted."""
        return self.state.plan.indices

    @property
    def weights(self) -> Tensor | None:
        """float32 (n,): the loss weight of each selected sample, or None for the plain loss."""
        return self.state.plan.weights

    def suspects(self, n: int = 20) -> list[Suspect]:
        """Return the samples whose labels are probably wrong, the most suspicious one first.

        They are ranked by averages over all epochs, not by the last one alone, since a network may have memorized a
        wrong label by then. Hard and rare samples look similar: read the list from the top, and stop where most labels
        are right.

        Where whole samples have no classes, as in regression, or where a sample is a sequence of tokens, they are
        ranked by their mean loss, of a sequence over its tokens. A high one says that a sample is hard or unusual, or
        its targets wrong, and not which. Label and predicted class are None.

        Args:
            n: Maximum number.

        Returns:
            One :class:`~.suspects.Suspect` per sample: its index, label, predicted class and how suspicious it is.
            ``pandas.DataFrame(selector.suspects(100))`` is a table of them.

        Raises:
            NoFitYetError: If there is no fit yet, or no sample was measured in it.
            ValueError: If ``n`` is below 1.
        """
        check_count("n", n, minimum=1)
        self.check_known_by("suspects()", Identity.INDEX)
        found = most_suspicious(self.store, n)
        if not found:
            raise NoFitYetError(
                f"{type(self).__name__}.suspects: no sample has a finite loss yet. Call it after some epochs of"
                " trainer.fit, with a method that measures losses; RandomPruning(prune_ratio=0) measures and drops"
                " nothing."
            )
        return found
