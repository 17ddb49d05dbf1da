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
    """Read a fit's results; all of it lies in :attr:`run_state`.

    Before a fit ``hasattr(selector, "losses")`` is False, and reading them raises a `NoFitYetError` that says why.
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
            float32, as long as its ``scores``, on the CPU; with ``balance="class"`` that is one class.
        """
        return self.run_state.column(name)

    @property
    def sample_ids(self) -> list[Key] | None:
        """The keys of the samples, in the order of :attr:`scores`, of a stream those on this rank; None for none."""
        return self.store.keys if isinstance(self.store, KeyedStore) else self.run_state.training_set.keys

    def check_known_by(self, purpose: str, *identities: Identity) -> None:
        """Refuse what cannot be done with samples that are known by nothing, or by something else.

        Args:
            purpose: What is asked for.
            identities: What samples must be known by for it.

        Raises:
            InvalidArgumentError: If they are not.
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
        """float32 (N,), on the CPU: the importance that the method ranks by; NaN = never measured.

        In a stream N is the number of samples that are remembered by their keys, 0 without keys.
        """
        self._say_why_none("scores")
        return self.store.column("score").clone()

    @property
    def losses(self) -> Tensor:
        """float32 (N,), on the CPU: the last loss seen of each sample; NaN = never seen.

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
        """int64 (n,): the dataset indices of the present epoch, sorted."""
        return self.state.plan.indices

    @property
    def weights(self) -> Tensor | None:
        """float32 (n,): the loss weight of each selected sample, or None for the plain loss."""
        return self.state.plan.weights

    def suspects(self, n: int = 20) -> list[Suspect]:
        """Return the samples that are probably labelled wrong, the most suspicious one first.

        They are ranked by what they showed over all epochs, not by the last one alone, in which a network may have
        learnt a wrong label by heart. Hard and rare samples look alike: read the list from its top, and stop where most
        of it is right.

        Args:
            n: How many at most.

        Returns:
            One :class:`~.suspects.Suspect` a sample: its index, label, predicted class and how sure.
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
