"""Follow the tensors of a batch through a step: which come from the samples that are measured, which from others."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Flag

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.weak import WeakIdKeyDictionary

from lightning_dataselect.capture.loss.graph import reached


class Origin(Flag):
    """All that a tensor was made from.

    Attributes:
        NOTHING: Of no data: parameters, constants, random numbers.
        OWN: Of the samples that are measured.
        OTHERS: Of samples in the same step that are not, such as another loader's.
        UNKNOWN: Of something that came from outside of torch, or from code that nobody has looked into.
    """

    NOTHING = 0
    OWN = 1
    OTHERS = 2
    UNKNOWN = 4

    @property
    def is_own(self) -> bool:
        """True if it was made from samples that are measured, and from no others."""
        return bool(self & Origin.OWN) and not self & Origin.OTHERS

    @property
    def is_foreign(self) -> bool:
        """True if no sample that is measured has a share in it."""
        return not self & Origin.OWN and (bool(self & Origin.OTHERS) or not self)


_FROM_OUTSIDE = {torch.from_numpy, torch.tensor, torch.as_tensor, torch.asarray, torch.frombuffer}


class Origins:
    """Know what the tensors of a step were made from.

    Args:
        own: The tensors of the samples that are measured.
        others: The other tensors of the batch.

    Example:
        >>> x, u = torch.ones(2), torch.zeros(3)
        >>> origins, joined = Origins([x], [u]), torch.cat([x, u])
        >>> origins.follow(torch.cat, [x, u], [joined])
        >>> origins.of([joined]) == Origin.OWN | Origin.OTHERS, origins.of([x]).is_own, origins.of([u]).is_foreign
        (True, True, True)
    """

    def __init__(self, own: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        self._of_tensors = WeakIdKeyDictionary()
        self._of_nodes: dict[Node, Origin] = {}
        for tensors, origin in ((others, Origin.OTHERS), (own, Origin.OWN)):
            for tensor in tensors:
                self._note(tensor, origin)

    def follow(self, function: object, inputs: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Take a call into account.

        Args:
            function: What was called.
            inputs: The tensors that it was given, in order.
            made: The tensors that it has returned.
        """
        origin = Origin.UNKNOWN if function in _FROM_OUTSIDE else self.of(inputs)
        if function is torch.Tensor.__setitem__:
            made = inputs[:1]
        for tensor in made:
            self._note(tensor, origin)

    def of(self, tensors: Sequence[Tensor]) -> Origin:
        """Return what all of some tensors together were made from."""
        found = Origin.NOTHING
        for tensor in tensors:
            found |= self._of(tensor)
        return found

    def _of(self, tensor: Tensor) -> Origin:
        known = self._of_tensors.get(tensor)
        if known is None and tensor.grad_fn is not None:
            # the result of code that no mode looks into: what is before it in the graph is known
            before = reached(tensor.grad_fn, self._of_nodes)
            known = Origin.NOTHING if before else Origin.UNKNOWN
            for node in before:
                known |= self._of_nodes[node]
            self._note(tensor, known)
        return Origin.NOTHING if known is None else Origin(known)

    def _note(self, tensor: Tensor, origin: Origin) -> None:
        self._of_tensors[tensor] = origin
        if tensor.grad_fn is not None:
            self._of_nodes[tensor.grad_fn] = origin
