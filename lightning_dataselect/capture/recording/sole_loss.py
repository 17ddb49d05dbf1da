"""The short way of most steps, whose loss is what one loss function has returned: one loss a sample, and nothing else.

Once nothing is left to find out about such a loss, its call is kept as it is. It becomes a term like any other only if
the step does something else with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from lightning_dataselect.capture.loss.loss_functions import Loss
from lightning_dataselect.capture.loss.specs import Layout, StepSpec, TermSpec
from lightning_dataselect.capture.loss.terms import Key, Parts, Term


@dataclass(eq=False, slots=True)
class SoleLoss:
    """The call of a loss function that makes up the loss, as far as the step shows so far.

    Attributes:
        key: The key of its term.
        loss: The function.
        bound: Its arguments.
        value: 0-dim, what the step got, with its graph.
        losses: (batch_size,), without a graph.
        edge: Where ``value`` was in the graph when it was made.
        made_from: Where in the graph it was made from.
    """

    key: Key
    loss: Loss
    bound: dict[str, Any]
    value: Tensor
    losses: Tensor
    edge: GradientEdge | None
    made_from: Node | None

    def term(self) -> Term:
        """Return it as one term of several."""
        loss, bound = self.loss, self.bound
        is_sum = bound.get("reduction", "mean") == "sum"
        classes, weighs = loss.classes_of(bound, self.losses.shape[0]), loss.weighs_classes(bound)
        term = Term(self.key, self.value, self.losses, None, is_sum, False, classes, weighs, edge=self.edge)
        term.made_from, term.targets = self.made_from, bound.get("target")
        return term

    def shown(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the losses of the samples, float32 (batch_size,), and the logits and targets, if there are any."""
        losses, classes = self.losses.float(), self.loss.classes_of(self.bound, self.losses.shape[0])
        if classes is None:
            return losses, None, None
        logits, targets = classes
        return losses, logits.detach(), targets.detach() if targets.requires_grad else targets


def findings_on_sole_loss(roots: Sequence[Parts], terms: Sequence[Term], spec: StepSpec) -> TermSpec | None:
    """Return the findings about a step's only term, if they leave nothing to find out about such steps; else None.

    Args:
        roots: What the loss of the step was made of.
        terms: What the step has computed.
        spec: The findings about all steps.
    """
    if len(roots) != 1 or len(roots[0]) != 1 or len(terms) != 1:
        return None
    term, factor = roots[0][0]
    if term is not terms[0] or isinstance(factor, Tensor) or factor != 1.0:  # no number on a device is read
        return None
    known = spec.terms.get(term.key)
    if known is None or term.by_hand or spec.loops or spec.filters or spec.with_constant:
        return None
    is_settled = (
        known.refusal is None
        and known.divisor is None
        and known.readings in ((), ((None, 1.0),))
        and known.layout == Layout()
    )
    is_watched = known.is_even or known.is_nonlinear or known.picked_at is not None
    is_alone = not (spec.has_foreign or spec.has_folded)
    return known if known.enters and is_settled and is_alone and not is_watched else None
