"""Say what a recorder may ask the probe that watches with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.capture.loss.terms import Key, Term


class Observer:
    """Answer for a probe what it knows of a step's tensors beyond the terms themselves."""

    def describe(self, term: Term, rows: Tensor, given: Mapping[str, Any] | None = None) -> None:
        """Write down what is known of a term, beside how it is reduced.

        Args:
            term: The term.
            rows: What was reduced.
            given: The arguments of the loss function that has computed it; None if none has.
        """
        raise NotImplementedError

    def meet_loss(self, func: Any, values: Any, out: Tensor) -> None:
        """Follow what comes from which samples through a loss function, and take its result for the step's own."""
        raise NotImplementedError

    def strided(self, shape: torch.Size, batch_size: int) -> bool:
        """Tell if rows of this shape lie ``batch_size`` apart for one sample."""
        raise NotImplementedError

    def picked_at(self, rows: Tensor) -> Key | None:
        """Return where a mask has picked what rows were made of; None if none has."""
        raise NotImplementedError

    def meet_equal_axes(self) -> None:
        """Take note that another axis of something has as many entries as there are samples."""
        raise NotImplementedError

    def number(self, value: Tensor, key: Key) -> None:
        """Take a number without gradient that was added up over the batch."""
        raise NotImplementedError

    def number_out_of_sight(self, value: Tensor) -> None:
        """Take a number without gradient of which nothing shows what each sample has in it."""
        raise NotImplementedError
