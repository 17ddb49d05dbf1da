"""The samples of a batch, the observation of running it, and the selection of a method for the next epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.numerics.sampling import is_ascending
from lightning_dataselect.utils.errors import InvalidSelectionError, SelectionTypeError, UnreadableStepError


@dataclass(frozen=True)
class Selection:
    """The samples that the next epoch trains on.

    Attributes:
        indices: int64 (n,), dataset indices, each once.
        weights: float32 (n,), the loss weight of each, or None for the plain loss.
    """

    indices: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class BatchSamples:
    """The samples of the current batch, on the module's device.

    Attributes:
        indices: int64 (B,), dataset indices; the value N marks a sample repeated to make ranks even.
        weights: float32 (B,), the loss weight of each, or None for the plain loss.
    """

    indices: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of samples, B."""
        return self.indices.numel()

    def subset(self, positions: Tensor) -> BatchSamples:
        """Return the samples at ``positions``, int64 (b,), of the batch."""
        return BatchSamples(self.indices[positions], None if self.weights is None else self.weights[positions])


@dataclass(frozen=True)
class Observation:
    """The outcome of running the training step on some samples; on the module's device, without graph.

    Attributes:
        indices: int64 (B,), dataset indices; the value N marks a sample repeated to make ranks even.
        losses: float32 (B,), the loss of each sample; NaN if it was not finite. Later steps do not write into this
            tensor.
        logits: (B, C), if there is a classification loss.
        targets: int64 (B,) classes or (B, C) soft targets, if there is a classification loss.
        epoch: 0-based epoch.
        outputs: float32 (B, D), what a method that asks for the model's outputs keeps of them.
        is_full_batch: False if the samples are the part of a batch that was chosen to be trained on.
        is_rescoring: True if they were measured by a pass between two epochs, without training.
    """

    indices: Tensor
    losses: Tensor
    logits: Tensor | None
    targets: Tensor | None
    epoch: int
    outputs: Tensor | None = None
    is_full_batch: bool = True
    is_rescoring: bool = False

    def to(self, device: torch.device) -> Observation:
        """Return the same on ``device``."""
        moved: dict[str, Any] = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **moved)


def check_selection(selection: object, n: int, method: str) -> Selection:
    """Validate what ``select`` returned and sort it by index.

    Raises:
        TypeError: If it is not a :class:`Selection` of int64 indices.
        ValueError: If it is empty, repeats a sample, contains an index outside the data set, or has weights of another
            size or that are not finite.

    Example:
        >>> check_selection(Selection(torch.tensor([3, 1])), 5, "Mine").indices
        tensor([1, 3])
    """
    if not isinstance(selection, Selection):
        raise SelectionTypeError(
            f"{method}.select returned {type(selection).__name__}: return a Selection(indices, weights)."
        )
    indices, weights = selection.indices, selection.weights
    _check_indices(indices, f"{method}.select", "indices")
    if indices.numel() == 0:
        raise InvalidSelectionError(
            f"{method}.select kept 0 of {n} samples: nothing is left to train on. Lower `prune_ratio`."
        )
    if weights is not None and not isinstance(weights, Tensor):
        raise SelectionTypeError(
            f"{method}.select returned weights as a {type(weights).__name__}: give a tensor, torch.as_tensor(weights)."
        )
    if weights is not None and weights.shape != indices.shape:
        raise InvalidSelectionError(
            f"{method}.select returned {tuple(weights.shape)} weights for {tuple(indices.shape)} indices: one each."
        )
    if weights is not None and not weights.sum().isfinite():
        raise InvalidSelectionError(
            f"{method}.select returned weights that are NaN or infinite: the loss of an epoch would be, too."
        )
    if not is_ascending(indices):
        indices, order = indices.sort()
        weights = weights if weights is None else weights[order]
        if not is_ascending(indices):
            raise InvalidSelectionError(f"{method}.select returned a sample twice: each index may be selected once.")
    if indices[0] < 0 or indices[-1] >= n:
        raise InvalidSelectionError(
            f"{method}.select returned indices from {int(indices[0])} to {int(indices[-1])}, but the data set has the"
            f" samples 0 to {n - 1}."
        )
    return Selection(indices.cpu(), weights if weights is None else weights.float().cpu())


