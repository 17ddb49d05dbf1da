"""GraNd: the length of a sample's gradient early in training.

Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in
Training", NeurIPS 2021, arXiv 2107.07075.

    GraNd_i = || grad_theta l(f(x_i), y_i) ||_2

Gradients of all parameters, a sample at a time, cost as much as batches of one. This is the usual
shortcut: the gradient of the last linear layer ``W h + b`` alone, which for the cross-entropy is exact:

    || grad_(W, b) l ||_2 = || softmax(f(x)) - y ||_2 * sqrt(||h||_2^2 + 1)      (no 1 without a bias)

``h`` is what the layer was given, seen by a forward hook on the last `torch.nn.Linear` called with as
many outputs as there are classes. As with EL2N the score is averaged over the first epochs of the fit,
where the paper averages ten networks; ``scores=`` takes exports of earlier runs.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import lightning.pytorch as pl
from torch import Tensor, nn

from lightning_dataselect.methods.classification import logits_and_targets, output_error
from lightning_dataselect.methods.facts import MethodFacts
from lightning_dataselect.methods.static import (
    StaticSelector,
    add_to_mean,
    mean_columns,
)
from lightning_dataselect.sample_values import ValueSource
from lightning_dataselect.scores import ScoreStore
from lightning_dataselect.selection import Observation


def last_layer_gradient_norm(error: Tensor, features: Tensor, bias: bool) -> Tensor:
    """The norm of each sample's gradient with respect to the last linear layer.

    Args:
        error: float (B, C), softmax minus target.
        features: float (B, H), the layer's input.
        bias: Whether the layer has a bias.

    Returns:
        float32 (B,).

    Example:
        >>> import torch
        >>> last_layer_gradient_norm(torch.tensor([[0.6, -0.8]]), torch.tensor([[3.0, 4.0]]), False)
        tensor([5.])
    """
    squared = features.float().square().sum(1) + float(bias)
    return error.norm(dim=1) * squared.sqrt()


class GraNd(StaticSelector):
    """Keeps the samples with the largest last-layer gradients early in training, for good.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which scores are averaged. Default 10, our choice, as for
            `EL2N`; 0 if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If an argument is out of its range or ``scores`` do not fit; on the first batch,
            if there is no classification loss or no linear layer with as many outputs as classes.

    Example:
        >>> import torch
        >>> selector = GraNd(scores=torch.tensor([0.1, 0.9, 0.5, 0.2]))
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    measuring_epochs: ClassVar[int] = 10
    info: ClassVar[MethodFacts] = MethodFacts(
        year=2021,
        paper="Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021",
        url="https://arxiv.org/abs/2107.07075",
        kind="static",
        needs="logits, targets and the input of the last linear layer",
        published="half of CIFAR-10 dropped without loss of accuracy, scored over ten networks",
    )

    def __init__(
        self,
        *,
        prune_ratio: float = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)

    def columns(self) -> dict[str, float]:
        """How often each sample was measured."""
        return mean_columns()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Watch what the module's linear layers are given, until the base gives everything back."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or self._given is not None:
            return
        layers = [module for module in pl_module.modules() if isinstance(module, nn.Linear)]
        self._undo += [layer.register_forward_hook(self._keep_input).remove for layer in layers]

    def _drop_live_parts(self) -> None:
        super()._drop_live_parts()
        self._inputs: dict[int, tuple[Tensor, bool]] = {}

    def _keep_input(self, layer: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> None:
        if layer.training and output.dim() == 2:
            self._inputs[layer.out_features] = args[0].detach(), layer.bias is not None

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Rate the batch while scores are measured, and let go of its features."""
        super().observe(seen, store)
        self._inputs.clear()

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Average the gradient's length over the presentations."""
        error = output_error(*logits_and_targets(seen, "GraNd"))
        n_samples, n_classes = error.shape
        features, bias = self._inputs.get(n_classes, (error[:0], False))
        if len(features) != n_samples:
            raise ValueError(
                f"GraNd found no torch.nn.Linear with {n_classes} outputs for the {n_samples}"
                f" samples of the batch (linear outputs seen: {sorted(self._inputs)}), so that it"
                " knows no last-layer gradient. End the model in one, or use EL2N."
            )
        norms = last_layer_gradient_norm(error, features, bias)
        add_to_mean(store, seen.indices, norms)
