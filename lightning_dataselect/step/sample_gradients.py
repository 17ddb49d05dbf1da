"""The exact norm of each sample's gradient: that of a training step on the sample alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_dataselect.data.batch_tree import Path
from lightning_dataselect.data.subset_batch import subset_arguments
from lightning_dataselect.step.isolation import SideEffectGuard
from lightning_dataselect.step.sharding import is_sharded
from lightning_dataselect.utils.errors import UnreadableStepError, UnsupportedStepError

_HELD_AT_ONCE = 1 << 27  # numbers: half a GiB of float32 gradients
_TOLERANCE = 0.01  # of a norm, wide enough for bfloat16
_FEWEST_AT_ONCE = 16  # below, one by one is as fast or faster: with ResNet-18 2.3 times on the CPU


class SampleGradients:
    """Measure the gradients of single samples with a module's own training step, in eval mode, without side effects.

    ``torch.func`` computes the gradients of a chunk of samples at once, as many as fit into half a GiB. If fewer than
    16 fit (more than 8 million parameters), samples are processed one by one. The same happens, with a warning, for
    steps that ``torch.func`` cannot follow, such as Python code that reads tensor values, or metrics that the step
    updates. That is just as exact. The first sample is measured both ways, and if the results differ (because a layer
    keeps a parameter in two places, say), all samples are processed one by one.

    Args:
        module: The module whose trainable parameters the gradients belong to.

    Raises:
        ValueError: If a BatchNorm layer keeps no running statistics, so that a single sample has no loss.

    Example:
        >>> class Line(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = nn.Parameter(torch.tensor(2.0))
        ...     def training_step(self, batch):
        ...         return (self.slope * batch).square().mean()
        >>> line = Line()
        >>> SampleGradients(line).norms(line.training_step, (torch.tensor([1.0, 3.0]),), {}, 2)
        tensor([ 4., 36.])
    """

    def __init__(self, module: pl.LightningModule) -> None:
        for name, part in module.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None:
                raise UnreadableStepError(
                    f"{name!r} keeps no running statistics (track_running_stats=False), so it mixes the samples of a"
                    " batch, and no sample has a gradient of its own. Let it keep them, or choose a method that needs"
                    " no per-sample gradients."
                )
        self._module = module
        self._guard = SideEffectGuard(module)
        self._axes: dict[Path, int | None] = {}
        self._trainable = [p for p in module.parameters() if p.requires_grad]
        self._chunk = _HELD_AT_ONCE // sum(p.numel() for p in self._trainable)
        self._one_by_one = self._chunk < _FEWEST_AT_ONCE
        self._is_checked = False

    @property
    def samples_at_once(self) -> int:
        """How many gradients are computed at once; 1 if samples are processed one by one."""
        return 1 if self._one_by_one else self._chunk

    def norms(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], size: int) -> Tensor:
        """Measure the norm of each sample's gradient with respect to all trainable parameters.

        Args:
            step: Runs the module on a batch, and returns the loss, alone or under ``"loss"`` of a dict.
            args: Its positional arguments, the batch first, on the module's device.
            kwargs: Its keyword arguments; the batch is the first of them if there are no positional arguments.
            size: Number of samples in the batch, B.

        Returns:
            float32 (B,); float64 for a float64 module.

        Raises:
            TypeError: If the batch cannot be cut to single samples, or the weights are sharded.
            ValueError: If the step returns no loss.
        """
        self._refuse_shards()
        positions = torch.arange(size, device=self._module.device)
        subset_arguments(args, kwargs, positions, size, self._axes)

        def loss(position: Tensor) -> Tensor:
            cut, options = subset_arguments(args, kwargs, position.unsqueeze(0), size, self._axes)
            return _loss(step(*cut, **options))

        if not self._one_by_one:
            try:
                with self._undisturbed():
                    return self._checked(self._at_once(loss, positions), loss)
            except (RuntimeError, ValueError, NotImplementedError, TypeError) as error:
                rank_zero_warn(
                    "torch.func cannot trace this training_step, so gradients are computed sample by sample, which is"
                    f" equally exact but slower: {str(error).strip().splitlines()[0]}"
                )
                self._one_by_one = True
        with self._undisturbed():
            return torch.stack([self._alone(loss, position) for position in positions])

    def _refuse_shards(self) -> None:
        """Only now: strategies shard the weights after the callbacks' setup, some by putting others in their places."""
        if any(is_sharded(p) for p in self._module.parameters() if p.requires_grad):
            raise UnsupportedStepError(
                "The strategy splits the weights between the ranks (FSDP, or DeepSpeed's stage 3), so none of them can"
                " differentiate by all of a layer's. Choose a method that needs no gradients of all layers, such as"
                " GraNd(layers='last') or EL2N, or a strategy that keeps the weights whole, such as DDP or DeepSpeed's"
                " stage 2."
            )

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        # torch.func supports neither compiled code nor flash attention
        with self._guard(grad=True), torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
            yield

    def _at_once(self, loss: Callable[[Tensor], Tensor], positions: Tensor) -> Tensor:
        def norm(position: Tensor) -> Tensor:
            def loss_by(parameters: tuple[Tensor, ...]) -> Tensor:
                with _in_place(self._module, self._trainable, parameters):
                    return loss(position)

            return _norm(grad(loss_by)(tuple(p.detach() for p in self._trainable)))

        return vmap(norm, chunk_size=min(self._chunk, len(positions)))(positions)

    def _alone(self, loss: Callable[[Tensor], Tensor], position: Tensor) -> Tensor:
        return _norm(torch.autograd.grad(loss(position), self._trainable, allow_unused=True, materialize_grads=True))

    def _checked(self, norms: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        if not self._is_checked:
            alone = self._alone(loss, torch.zeros((), dtype=torch.int64, device=norms.device))
            if not torch.allclose(norms[0], alone, rtol=_TOLERANCE, equal_nan=True):
                raise UnreadableStepError(
                    f"it finds {float(norms[0]):.4g} for a gradient of the length {float(alone):.4g}."
                )
            self._is_checked = True
        return norms


@contextmanager
def _in_place(module: nn.Module, parameters: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    """Replace ``parameters`` by ``others``.

    ``torch.func.functional_call`` would not restore them if a layer is registered under two names.
    """
    by_identity = {id(old): new for old, new in zip(parameters, others, strict=True)}
    kept = [(part._parameters, dict(part._parameters)) for part in module.modules()]
    try:
        for space, before in kept:
            space.update({name: by_identity[id(p)] for name, p in before.items() if id(p) in by_identity})  # type: ignore[misc]
        yield
    finally:
        for space, before in kept:
            space.update(before)


def _norm(gradients: Iterable[Tensor]) -> Tensor:
    # in float32 at least
    lengths = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    return torch.linalg.vector_norm(torch.stack(lengths))


def _loss(output: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise UnreadableStepError(f"training_step returned {type(loss).__name__} for a single sample, and no loss.")
    return loss.reshape(())
