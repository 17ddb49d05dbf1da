"""The last return value of a named submodule, for the outputs of a model whose loss does not show them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from lightning_dataselect.capture import Outputs
from lightning_dataselect.utils.errors import InvalidArgumentError


class SubmoduleOutputs:
    """Watch a submodule until :meth:`remove` is called.

    Args:
        module: The model.
        name: Name of the submodule in it, such as ``"net.head"``.

    Raises:
        ValueError: If there is no such submodule.

    Example:
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten(0))
        >>> watched = SubmoduleOutputs(model, "0")
        >>> _ = model(torch.ones(2, 3))
        >>> watched.take(2).values.shape, watched.take(2)
        (torch.Size([2, 1, 3]), None)
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        named = dict(module.named_modules(remove_duplicate=False))
        if name not in named:
            known = ", ".join(itertools.islice(filter(None, named), 10))
            raise InvalidArgumentError(
                f"outputs={name!r} is no submodule of {type(module).__name__}, whose submodules are {known}"
                f"{', ...' if len(named) > 11 else ''}."
            )
        self._name = name
        self._returned: Any = None
        self.remove = named[name].register_forward_hook(self._keep).remove

    def _keep(self, module: nn.Module, args: Any, returned: Any) -> None:
        self._returned = returned.detach() if isinstance(returned, Tensor) else returned

    def take(self, n_samples: int, of_classes: bool = False) -> Outputs | None:
        """Return the submodule's last output, by sample, and release it; None if there is none since the last call.

        Args:
            n_samples: Samples in the batch, B.
            of_classes: True if these are scores of classes, which can be turned into probabilities.

        Raises:
            ValueError: If it is not a single tensor with the samples along its first axis.
        """
        returned, self._returned = self._returned, None
        if returned is None:
            return None
        if not isinstance(returned, Tensor) or returned.dim() == 0 or returned.shape[0] % n_samples:
            shape = f"the shape {tuple(returned.shape)}" if isinstance(returned, Tensor) else type(returned).__name__
            raise InvalidArgumentError(
                f"outputs={self._name!r} returned {shape} for {n_samples} samples: name a submodule that returns one"
                " tensor, with the samples along its first axis."
            )
        width = returned.shape[-1] if returned.dim() > 1 else 1
        probabilities = torch.sigmoid if width == 1 else _softmax
        return Outputs(returned.reshape(n_samples, -1, width), None, probabilities if of_classes else None)


def _softmax(values: Tensor) -> Tensor:
    return values.softmax(-1)
