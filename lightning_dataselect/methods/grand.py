"""GraNd: the length of the gradient early in training.

Paul, Ganguli, Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in
Training", NeurIPS 2021, arXiv 2107.07075.

    GraNd_i = || grad_theta l(f(x_i), y_i) ||_2

``layers="all"`` takes it of all trainable parameters, in eval mode, by `torch.func`. ``"last"`` is the
usual shortcut: the gradient of the last linear layer ``W h + b`` alone, which for the cross-entropy is

    || grad_(W, b) l ||_2 = || softmax(f(x)) - y ||_2 * sqrt(||h||_2^2 + 1)      (no 1 without a bias)

``h`` is what the layer was given, seen by a forward hook on the last `torch.nn.Linear` called with as
many outputs as there are classes; ``y`` is the plain target, whatever label smoothing the loss has. As with
EL2N the score is averaged over the first epochs of the fit, where the paper averages ten networks;
``scores=`` takes exports of earlier runs.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.last_layer import LastLayerGradients
from lightning_dataselect.methods.static import StaticSelector, add_to_mean, mean_columns
from lightning_dataselect.state.load_values import ValueSource
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.sample_gradients import SampleGradients
from lightning_dataselect.utils.validation import check_choice


class GraNd(StaticSelector):
    """Keeps the samples with the largest gradients early in training, for good.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which scores are averaged. Default 10, our choice, as for
            `EL2N`; 0 if ``scores`` are given.
        scores: Scores measured before: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        layers: ``"last"`` (default) takes the gradient of the last linear layer, which costs nothing; ``"all"``, the
            paper's, of every trainable parameter: what `training_step` returns for the sample alone is differentiated,
            in eval mode (BatchNorm by its running statistics, no dropout), before the step that trains. On a CPU that
            took 10 steps' time for a batch of an MLP, 1.5 for one of a small convolutional network and 10 for one of
            ResNet-18, in each of the ``warmup_epochs``: take few. At most half a GiB of gradients is held.
        **common: Arguments of `DataSelector`.

    Raises:
        TypeError: If ``layers="all"`` and the module optimizes manually.
        ValueError: If an argument is out of its range or ``scores`` do not fit; with ``"all"``, if a BatchNorm layer
            keeps no running statistics; with ``"last"``, on the first batch, if there is no classification loss or no
            linear layer with as many outputs as classes.

    Example:
        >>> import torch
        >>> selector = GraNd(scores=torch.tensor([0.1, 0.9, 0.5, 0.2]))
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([1, 2])
    """

    measuring_epochs: ClassVar[int] = 10
    info: ClassVar[MethodInfo] = CATALOG["GraNd"]

    _last_layer = FitLocal[LastLayerGradients | None](None)
    _all_layers = FitLocal[SampleGradients | None](None)
    _norms = FitLocal[Tensor | None](None)

    def __init__(
        self,
        *,
        prune_ratio: float = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        layers: Literal["last", "all"] = "last",
        **common: Any,
    ) -> None:
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
        self.layers = check_choice("layers", layers, ("last", "all"))

    def columns(self) -> dict[str, float]:
        """Name the column that counts the measurements of each sample."""
        return mean_columns()

    @property
    def needs_extra_forward(self) -> bool:
        """True with ``layers="all"``, whose gradients take a pass of their own."""
        return self.layers == "all" and self._given is None

    def on_fit_setup(self, context: FitContext) -> None:
        """Get ready to measure gradients."""
        if self._given is not None:
            return
        if self.layers == "all":
            self._all_layers = SampleGradients(context.module)
        else:
            self._last_layer = LastLayerGradients(
                context.module, lambda layer: layer.training and self.measures(context.epoch)
            )
            context.add_cleanup(self._last_layer.remove)

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the gradients of all layers first, if they are asked for."""
        assert self.batch is not None
        if self._all_layers is not None and self.measures(self.state.plan.epoch):
            size = len(self.batch)
            self._norms = self._all_layers.norms(step, args, kwargs, size)
            self.run_state.count_samples(forward=size, backward=size)
        return super().run_step(step, args, kwargs)

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Average the gradient's length over the presentations."""
        norms = self._norms if self._last_layer is None else self._last_layer.norms(seen)
        assert norms is not None
        add_to_mean(store, seen.indices, norms.float())
