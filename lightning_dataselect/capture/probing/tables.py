"""Tell tables that a step looks numbers up in, such as class weights, from tensors with one row per sample."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn


class Tables:
    """Collect the places where integers index a tensor, and tell where that tensor is a table.

    Args:
        module: Its buffers are tables, however many rows they have.

    Example:
        >>> import torch
        >>> tables = Tables(None)
        >>> tables.note("weight[y]", torch.ones(3), batch_size=8, of_parameters=False)
        >>> tables.note("losses[i]", torch.ones(8), batch_size=8, of_parameters=False)
        >>> tables.places()
        frozenset({'weight[y]'})
    """

    def __init__(self, module: nn.Module | None) -> None:
        self._buffers = set() if module is None else {id(buffer) for buffer in module.buffers()}
        self._of_samples: set[Hashable] = set()
        self._of_tables: set[Hashable] = set()

    def note(
        self, place: Hashable, indexed: Tensor, batch_size: int, *, of_parameters: bool, rows: bool = False
    ) -> None:
        """Record that integers have indexed a tensor.

        Args:
            place: Where in the code.
            indexed: The tensor.
            batch_size: The number of samples.
            of_parameters: True if it was made of parameters alone, so that its rows cannot be samples.
            rows: True if it was made of the model's outputs: its rows may be those of samples, however many they are.
        """
        is_table = of_parameters or id(indexed) in self._buffers
        is_table |= indexed.shape[:1] != (batch_size,) and not rows
        (self._of_tables if is_table else self._of_samples).add(place)

    def places(self) -> frozenset[Hashable]:
        """Return the places where only tables were indexed."""
        return frozenset(self._of_tables - self._of_samples)
