"""Hold what a step under capture has called so far: its terms, and what they may be computed from."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from lightning_dataselect.capture.loss.folds import Fold
from lightning_dataselect.capture.loss.loss_functions import Loss
from lightning_dataselect.capture.loss.specs import Layout, StepSpec, TermSpec
from lightning_dataselect.capture.loss.terms import Key, Source, Term
from lightning_dataselect.capture.recording.claims import Claims
from lightning_dataselect.capture.recording.doubts import Doubts
from lightning_dataselect.capture.recording.observer import Observer
from lightning_dataselect.capture.recording.picks import Pick
from lightning_dataselect.capture.recording.sole_loss import SoleLoss

Call = tuple[Key | None, Loss, dict[str, Any]]  # its term (None where unreduced), the function, its arguments


class Record:
    """Hold what one step under capture has called, and what is known of its terms.

    Attributes:
        spec: The findings about its terms.
        terms: The terms of this step so far, in order.
        counts: The sums and means without gradient of this step that terms may be divided by.
        layouts: Of a probe, where the samples lie in these.
        order: Of a probe, the places of all means and sums, by their turn.
        sources: The unreduced classification losses of this step.
        picks: What masks and numbers have picked out of tensors in this step, by the place and the turn there.
        folds: What was reduced over the samples, but not to one number, so far, by the id of the result.
        joined: The places of these, by the keys of the terms that they went into.
        scoring: True if terms need no gradient to count.
        keeps_calls: True if the arguments of this step's loss functions are kept.
        calls: The term (None where unreduced), the function and its arguments, of each of them.
        compiled: Some term of this step was computed in compiled code.
        claims: What is known by now of the terms with several readings.
        doubts: What may have been read wrong by now.
        sole_spec: The findings about the loss that is all of this step's, if nothing is left to find out about it.
        sole: The call that returned it, until it turns out to be one term of several.
        open_counts: Counts in which no batch so far could tell the samples' axis from another.
        beside: The recorders that read the losses of other samples in the same steps.
        of_others: Where in the graph of this step their terms are.
    """

    def __init__(self) -> None:
        self.spec = StepSpec()
        self.claims = Claims()
        self.doubts = Doubts()
        self._samples = torch.empty(0)
        self.weights: Tensor | None = None
        self.keeps_value = False  # whether weights change the gradient of a loss alone, and not its value
        self.scoring = False
        self.keeps_calls = False
        self.observer: Observer | None = None
        self.open_counts: frozenset[Key] = frozenset()
        self.sole_spec: TermSpec | None = None
        self.beside: list[Record] = []
        self._thread: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.terms: list[Term] = []
        self.counts: dict[Key, Term] = {}
        self.layouts: dict[Key, Layout] = {}
        self.order: dict[int, Hashable] = {}
        self.sources: list[Source] = []
        self.picks: dict[Key, Pick] = {}
        self.folds: dict[int, Fold] = {}
        self.joined: dict[Key, Hashable] = {}
        self.calls: list[Call] = []
        self.sole: SoleLoss | None = None
        self.of_others: set[Node] = set()
        self.compiled = False
        self.busy = False
        self._reductions = 0
        self._calls: dict[Hashable, int] = {}

    def start(
        self,
        batch_size: int,
        weights: Tensor | None = None,
        *,
        scoring: bool = False,
        sole_spec: TermSpec | None = None,
    ) -> None:
        """Begin a step, in this thread."""
        if self._samples.shape[0] != batch_size:
            self._samples = torch.empty(batch_size, device="cpu")
        self.weights, self.scoring, self.sole_spec = weights, scoring, sole_spec
        self._thread = threading.get_ident()

    def stop(self) -> None:
        """Let go of the step's tensors."""
        self._clear()
        self.weights = self._thread = None

    @property
    def batch_size(self) -> int:
        """The number of samples; a property, because a compiler would take an attribute for a constant."""
        return self._samples.shape[0]

    def sole_loss(self, loss: Any) -> SoleLoss | None:
        """Return the call that returned the step's loss, if there is nothing more to the loss."""
        sole = self.sole
        if sole is None or self.terms or self.sources or not isinstance(loss, Tensor) or sole.edge is None:
            return None
        return sole if loss.grad_fn is sole.edge.node else None

    def take_up_sole(self) -> None:
        """Turn the call that seemed to be the whole loss into one term of several."""
        if self.sole is not None:
            self.terms.insert(0, self.sole.term())
            self.sole = None

    def tell_others(self, term: Term) -> None:
        """Tell the recorders beside this one that read the step, too, where in the graph a term of its own is."""
        if term.edge is not None and self.spec.owns(term.key):
            for other in self.beside:
                if other.is_running:
                    other.of_others.add(term.edge.node)

    @property
    def is_running(self) -> bool:
        """True while a step is recorded."""
        return self._thread is not None

    def nodes_of_others(self) -> set[Node]:
        """Return where in the graph the terms are that belong to the samples of the recorders beside this one."""
        if self.observer is None:
            return self.of_others
        theirs = [term for term in self.terms if any(other.spec.owns(term.key) for other in self.beside)]
        return {term.edge.node for term in theirs if term.edge is not None}

    def leaves_out(self) -> bool:
        """Tell if samples were left out before the model saw them, so that rows look like those of other samples."""
        if not self.spec.filters:
            return False
        size, spec = self.batch_size, self.spec
        if all(where not in self.picks or self.picks[where].n_rows == size for where in spec.filters):
            return False
        own = [term for term in self.terms if term.picked_at is None]
        known = [(spec.of(term.key).n_rows, term.elements.numel() // size) for term in own]
        return any(n not in (0, n_rows) for n, n_rows in known)

    def tells_others_apart(self, term: Term) -> bool:
        """Tell if a classification has another number of classes than it was probed with."""
        known = self.spec.of(term.key).n_classes
        return known > 0 and term.classes is not None and term.classes[0].shape[1] != known

    def classes_now(self, term: Term) -> int:
        """Return the number of classes of a term in a probe; 0 if it has none, or if their number varies."""
        before = self.spec.of(term.key)
        n_classes = 0 if term.classes is None else term.classes[0].shape[1]
        return n_classes if before.n_rows == 0 or before.n_classes == n_classes else 0

    def has_grown(self) -> bool:
        """Tell if samples that had one row each have several now, as when each image had one box so far."""
        size = self.batch_size
        for term in self.terms:
            if term.elements.shape[:1].numel() > size and self.spec.of(term.key).has_one_row:
                return True
        return False
