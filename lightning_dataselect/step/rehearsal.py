"""Run a training step for its losses without learning from it, even if it trains while it runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.step.sharding import is_moved_by_deepspeed
from lightning_dataselect.step.skip_writes import SkipWrites, storage_of
from lightning_dataselect.trainer import patch_attribute

Step = Callable[[], Any]


class UnknownOptimizerError(Exception):
    """A step updates weights with an optimizer that `configure_optimizers` has not returned."""


class Rehearsal:
    """Run a step in a `SideEffectGuard` that also leaves weights, gradients, optimizers and schedulers unchanged.

    With manual optimization, the loss of a rehearsed step is the sum of what it passes to ``manual_backward``, and all
    parameters that this depends on get gradients of 0. Its optimizers call their closures and do nothing else, and its
    schedulers do nothing. Direct writes to weights are skipped.

    Args:
        module: Whose ``training_step`` runs.
        keeps_modes: True to run it in the modes that the module is in, as it trains; False for eval mode.

    Raises:
        UnknownOptimizerError: Inside, if the step uses an optimizer that is not the Trainer's.
    """

    def __init__(self, module: pl.LightningModule, *, keeps_modes: bool = False) -> None:
        self._module = module
        self._keeps_modes = keeps_modes

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Step], Step]]:
        """Rehearse within a ``with`` block.

        Yields:
            A function that takes the step, and returns one that returns the loss it back-propagated, or else its return
            value.
        """
        module, roots = self._module, list[Tensor]()
        is_manual = not module.automatic_optimization
        own = list(vars(module).values())
        optimizers = [value for value in own if isinstance(value, Optimizer)]
        schedulers = [value for value in own if isinstance(value, LRScheduler)]
        scalers = [value for value in own if isinstance(value, GradScaler)]
        if is_manual:
            optimizers += _listed(module.optimizers(use_pl_optimizer=False))
            schedulers += _listed(module.lr_schedulers())
        groups = [optimizer.param_groups for optimizer in optimizers]
        moments = [state for optimizer in optimizers for state in (optimizer.state, *optimizer.state.values())]
        weights = {id(weight): weight for weight in (*module.parameters(), *_weights_in(groups))}
        kept = [*weights.values(), *(value for state in moments for value in state.values() if _is_tensor(value))]
        # a new guard each time: one that has found a large tensor unchanged would not copy it again
        guard = SideEffectGuard(module)(
            grad=True,
            also=[*map(vars, (*schedulers, *scalers)), *groups, *moments],
            leave_out=kept,
            keeps_modes=self._keeps_modes,
        )
        gradients = _Gradients()

        def manual_backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            roots.append(loss)
            gradients.reach(loss)

        skips_writes = SkipWrites(kept)

        def loss_of(step: Step) -> Step:
            def rehearsed() -> Any:
                roots.clear()  # of a run before
                with skips_writes:  # no longer than that, since every operator takes several times as long in it
                    returned = step()
                return sum(roots[1:], roots[0]) if roots else returned

            return rehearsed

        with ExitStack() as stack:
            stack.enter_context(guard)
            stack.callback(gradients.restore)
            gradients.set_aside(weights.values())
            if not self._keeps_modes:
                for part in module.modules():
                    stack.callback(patch_attribute(part, "train", functools.partial(_itself, part)))
            if is_manual:
                stack.callback(patch_attribute(module, "manual_backward", manual_backward))
                optimizers += _listed(module.optimizers())
            for target, name, stand_in in (
                *((optimizer, "step", _call_closure) for optimizer in optimizers),
                *((scheduler, name, _do_nothing) for scheduler in schedulers for name in ("step", "step_update")),
                *((scaler, name, _do_nothing) for scaler in scalers for name in ("unscale_", "step", "update")),
            ):
                stack.callback(patch_attribute(target, name, stand_in))
            stack.callback(register_optimizer_step_pre_hook(_refuse).remove)
            stack.callback(patch_attribute(torch.autograd, "backward", _in_place_of_backward(gradients)))
            yield loss_of


class _Gradients:
    """Set the gradients, data and ``requires_grad`` of weights aside, and put zeros where gradients would be."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._weights: list[tuple[Tensor, Tensor, bool]] = []

    def set_aside(self, weights: Iterable[Tensor]) -> None:
        """Remember all of them, and clear the gradients."""
        for weight in weights:
            self._weights.append((weight, weight.data, weight.requires_grad))
            self._take(weight)

    def _take(self, leaf: Tensor) -> None:
        if id(leaf) not in self._before:
            self._before[id(leaf)] = leaf, leaf.grad
            _set_gradient(leaf, None)

    def reach(self, root: Tensor) -> None:
        """Give a gradient to every leaf that a root was computed from."""
        for leaf in _leaves(root):
            self._take(leaf)
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)

    def restore(self) -> None:
        """Restore everything."""
        for weight, data, requires_grad in self._weights:
            # DeepSpeed would still hold weights that it has gathered for gathered
            if storage_of(weight) != storage_of(data) and not is_moved_by_deepspeed(weight):
                weight.data = data
            if weight.requires_grad != requires_grad:
                weight.requires_grad_(requires_grad)
        for leaf, gradient in self._before.values():
            _set_gradient(leaf, gradient)


def _set_gradient(leaf: Tensor, gradient: Tensor | None) -> None:
    if leaf.grad is not gradient:
        leaf.grad = gradient


def _leaves(root: Tensor) -> Iterator[Tensor]:
    seen: set[Any] = set()
    todo: list[Any] = [root.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            yield node.variable
        todo += [parent for parent, _ in node.next_functions]


def _in_place_of_backward(gradients: _Gradients) -> Callable[..., None]:
    backward, thread = torch.autograd.backward, threading.get_ident()

    def rehearsed(tensors: Any, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() != thread:
            backward(tensors, *args, **kwargs)
            return
        for tensor in _listed(tensors):
            gradients.reach(tensor)

    return rehearsed


def _call_closure(closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
    return None if closure is None else closure()


def _itself(part: nn.Module, mode: bool = True) -> nn.Module:
    return part


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _refuse(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    raise UnknownOptimizerError(type(optimizer))


def _weights_in(groups: Iterable[list[dict[str, Any]]]) -> Iterator[Tensor]:
    for group in groups:
        for part in group:
            yield from part["params"]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
