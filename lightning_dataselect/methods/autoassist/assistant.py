"""The Assistant: judges which samples of a batch to train on, and learns from what the trained ones lost."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Bound at import: capture hangs its own functions under these names while a training step runs.
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_dataselect.methods.autoassist.inputs import SampleInputs
from lightning_dataselect.methods.autoassist.networks import Conventions
from lightning_dataselect.methods.autoassist.rules import acceptance, accepted, gradient_step
from lightning_dataselect.utils.errors import CheckpointMismatchError, InvalidArgumentError

_TRUST = 0.95  # the share of the old value that the accuracy keeps at each batch, the authors'
_DROPOUTS = (nn.modules.dropout._DropoutNd, nn.RReLU)


@dataclass(frozen=True)
class Verdict:
    """The Assistant's choice from a batch.

    Attributes:
        q: float32 (B,), the probability that each sample's loss is high.
        positions: int64 (b,), the samples to train on, ascending.
    """

    q: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Record:
    """The losses of a trained batch, from which the Assistant learns.

    Attributes:
        inputs: The inputs of the batch.
        positions: int64 (b,), which of them were trained on; None for all.
        losses: float32 (b,), on the CPU once ``ready``.
        ready: The event after which ``losses`` is there, or None if it is.
        epoch: 0-based epoch.
    """

    inputs: SampleInputs
    positions: Tensor | None
    losses: Tensor
    ready: torch.cuda.Event | None
    epoch: int


class Assistant:
    """A small network on the CPU with the running figures of AutoAssist's rules.

    One thread at a time may call :meth:`judge` and :meth:`learn`; :attr:`accuracy` and :meth:`state_dict` can be read
    from another one at any time without waiting.

    Args:
        network: Called with ``(x, labels)``, or with ``x`` alone if its ``forward`` takes one argument; gives the
            logits (B,) or (B, 1) of a sample's loss being high.
        conventions: The hyperparameters for its kind of input.
        memory: The share of the old value that the running mean loss keeps at each batch.

    Raises:
        ValueError: If the network draws random numbers or has nothing to learn.

    Example:
        >>> from lightning_dataselect.methods.autoassist.networks import CONVENTIONS
        >>> assistant = Assistant(nn.Sequential(nn.Linear(2, 1)), CONVENTIONS["tabular"], memory=0.75)
        >>> inputs = SampleInputs(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), None)
        >>> assistant.judge(inputs, draws=torch.zeros(2), base_prob=0.3).positions
        tensor([0, 1])
        >>> assistant.learn(Record(inputs, None, torch.tensor([0.1, 2.0]), None, epoch=0))
    """

    def __init__(self, network: nn.Module, conventions: Conventions, memory: float) -> None:
        random = [type(part).__name__ for part in network.modules() if isinstance(part, _DROPOUTS)]
        if random:
            raise InvalidArgumentError(
                f"The assistant holds {', '.join(random)}, which draws from the global random state while the model"
                " trains, so that no run could be repeated. Remove it: an Assistant sees each sample few times anyway."
            )
        self.network = network.cpu()
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        if not self._parameters:
            raise InvalidArgumentError(f"The assistant {type(network).__name__} has no parameters that could learn.")
        self._takes_labels = _takes_labels(network)
        self._conventions = conventions
        self._threshold = conventions.threshold(memory)
        self.accuracy = 0.0
        """How often it has been right of late; 0 before the first step."""
        self.steps = 0
        """Steps that it has learnt."""
        self._publish()

    def judge(self, inputs: SampleInputs, draws: Tensor, base_prob: float) -> Verdict:
        """Choose whom to train on.

        Args:
            inputs: The inputs of the batch.
            draws: float32 (B,), uniform in [0, 1).
            base_prob: The probability of a sample taken for easy.
        """
        self.network.eval()
        with torch.no_grad():
            q = self._logits(inputs).float().sigmoid()
        return Verdict(q, accepted(acceptance(q, base_prob, self.accuracy), draws))

    def learn(self, record: Record) -> None:
        """Take one step towards telling the high losses of a batch from the low ones."""
        if record.ready is not None:
            record.ready.synchronize()
        finite = record.losses.isfinite().nonzero().squeeze(1)
        if finite.numel() == 0:
            return
        losses = record.losses[finite]
        inputs = record.inputs[finite if record.positions is None else record.positions[finite]]
        high = losses > self._threshold.update(losses, record.epoch)
        self.network.train()
        rule = self._conventions
        with torch.enable_grad():
            logits = self._logits(inputs).float()
            loss = binary_cross_entropy_with_logits(logits, high.float(), reduction="sum")
            found = torch.autograd.grad(loss, self._parameters, allow_unused=True, materialize_grads=True)
        right = float(((logits > 0) == high).float().mean())
        self.accuracy = _TRUST * self.accuracy + (1 - _TRUST) * right
        gradient_step(self._parameters, found, rule.learning_rate / losses.numel(), rule.l2)
        self.steps += 1
        self._publish()

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last finished step: tensors and numbers."""
        return self._published

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over an earlier state.

        Raises:
            ValueError: If it belongs to another network.
        """
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise CheckpointMismatchError(
                f"The checkpoint's Assistant is not the {type(self.network).__name__} of this fit: {error}"
                " Give the same `assistant` as before."
            ) from error
        vars(self._threshold).update(state["threshold"])
        self.accuracy, self.steps = state["accuracy"], state["steps"]
        self._publish()

    def _publish(self) -> None:
        # a copy, so that whoever saves it in the middle of a step neither waits nor reads half of the step
        self._published = {
            "network": {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            "threshold": dict(vars(self._threshold)),
            "accuracy": self.accuracy,
            "steps": self.steps,
        }

    def _logits(self, inputs: SampleInputs) -> Tensor:
        out = self.network(inputs.x, inputs.labels) if self._takes_labels else self.network(inputs.x)
        size = inputs.x.shape[0]
        if not isinstance(out, Tensor) or out.numel() != size:
            shape = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise InvalidArgumentError(
                f"The assistant {type(self.network).__name__} returned {shape} for {size} samples: return one logit a"
                " sample, (B,) or (B, 1)."
            )
        return out.reshape(size)


def _takes_labels(network: nn.Module) -> bool:
    parameters = inspect.signature(network.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
