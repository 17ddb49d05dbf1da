"""Per-sample gradient norms in the last linear layer, from what the training step computes anyway."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lightning_dataselect.methods.classification import logits_and_targets, output_error
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.utils.errors import UnreadableStepError


def last_layer_gradient_norm(error: Tensor, features: Tensor, bias: bool) -> Tensor:
    """Compute the norm of each sample's gradient with respect to the last linear layer.

    Args:
        error: Float (B, C), softmax minus target.
        features: Float (B, H), the layer's input.
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


class LastLayerGradients:
    """Watch what a module's linear layers are given, until :meth:`remove`.

    Args:
        module: The model.
        wanted: Given a layer, returns whether its present input is to be kept.

    Attributes:
        inputs: The input of a layer, and whether it has a bias, by the number of samples and of the layer's outputs;
            kept until the factors of the batch are asked for.
    """

    def __init__(self, module: nn.Module, wanted: Callable[[nn.Linear], bool]) -> None:
        self._wanted = wanted
        self.inputs: dict[tuple[int, int], tuple[Tensor, bool]] = {}
        linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
        self._hooks = [layer.register_forward_hook(self._keep_input) for layer in linear]

    def remove(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _keep_input(self, layer: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() == 2 and self._wanted(layer):
            self.inputs[len(output), layer.out_features] = args[0].detach(), layer.bias is not None

    def factors(self, seen: Observation, user: str, others: str) -> tuple[Tensor, Tensor, bool]:
        """Return the factors of the gradients for the batch that the module has just seen, and drop its features.

        Args:
            seen: What the batch has shown.
            user: Name of the method, for the message.
            others: Methods that do without, for the message.

        Returns:
            The error, float32 (B, C), the layer's input (B, H), and whether the layer has a bias.

        Raises:
            ValueError: If there was no classification loss, or no linear layer with as many outputs as classes.
        """
        error = output_error(*logits_and_targets(seen, user))
        n_samples, n_classes = error.shape
        inputs, self.inputs = self.inputs, {}
        if (n_samples, n_classes) not in inputs:
            raise UnreadableStepError(
                f"{user} found no torch.nn.Linear with {n_classes} outputs for the {n_samples} samples of the batch"
                f" (linear outputs seen: {sorted({outputs for _, outputs in inputs})}), so it cannot compute"
                f" last-layer gradients. End the model in such a layer, or use {others}."
            )
        features, bias = inputs[n_samples, n_classes]
        return error, features, bias

    def norms(self, seen: Observation) -> Tensor:
        """Compute the norms for the batch that the module has just seen, float32 (B,), and drop its features.

        Raises:
            ValueError: If there was no classification loss, or no linear layer with as many outputs as classes.
        """
        return last_layer_gradient_norm(*self.factors(seen, "GraNd", "GraNd(layers='all') or EL2N"))
