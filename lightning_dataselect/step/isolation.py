"""Run a module's training step only for its losses, without side effects."""

from __future__ import annotations

import functools
import operator
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from lightning_dataselect.trainer import patch_attribute, quiet_loggers
from lightning_dataselect.utils.errors import SideEffectError

_LOG_METHODS = ("log", "log_dict")
_STRUCTURE = nn.Module().__dict__.keys() - {"_buffers"}
_LIBRARIES = ("torch.", "lightning.", "pytorch_lightning.", "lightning_fabric.", "builtins")
_PLAIN = {int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.Size}
_LARGE = 1 << 20  # entries: copying more in every step only pays for tensors that the step writes to
_LARGE_ARRAY = 1 << 26  # bytes
_MANY = 1 << 12  # items: a container with more is a table, not the state of a step
_DEPTH = 5


class SideEffectGuard:
    """Let a module run in eval mode, and undo all its side effects.

    These are restored: the train/eval mode of every submodule, BatchNorm statistics, attributes and buffers of the
    user's own modules and of torchmetrics objects (counters, lists, states, generators, also within containers and
    plain objects), the random state of torch, NumPy and Python, and everything that is logged, by the module's ``log``
    or to the Trainer's loggers. These are not: global variables, files, modules in plain lists, NumPy arrays of more
    than 64 MiB, the contents of containers of more than 4096 items, and writes through ``tensor.data``.

    Args:
        module: The module whose ``training_step`` runs inside.

    Raises:
        RuntimeError: At the end of a ``with`` block in which the module wrote to its parameters, or, for the first
            time, to another tensor too large to be copied each time.

    Example:
        >>> class Counting(pl.LightningModule):
        ...     steps = 0
        ...     def training_step(self, batch):
        ...         self.steps += 1
        ...         self.log("steps", self.steps)
        >>> module = Counting()
        >>> with SideEffectGuard(module)():
        ...     module.training_step(None)
        >>> module.steps
        0
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._module = module
        self._still: dict[int, weakref.ref[Tensor]] = {}

    @contextmanager
    def __call__(
        self,
        *,
        grad: bool = False,
        also: Iterable[Any] = (),
        leave_out: Iterable[Tensor] = (),
        keeps_modes: bool = False,
    ) -> Iterator[None]:
        """Keep the module unchanged over a ``with`` block.

        Args:
            grad: True if a graph is built, as the first probe of a loss needs one.
            also: Further dicts and lists to restore, with their contents.
            leave_out: Tensors that something else keeps unchanged, whatever is called on them.
            keeps_modes: True to let submodules train, whose buffers are then restored as well.
        """
        module = self._module
        parts = list(module.named_modules())  # once: with many small parts this takes longer than everything else
        modes = [(part, part.training) for _, part in parts]
        notes = _Snapshot(parts, self._still, leave_out)
        notes.add(also)
        if keeps_modes:
            notes.add_buffers(part for _, part in parts)
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(_random_state(module.device))
            stack.callback(quiet_loggers(module))
            for name in _LOG_METHODS:
                stack.callback(patch_attribute(module, name, _log_nothing))
            try:
                for part, training in modes:
                    _set_mode(part, training and keeps_modes)
                yield
            finally:
                for part, training in modes:
                    _set_mode(part, training)
                notes.restore()
                # casts that autocast has cached without a graph would leave the real step without gradients
                torch.clear_autocast_cache()


def _set_mode(part: nn.Module, training: bool) -> None:
    """Set the mode like `nn.Module.train`, but only of this part, and without Module's slow ``__setattr__``."""
    if "training" in part.__dict__:
        part.__dict__["training"] = training
    else:  # a property, as in compiled and scripted modules
        part.training = training


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


