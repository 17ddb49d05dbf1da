"""Running a module's training step for its losses alone, so that nothing notices."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from lightning_dataselect.bridge import shadow

_LOG_METHODS = ("log", "log_dict")
_STRUCTURE = {"_parameters", "_modules"}
_LIBRARIES = ("torch.", "lightning.", "pytorch_lightning.", "lightning_fabric.", "builtins")


_LARGE = 1 << 20


class Quiet:
    """Lets a module run in eval mode and takes back every trace of it.

    Kept as they were: the train/eval mode of every submodule, BatchNorm statistics, attributes and buffers of the
    user's own modules and of torchmetrics objects (counters, lists, states), the random state of torch, NumPy and
    Python, and what is logged.

    Args:
        module: whose ``training_step`` runs inside.

    Example:
        >>> class Counting(pl.LightningModule):
        ...     steps = 0
        ...     def training_step(self, batch):
        ...         self.steps += 1
        ...         self.log("steps", self.steps)
        >>> module = Counting()
        >>> with Quiet(module)():
        ...     module.training_step(None)
        >>> module.steps
        0
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._module = module
        self._still: set[int] = set()

    @contextmanager
    def __call__(self, *, grad: bool = False) -> Iterator[None]:
        """Be quiet for the length of a ``with`` block.

        Args:
            grad: whether a graph is built, as the first look at a loss needs it.
        """
        module = self._module
        modes = [(part, part.training) for part in module.modules()]
        notes = _Notes(module, self._still)
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(_random_state(module.device))
            for name in _LOG_METHODS:
                stack.callback(shadow(module, name, _log_nothing))
            module.eval()
            try:
                yield
            finally:
                for part, training in modes:
                    part.training = training
                notes.restore()
                # what autocast has cached without a graph would leave the real step without gradients
                torch.clear_autocast_cache()


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    return None


@contextmanager
def _random_state(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class _Notes:
    """The attributes of every module that is not torch's own, for eval mode keeps those still."""

    def __init__(self, module: nn.Module, still: set[int]) -> None:
        self._still = still
        self._spaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: dict[int, tuple[Tensor, int, Tensor | None]] = {}
        for part in module.modules():
            if type(part).__module__.startswith("torch.nn."):
                continue
            self._note(part.__dict__)
            for value in list(part.__dict__.values()):
                if hasattr(value, "__dict__") and not _from_library(value):
                    self._note(value.__dict__)

    def _note(self, space: dict[str, Any]) -> None:
        noted = {name: value for name, value in space.items() if name not in _STRUCTURE}
        self._spaces.append((space, noted))
        for value in noted.values():
            self._note_content(value)

    def _note_content(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self._tensors:
                skipped = id(value) in self._still
                self._tensors[id(value)] = (value, value._version, None if skipped else value.detach().clone())
        elif type(value) in (list, dict, set):
            self._containers.append((value, value.copy()))
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, Tensor):
                    self._note_content(item)

    def restore(self) -> None:
        for space, noted in self._spaces:
            for name in space.keys() - noted.keys() - _STRUCTURE:
                del space[name]
            for name, value in noted.items():
                if space.get(name) is not value:
                    space[name] = value
        for container, content in self._containers:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        with torch.no_grad():
            for tensor, version, value in self._tensors.values():
                if tensor._version == version:
                    if tensor.numel() > _LARGE:
                        # copying what the step only reads, say a data set held as a tensor, would cost every step
                        self._still.add(id(tensor))
                elif value is not None:
                    tensor.copy_(value)


def _from_library(value: object) -> bool:
    return isinstance(value, type | nn.Module) or callable(value) or type(value).__module__.startswith(_LIBRARIES)
