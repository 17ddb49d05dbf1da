"""How far the class of a sample's label is ahead of the others, and how sure it is, by its logits."""

import torch
from torch import Tensor


def margins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the class of each sample's label is ahead, and which class is.

    A margin above 0 means that the sample is classified right; it is the log of the odds of the labelled class against
    the best other one.

    Args:
        logits: (B, C), C of at least 2.
        labels: int64 (B,); a negative label marks an ignored sample.

    Returns:
        float32 (B,), the logit of the label minus the best of the other classes, NaN for an ignored sample; int64 (B,),
        the class of the highest logit.

    Example:
        >>> margins(torch.tensor([[1.0, 3.0, 2.5], [1.0, 3.0, 2.5]]), torch.tensor([1, 0]))
        (tensor([ 0.5000, -2.0000]), tensor([1, 1]))
    """
    # ignored labels are clamped, then blanked: a boolean index would wait for the device
    label = labels.clamp(min=0).unsqueeze(1)
    own = logits.gather(1, label).squeeze(1).float()
    other = logits.scatter(1, label, -torch.inf).amax(1).float()  # several times as fast as topk
    return (own - other).masked_fill(labels < 0, torch.nan), logits.max(1).indices


def confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability that each sample's label has by the softmax of its logits.

    Args:
        logits: (B, C).
        labels: int64 (B,); a negative label marks an ignored sample.

    Returns:
        float32 (B,), NaN for an ignored sample.

    Example:
        >>> confidences(torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([1, 0]))
        tensor([0.5000, 0.1192])
    """
    logits = logits.float()
    own = logits.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    return (own - logits.logsumexp(1)).exp().masked_fill(labels < 0, torch.nan)
