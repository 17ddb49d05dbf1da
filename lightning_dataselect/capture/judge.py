"""Which terms make a loss, and with what coefficient: autograd is asked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_dataselect.capture.errors import CaptureError
from lightning_dataselect.capture.fold import foldable
from lightning_dataselect.capture.mixing import mixes
from lightning_dataselect.capture.recorder import Key, Term

Scale = float | Tensor
Parts = list[tuple[Term, Scale]]


def derivatives(of: Tensor, by: Sequence[Tensor]) -> list[Tensor | None]:
    """The derivative of a one-element tensor by others, None where it does not depend on them.

    The walk ends at ``by``: it reaches no parameter, and sets off no gradient hook of one.
    """
    return list(torch.autograd.grad(of, by, grad_outputs=torch.ones_like(of), retain_graph=True, allow_unused=True))


def coefficients(loss: Tensor, terms: Sequence[Term]) -> Parts:
    """The terms that a loss depends on, each with d loss / d term."""
    if not terms:
        return []
    slopes = derivatives(loss, [term.value for term in terms])
    return [(term, s) for term, s in zip(terms, slopes, strict=True) if s is not None]


def scales(parts: Parts, batch_size: int) -> list[Scale]:
    """The factor of each term in a sample's loss.

    A loss of nothing but sums, with a coefficient above 1 / batch_size, is a sum over samples:
    each loses coefficient * term. Any other is a mean: the share of a sample in a sum is
    multiplied by the number of samples.
    """
    slopes = [slope for _, slope in parts]
    if not any(term.is_sum for term, _ in parts):
        return slopes
    limit = (1 + 1e-4) / batch_size
    of_mean: Scale = float(batch_size)
    if all(term.is_sum for term, _ in parts):
        numbers = [slope for slope in slopes if isinstance(slope, float)]
        if len(numbers) == len(slopes):
            of_mean = 1.0 if max(map(abs, numbers)) > limit else of_mean
        else:
            largest = torch.stack([torch.as_tensor(s).abs().float() for s in slopes]).amax()
            of_mean = torch.where(largest > limit, 1.0, float(batch_size))
    return [scale * of_mean if term.is_sum else scale for term, scale in parts]


def weigh(parts: Parts, batch_size: int) -> Tensor:
    """Add up what each sample loses by each term: (batch_size,) float32."""
    total: Tensor | None = None
    for term, scale in parts:
        losses = term.losses(batch_size)
        if not (isinstance(scale, float) and scale == 1.0):
            losses = losses * scale
        total = losses if total is None else total + losses
    assert total is not None
    return total.float()


def judge(
    loss: Tensor, terms: Sequence[Term], anchors: Sequence[Tensor], batch_size: int
) -> tuple[Parts, dict[Key, bool | None]]:
    """Find the terms that a loss is soundly made of.

    Args:
        loss: the step's loss.
        terms: all that a probe has seen, with their graphs.
        anchors: activations to tell samples apart by (see `mixing.mixes`).
        batch_size: the number of samples.

    Returns:
        The terms that count with their coefficients, and the verdict on every term.

    Raises:
        CaptureError: none counts, or one that does cannot be given back to the samples.
    """
    if not loss.requires_grad:
        raise CaptureError("The step's loss has no gradient (requires_grad is False).")
    verdicts: dict[Key, bool | None] = {t.key: False if t.by_hand else None for t in terms}
    parts = coefficients(loss, [term for term in terms if not term.from_parameters])
    for term in terms:
        if term.from_parameters:
            verdicts[term.key] = False
    for term, _ in parts:
        if not foldable(term.elements.shape, batch_size):
            raise CaptureError(
                f"{term.key[0]} gave losses of the shape {tuple(term.elements.shape)}, whose "
                f"first axis is not a multiple of the batch's {batch_size} samples."
            )
    kept = [(term, slope) for term, slope in parts if not _aggregates(term, parts)]
    normalisers = [term.value for term, _ in kept if _normalises(term, kept)]
    kept = [(term, slope) for term, slope in kept if not _among(term.value, normalisers)]
    sound = [(term, slope) for term, slope in kept if not mixes(term, anchors, batch_size, normalisers)]
    if kept and not sound:
        raise CaptureError(
            "What a sample loses in this step depends on the other samples of its batch, as in a contrastive loss."
        )
    if len(sound) < len(kept):
        warnings.warn(
            f"{len(kept) - len(sound)} of {len(kept)} loss terms depend on several samples at once; the per-sample "
            "loss is made of the others.",
            stacklevel=2,
        )
    if not sound:
        raise CaptureError(
            f"Nothing in the step gives a loss for each of the batch's {batch_size} samples "
            f"({len(terms)} reductions seen, {len(parts)} of them part of the loss)."
        )
    verdicts.update((term.key, False) for term, _ in parts)
    verdicts.update((term.key, True) for term, _ in sound)
    return sound, verdicts


def _aggregates(term: Term, parts: Parts) -> bool:
    """Whether a mean or sum is taken over the results of loss functions, no losses of samples."""
    others = [other.value for other, _ in parts if not other.by_hand]
    return term.by_hand and bool(others) and _any(derivatives(term.value, others))


def _normalises(term: Term, parts: Parts) -> bool:
    """Whether a mean or sum only serves to compute another one."""
    if not term.by_hand:
        return False
    return any(
        _any(derivatives(other.value, [term.value])) for other, _ in parts if other is not term and other.by_hand
    )


def _among(tensor: Tensor, others: Sequence[Tensor]) -> bool:
    return any(tensor is other for other in others)


def _any(slopes: Sequence[Tensor | None]) -> bool:
    return any(slope is not None for slope in slopes)
