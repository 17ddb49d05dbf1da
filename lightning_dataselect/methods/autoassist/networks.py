"""The Assistants that AutoAssist takes unless it is given one: logistic regressions, a forward pass in no time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_dataselect.methods.autoassist.inputs import Kind, SampleInputs
from lightning_dataselect.methods.autoassist.rules import LastEpochMean, RecentMean
from lightning_dataselect.utils.errors import ArgumentTypeError

_CLASS_SLOTS = 1024
_TOKEN_SLOTS = 1 << 17
_LARGEST_SIDE = 32


@dataclass(frozen=True)
class Conventions:
    """The hyperparameters of an Assistant of one kind of input, by default the authors'.

    Attributes:
        base_prob: Probability of a sample taken for easy.
        first_epoch_whole: Whether the first epoch drops nothing.
        queue_size: Batches that wait ahead of the training, and records that wait for the Assistant.
        learn_at: Batches that must have been judged before the Assistant turns to learning.
        learning_rate: Step size.
        l2: What the weights are multiplied by, added to the gradient summed over the batch; the step size is divided
            by its number of samples.
        threshold: The rule for the limit above which a loss is called high.
    """

    base_prob: float
    first_epoch_whole: bool
    queue_size: int
    learn_at: int
    learning_rate: float
    l2: float
    threshold: Callable[[float], RecentMean | LastEpochMean]


_VECTORS = Conventions(0.3, False, 20, 5, 0.01, 1e-3, RecentMean)
CONVENTIONS: dict[Kind, Conventions] = {
    "images": _VECTORS,
    "tabular": _VECTORS,
    "tokens": Conventions(0.5, True, 50, 10, 0.5, 0.1, LastEpochMean),
}


def make_network(
    given: nn.Module | Callable[[Tensor, Tensor | None], nn.Module] | None, inputs: SampleInputs, kind: Kind
) -> nn.Module:
    """Make the network that a user has asked for: a copy of a module, what a function makes, or the default.

    Raises:
        TypeError: If the function makes no module.
    """
    if given is None:
        return default_network(inputs, kind)
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    try:
        made = given(inputs.x, inputs.labels)
    except Exception as error:
        if not isinstance(given, type):
            raise
        raise ArgumentTypeError(
            f"assistant={given.__name__} is a class that cannot be made from (x, labels) ({error}): give an instance"
            " of it, or a function such as lambda x, labels: Net(...)."
        ) from error
    if not isinstance(made, nn.Module):
        raise ArgumentTypeError(
            f"assistant= returned {type(made).__name__} for (x, labels): let it return a torch.nn.Module."
        )
    return made


def default_network(inputs: SampleInputs, kind: Kind) -> nn.Module:
    """Make the default network for inputs like these."""
    if kind == "tokens":
        return TokenNetwork()
    return VectorNetwork(inputs.x, squash=kind == "tabular")


class VectorNetwork(nn.Module):
    """Logistic regression on the input's vector and the class: logits ``W . vec(x) + U[y]``.

    Images larger than 32 x 32 are averaged down to that, bytes are divided by 255, and tabular features, of
    unknown scale, pass through ``asinh``. All weights start at 0.

    Args:
        x: (B, ...), an example of the inputs.
        squash: Whether the features pass through ``asinh``.

    Example:
        >>> network = VectorNetwork(torch.rand(2, 3, 64, 48), squash=False)
        >>> network.weight.shape, network(torch.rand(2, 3, 64, 48), torch.tensor([0, 1]))
        (torch.Size([3072]), tensor([0., 0.], grad_fn=<AddBackward0>))
    """

    def __init__(self, x: Tensor, *, squash: bool) -> None:
        super().__init__()
        self._squash = squash
        self.weight = nn.Parameter(torch.zeros(self._features(x).shape[1], dtype=torch.float32))
        self.classes = nn.Parameter(torch.zeros(_CLASS_SLOTS, 1, dtype=torch.float32))

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the logits, (B,), of a high loss for x (B, ...) and labels, int64 (B,)."""
        return self._features(x) @ self.weight + _class_weights(self.classes, x, labels)

    def _features(self, x: Tensor) -> Tensor:
        values = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        if x.dim() == 4 and max(x.shape[2:]) > _LARGEST_SIDE:
            height, width = (min(side, _LARGEST_SIDE) for side in x.shape[2:])
            values = nn.functional.adaptive_avg_pool2d(values, (height, width))
        values = values.reshape(x.shape[0], -1).nan_to_num()
        return values.asinh() if self._squash else values


class TokenNetwork(nn.Module):
    """Logistic regression on TF-IDF of the source and target tokens, their lengths, and the class.

    A token's weight counts times ``1 + log((1 + n) / (1 + n_t))``, with n texts of which n_t hold it, both as counted
    while learning, and the mean over a text's tokens is taken. Lengths are relative to the mean length. Tokens share
    the 131,072 slots by their ids modulo that number. All weights start at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Parameter(torch.zeros(_CLASS_SLOTS, 1, dtype=torch.float32))
        self.bags = nn.ModuleList([_Bag(), _Bag()])

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the logits, (B,), of a high loss for x, int64 (B, T), and labels, int64 (B,), (B, S) or None."""
        source, target = self.bags
        logits: Tensor = source(x.long())
        if labels is not None and labels.dim() == 2:
            return logits + target(labels) + _class_weights(self.classes, x, None)
        return logits + _class_weights(self.classes, x, labels)


class _Bag(nn.Module):
    """The contribution of one text to the logits."""

    texts: Tensor
    frequency: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(_TOKEN_SLOTS, 1, dtype=torch.float32))
        self.length = nn.Parameter(torch.zeros((), dtype=torch.float32))
        self.register_buffer("texts", torch.zeros((), dtype=torch.float32))
        self.register_buffer("tokens", torch.zeros((), dtype=torch.float32))
        self.register_buffer("frequency", torch.zeros(_TOKEN_SLOTS, dtype=torch.float32))  # texts that hold a token

    def forward(self, ids: Tensor) -> Tensor:
        known = ids >= 0
        slots = torch.where(known, ids % _TOKEN_SLOTS, 0)
        lengths = known.sum(1).float()
        if self.training:
            self._count(slots, known, lengths)
        idf = 1 + ((1 + self.texts) / (1 + self.frequency[slots])).log()
        # F.embedding, for the gradient of an index is added up in no fixed order
        values = nn.functional.embedding(slots, self.weight).squeeze(2) * idf * known
        mean_length = self.tokens / self.texts.clamp(min=1)
        return values.sum(1) / lengths.clamp(min=1) + self.length * lengths / mean_length.clamp(min=1)

    @torch.no_grad()
    def _count(self, slots: Tensor, known: Tensor, lengths: Tensor) -> None:
        rows = torch.arange(len(slots)).unsqueeze(1) * _TOKEN_SLOTS
        once = (slots + rows)[known].unique() % _TOKEN_SLOTS
        self.frequency += torch.bincount(once, minlength=_TOKEN_SLOTS)
        self.texts += len(slots)
        self.tokens += lengths.sum()


def _class_weights(weights: Tensor, x: Tensor, labels: Tensor | None) -> Tensor:
    # without a class all samples share the first slot, a bias
    slots = torch.zeros(x.shape[0], dtype=torch.int64) if labels is None else labels % _CLASS_SLOTS
    return nn.functional.embedding(slots, weights).squeeze(1)
