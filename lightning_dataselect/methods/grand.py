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

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import make_sampler
from lightning_dataselect.methods.samplers.base import Sampler
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.grand import GraNdScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource


class GraNd(ScoredSelector):
    """Keep the samples with the largest gradients early in training, for good.

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
        sampler: What is kept of the scored samples: ``"highest"`` (default), or another of `lightning-dataselect list`.
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

    info: ClassVar[MethodInfo] = CATALOG["GraNd"]

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        sampler: str | Sampler = "highest",
        layers: Literal["last", "all"] = "last",
        **common: Any,
    ) -> None:
        self.score, self.sampler = GraNdScore(layers), make_sampler(sampler)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