class _Snapshot:
    """Keep a copy of everything that a step may write to; torch's own layers write nothing in eval mode."""

    def __init__(
        self,
        parts: Iterable[tuple[str, nn.Module]],
        still: dict[int, weakref.ref[Tensor]],
        leave_out: Iterable[Tensor] = (),
    ) -> None:
        self._still = still
        self._known = {id(tensor) for tensor in leave_out}
        self._undo: list[Callable[[], object]] = []
        self._tensors: list[tuple[str, Tensor, int, Tensor | None]] = []
        for name, part in parts:
            for own, parameter in part._parameters.items():
                if parameter is not None and id(parameter) not in self._known:
                    self._known.add(id(parameter))
                    self._tensors.append((f"{name}.{own}".removeprefix("."), parameter, parameter._version, None))
        for name, part in parts:
            if not type(part).__module__.startswith("torch.nn."):
                self._note_space(part.__dict__, name, 0)

    def add(self, containers: Iterable[Any]) -> None:
        """Also copy dicts and lists that are not searched otherwise, such as those of a library's objects."""
        for container in containers:
            self._note_container(container, "", 0)

    def add_buffers(self, parts: Iterable[nn.Module]) -> None:
        """Also copy the buffers that layers write to when they train: batch norms leave no trace in their version."""
        for buffer in {id(b): b for part in parts for b in part._buffers.values() if b is not None}.values():
            if buffer.numel() <= _LARGE:
                self._undo.append(functools.partial(buffer.detach().copy_, buffer.detach().clone()))

    def restore(self) -> None:
        for undo in self._undo:
            undo()
        with torch.no_grad():
            written = [note[0] for note in self._tensors if not self._restore_tensor(*note[1:])]
        if written:
            raise SideEffectError(
                f"Scoring a batch without training on it wrote to {written[0].replace('_buffers.', '')!r}"
                + (f" and {len(written) - 1} more" if len(written) > 1 else "")
                + ", which cannot be undone: training_step changes parameters, or sometimes a large tensor. Let"
                " it do so only `if self.training`, as scoring runs in eval mode."
            )

    def _restore_tensor(self, tensor: Tensor, version: int, value: Tensor | None) -> bool:
        if tensor._version == version:
            if value is not None and tensor.numel() > _LARGE:
                # copying what the step only reads, such as a data set held as a tensor, would slow every step
                self._still[id(tensor)] = weakref.ref(tensor)
            return True
        if value is None:
            return False
        tensor.copy_(value)
        return True

    def _note(self, value: Any, name: str, depth: int) -> None:
        if type(value) in _PLAIN or depth > _DEPTH or id(value) in self._known:
            return
        self._known.add(id(value))
        if isinstance(value, Tensor):
            self._note_tensor(value, name)
        elif isinstance(value, np.ndarray):
            self._note_array(value)
        elif isinstance(value, list | dict | set | deque | tuple):
            self._note_container(value, name, depth)
        elif (random_state := _random_state_of(value)) is not None:
            self._undo.append(random_state)
        elif hasattr(value, "__dict__") and not _from_library(value):
            self._note_space(value.__dict__, name, depth)

    def _note_space(self, space: dict[str, Any], name: str, depth: int) -> None:
        noted = {key: value for key, value in space.items() if key not in _STRUCTURE}
        self._undo.append(lambda: _restore_space(space, noted))
        for key, value in noted.items():
            self._note(value, f"{name}.{key}".removeprefix("."), depth + 1)

    def _note_tensor(self, tensor: Tensor, name: str) -> None:
        if tensor.is_inference():
            return  # cannot be written to
        reference = self._still.get(id(tensor))
        is_still = reference is not None and reference() is tensor
        self._tensors.append((name, tensor, tensor._version, None if is_still else tensor.detach().clone()))

    def _note_array(self, array: np.ndarray[Any, Any]) -> None:
        if array.nbytes <= _LARGE_ARRAY and array.flags.writeable:
            value = array.copy()
            self._undo.append(lambda: np.copyto(array, value))

    def _note_container(self, container: Any, name: str, depth: int) -> None:
        if not isinstance(container, tuple):
            content = container.copy()
            self._undo.append(lambda: _restore_container(container, content))
        if len(container) > _MANY:
            return
        if isinstance(container, dict):
            for key, item in container.items():
                self._note(item, f"{name}.{key}", depth + 1)
        else:
            for item in container:
                self._note(item, name, depth + 1)


def _restore_space(space: dict[str, Any], noted: dict[str, Any]) -> None:
    for name in space.keys() - noted.keys() - _STRUCTURE:
        del space[name]
    for name, value in noted.items():
        if space.get(name) is not value:
            space[name] = value


def _restore_container(container: Any, content: Any) -> None:
    if len(container) == len(content) and all(map(operator.is_, _items(container), _items(content))):
        return
    container.clear()
    container.extend(content) if isinstance(container, list | deque) else container.update(content)


def _items(container: Any) -> Iterable[Any]:
    return (part for pair in container.items() for part in pair) if isinstance(container, dict) else container


def _random_state_of(value: Any) -> Callable[[], object] | None:
    """Return a function that restores a generator's state, or None if ``value`` is not a generator."""
    state: Any
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        state = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", state)
    if isinstance(value, np.random.RandomState):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        state = value.getstate()
        return lambda: value.setstate(state)
    return None


def _from_library(value: object) -> bool:
    return isinstance(value, type | nn.Module) or callable(value) or type(value).__module__.startswith(_LIBRARIES)