def take_chosen(batch: BatchSamples, positions: object, method: str, fewest: int = 1) -> BatchSamples:
    """Return the samples of a batch that ``choose`` has returned.

    Args:
        batch: The samples of the batch.
        positions: int64 (b,), where the chosen samples are in it.
        method: Name of the method, for messages.
        fewest: Least number of them, 0 or 1.

    Raises:
        TypeError: If ``positions`` is not a one-dimensional int64 tensor.
        ValueError: If it is empty, or has a position outside the batch; on a GPU, where a check would wait for it,
            torch raises.

    Example:
        >>> take_chosen(BatchSamples(torch.tensor([40, 41, 42])), torch.tensor([2, 0]), "Mine").indices
        tensor([42, 40])
    """
    if not isinstance(positions, Tensor):
        raise SelectionTypeError(
            f"{method}.choose returned {type(positions).__name__}: return an int64 tensor of the positions of the"
            " chosen samples within the batch."
        )
    _check_indices(positions, f"{method}.choose", "positions")
    if positions.numel() < fewest:
        raise InvalidSelectionError(
            f"{method}.choose returned no position: choose at least one of {len(batch)} samples."
        )
    try:
        return batch.subset(positions)
    except IndexError as error:
        raise InvalidSelectionError(
            f"{method}.choose returned positions up to {int(positions.max())}, but the batch has {len(batch)} samples:"
            " they are counted from 0 within the batch, and are no dataset indices."
        ) from error


def _check_indices(indices: object, returned_by: str, what: str) -> None:
    if not isinstance(indices, Tensor):
        raise SelectionTypeError(
            f"{returned_by} returned {what} as a {type(indices).__name__}: give an int64 tensor,"
            f" torch.as_tensor({what})."
        )
    if indices.dtype != torch.int64 or indices.dim() != 1:
        fix = " A mask becomes that by mask.nonzero().squeeze(1)." if indices.dtype == torch.bool else ""
        raise SelectionTypeError(
            f"{returned_by} returned {what} of dtype {indices.dtype} and shape {tuple(indices.shape)}: they must be"
            f" int64 and of shape (n,).{fix}"
        )


def class_targets(seen: Observation, asker: str = 'balance="class"') -> Tensor:
    """Return the class of each sample of a batch, int64 (B,).

    Args:
        seen: The observation of the batch.
        asker: The argument that needs them, for the message.

    Raises:
        ValueError: If the batch's loss shows no class targets.
    """
    if seen.targets is None:
        raise UnreadableStepError(
            f"{asker} needs the class of each sample, but no classification loss with class targets was seen in the"
            " training step. Use one (say cross_entropy), or leave it out."
        )
    return seen.targets.argmax(1) if seen.targets.dim() == 2 else seen.targets


def select_by_class(
    select: Callable[[Tensor, torch.Generator], Selection],
    classes: Tensor,
    generator: torch.Generator,
) -> Selection:
    """Select within each class; samples whose class was never seen are a class of their own.

    Args:
        select: Chooses among the samples that it is given, int64 (m,), and returns positions among them.
        classes: float32 (N,), NaN = never seen.
        generator: Passed on to ``select``.

    Example:
        >>> scores = torch.tensor([1.0, 2.0, 9.0])
        >>> def best(members, generator):
        ...     return Selection(scores[members].topk(1).indices)
        >>> select_by_class(best, torch.tensor([0.0, 0.0, 1.0]), None).indices
        tensor([1, 2])
    """
    parts = []
    by_class, order = classes.nan_to_num(-1).sort(stable=True)
    sizes = by_class.unique_consecutive(return_counts=True)[1]
    for members in order.split(sizes.tolist()):
        chosen = select(members, generator)
        parts.append(Selection(members[chosen.indices], chosen.weights))
    weighted = [part.weights for part in parts if part.weights is not None]
    return Selection(torch.cat([part.indices for part in parts]), torch.cat(weighted) if weighted else None)
