"""Per-sample errors and correctness from logits and class targets, and the refusal where they are missing."""

import torch
from torch import Tensor

from lightning_dataselect.state.selection import Observation
from lightning_dataselect.utils.errors import UnreadableStepError


def logits_and_targets(seen: Observation, user: str) -> tuple[Tensor, Tensor]:
    """Return the logits and targets of a batch, or raise an error that names the method that needs them.

    Args:
        seen: What the batch has shown.
        user: Who needs them, for the message, such as ``"EL2N"``.

    Returns:
        Logits (B, C), and targets int64 (B,) or soft (B, C).

    Raises:
        ValueError: If the batch's loss was no classification loss.

    Example:
        >>> seen = Observation(torch.arange(2), torch.rand(2), None, None, epoch=0)
        >>> logits_and_targets(seen, "EL2N")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnreadableStepError: EL2N needs the logits and targets of each sample, ...
    """
    if seen.logits is None or seen.targets is None:
        raise UnreadableStepError(
            f"{user} needs the logits and targets of each sample, but no classification loss (such"
            " as cross_entropy on logits of shape (batch, classes)) was seen in the training step."
            " Use one, with sample_loss='auto', or take a method that needs losses alone, such as"
            " InfoBatch or UCB(uncertainty='cross_entropy')."
        )
    return seen.logits, seen.targets


def output_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the error vector ``softmax(f(x)) - y``, the gradient of the loss at the logits.

    Args:
        logits: (B, C), any float dtype.
        targets: int64 (B,) or soft (B, C); a negative class marks an ignored sample.

    Returns:
        float32 (B, C); NaN for an ignored sample.

    Example:
        >>> output_error(torch.zeros(1, 2), torch.tensor([0]))
        tensor([[-0.5000,  0.5000]])
    """
    p = logits.float().softmax(1)
    if targets.dim() == 2:
        return p - targets
    # Negative classes are clamped, then blanked, for a boolean index would wait for the device.
    label = targets.clamp(min=0).unsqueeze(1)
    error = p.scatter_add(1, label, torch.full_like(label, -1, dtype=p.dtype))
    return error.masked_fill(targets.lt(0).unsqueeze(1), torch.nan)


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Return for each sample whether it is classified as its target.

    Args:
        logits: (B, C).
        targets: int64 (B,), or soft (B, C), of which the largest entry counts.

    Returns:
        bool (B,).

    Example:
        >>> correct(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([ True, False])
    """
    label = targets.argmax(1) if targets.dim() == 2 else targets
    return logits.argmax(1) == label


def target_probability(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the softmax probability of each sample's own class.

    Args:
        logits: (B, C), any float dtype.
        targets: int64 (B,), or soft (B, C), of which the largest entry counts; a negative class marks an ignored
            sample.

    Returns:
        float32 (B,); NaN for an ignored sample.

    Example:
        >>> target_probability(torch.zeros(2, 4), torch.tensor([3, -100]))
        tensor([0.2500,    nan])
    """
    label = targets.argmax(1) if targets.dim() == 2 else targets
    probability = logits.float().softmax(1).gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)
    return probability.masked_fill(label < 0, torch.nan)
