"""GraNd: the length of the gradient; see `lightning_dataselect.methods.grand`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.last_layer import LastLayerGradients
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.methods.scores.presentations import add_to_mean, mean_columns
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.sample_gradients import SampleGradients
from lightning_dataselect.utils.validation import check_choice


@dataclass(frozen=True)
class GraNdScore(Score):
    """Score by the length of the gradient, averaged over the presentations.

    Args:
        layers: ``"last"`` (default) for the last linear layer alone, ``"all"`` for every trainable parameter.
    """

    layers: Literal["last", "all"] = "last"

    measuring_epochs: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_choice("layers", self.layers, ("last", "all"))

    @property
    def needs_extra_forward(self) -> bool:
        """True with ``layers="all"``, whose gradients take a pass of their own."""
        return self.layers == "all"

    @property
    def needs_one_loader(self) -> bool:
        """True: linear layers are watched, or the step is run on single samples."""
        return True

    def columns(self) -> dict[str, float]:
        """Name the column that counts the measurements of each sample."""
        return mean_columns()

    def open(self, context: FitContext, is_wanted: Callable[[], bool]) -> Score:
        """Watch the linear layers, or get ready to differentiate the step."""
        if self.layers == "all":
            return _OfAllLayers(SampleGradients(context.module))
        last_layer = LastLayerGradients(context.module, lambda layer: layer.training and is_wanted())
        context.add_cleanup(last_layer.remove)
        return _OfLastLayer(last_layer)


class _OfLastLayer(Score):
    def __init__(self, gradients: LastLayerGradients) -> None:
        self.gradients = gradients

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        add_to_mean(store, seen.indices, self.gradients.norms(seen).float())


class _OfAllLayers(Score):
    def __init__(self, gradients: SampleGradients) -> None:
        self.gradients = gradients
        self._norms: Tensor | None = None

    def before_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], size: int) -> int:
        self._norms = self.gradients.norms(step, args, kwargs, size)
        return size

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        assert self._norms is not None
        add_to_mean(store, seen.indices, self._norms.float())
