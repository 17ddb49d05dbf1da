"""SwiftLearn: train on the samples whose outputs still change.

Hajimolahoseini, Wen et al., "SwiftLearn: A Data-Efficient Training Method of Deep Learning Models using Importance
Sampling", 2023, arXiv 2311.15134.

The paper trains on all data for a warm-up, measures each sample's importance over it, trains on the most important
samples with the plain loss, and re-measures over the whole set from time to time, so that dropped samples come back.
**Reconstruction:** the paper's formula was not available to us. The importance used here needs no labels, as the
paper's: the change of a sample's outputs ``z_i`` (logits, or a regressor's predictions) between two measurements,

    mse:  mean_c (z_i[c] - z'_i[c])^2     l1:  mean_c |z_i[c] - z'_i[c]|     cosine:  1 - cos(z_i, z'_i)

    epochs 1..W, W >= 2 : all samples; each training step measures those of its batch
    then                : the k N most important (mode "topk"), or k N drawn with p ~ I without replacement ("sample")
    every U epochs      : a pass in eval mode, without gradients, over all N samples, then a new choice; U = 0: never

``measure``, ``on`` and ``mode`` are parameters because they are reconstructed. Between passes training measures
nothing, so that changes of kept and of dropped samples span the same time.
"""

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.capture import Outputs
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.numerics.placement import placement
from lightning_dataselect.numerics.projection import project
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.numerics.sampling import top_k, weighted_subset
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.step.submodule_outputs import SubmoduleOutputs
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, UnreadableStepError
from lightning_dataselect.utils.validation import check_choice, check_count

_LARGEST_LOGIT = 1e4  # what is beyond masks a class; its float16 would hide the other numbers of its place


def importance(now: Tensor, before: Tensor, measure: str) -> Tensor:
    """Return how much each sample's outputs have changed.

    Args:
        now: (B, D).
        before: (B, D), NaN where never measured.
        measure: "mse", "l1" or "cosine".

    Returns:
        float32 (B,), at least 0; NaN where either is.

    Example:
        >>> importance(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]]), "mse")
        tensor([2.])
    """
    now, before = now.float(), before.float()
    if measure == "mse":
        return (now - before).square().mean(1)
    if measure == "l1":
        return (now - before).abs().mean(1)
    return (1 - F.cosine_similarity(now, before, dim=1)).clamp(min=0)


class SwiftLearn(DataSelector):
    """Keep the samples whose outputs change most; a reconstruction, see the module's docstring.

    Memory: one vector of ``min(C, max_width)`` numbers a sample on the module's device, C being the outputs of a
    sample (classes; numbers predicted), 2 bytes each for class logits and probabilities, 4 for other outputs, whose
    scale is unknown. A million samples of 1000 classes take 0.5 GB, whatever their length in tokens. It is saved
    with each checkpoint. What is wider than ``max_width`` (the logits of all tokens, say) is kept as a fixed random
    projection, under which ``"mse"`` keeps its expected value (standard deviation about 9 % at 256), ``"cosine"``
    nearly so, and ``"l1"`` becomes proportional to the root of ``"mse"``.

    Args:
        prune_ratio: Share of the samples dropped. Default 0.9, the paper's.
        warmup_epochs: Epochs on all data at the start, W. At least and by default 2: a change needs two measurements.
        every_n_epochs: Epochs between two passes over the whole set, U. Default 5, our choice: a pass costs about as
            much as an epoch on a third of the data. 0 for none, which keeps the first choice.
        measure: ``"mse"`` (default), ``"l1"`` or ``"cosine"``.
        on: ``"logits"`` (default; the outputs as they are) or ``"probabilities"`` (of a classifier).
        mode: ``"topk"`` (default) keeps the most important, ``"sample"`` draws in proportion to the importance.
        max_width: Largest number of values kept per sample. Default 256.
        outputs: ``"auto"`` takes the outputs from the loss function of torch.nn.functional that is given them; the
            name of a submodule, such as ``"net.head"``, takes what that module returned last in the step, padding
            included.
        **common: Arguments of `DataSelector`.

    Raises:
        TypeError: If the module optimizes manually, so that it cannot be run without training.
        ValueError: If an argument is out of its range; on the first batch, if no outputs are seen.

    Example:
        >>> selector = SwiftLearn(prune_ratio=0.5)
        >>> selector.select(2, torch.tensor([0.1, 3.0, 0.2, 2.0]), torch.Generator().manual_seed(0)).indices
        tensor([1, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["SwiftLearn"]
    gives_weights: ClassVar[bool] = False
    _submodule = FitLocal[SubmoduleOutputs | None](None)

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.9,
        warmup_epochs: int = 2,
        every_n_epochs: int = 5,
        measure: Literal["mse", "l1", "cosine"] = "mse",
        on: Literal["logits", "probabilities"] = "logits",
        mode: Literal["topk", "sample"] = "topk",
        max_width: int = 256,
        outputs: str = "auto",
        **common: Any,
    ) -> None:
        check_count("every_n_epochs", every_n_epochs)
        super().__init__(
            prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, every_n_epochs=max(every_n_epochs, 1), **common
        )
        if warmup_epochs < 2:
            raise InvalidArgumentError(
                f"warmup_epochs={warmup_epochs} leaves SwiftLearn no change to measure: it compares a sample's outputs"
                " in two epochs. Give at least 2."
            )
        self.rescores = every_n_epochs > 0
        self.measure = check_choice("measure", measure, ("mse", "l1", "cosine"))
        self.on = check_choice("on", on, ("logits", "probabilities"))
        self.mode = check_choice("mode", mode, ("topk", "sample"))
        self.max_width = check_count("max_width", max_width, minimum=1)
        if not isinstance(outputs, str) or not outputs:
            raise ArgumentTypeError(
                f"outputs={outputs!r} must be 'auto' or the name of a submodule, such as 'net.head'."
            )
        self.outputs = outputs

    @property
    def needs_one_loader(self) -> bool:
        """True if a submodule is watched, or samples are measured between two epochs."""
        return self.outputs != "auto" or super().needs_one_loader

    def on_fit_setup(self, context: FitContext) -> None:
        """Watch where the outputs come from."""
        if self.outputs == "auto":
            context.watch_outputs(self._summarize, self._measures)
        else:
            self._submodule = context.watch_submodule(self.outputs)

    def selects_anew(self, epoch: int) -> bool:
        """Return whether ``epoch`` follows a measurement; with U = 0 only the first after the warm-up does."""
        return super().selects_anew(epoch) and (self.rescores or self.in_warmup(epoch - 1))

    def samples_to_rescore(self, epoch: int) -> Tensor | None:
        """Return all samples, or none after the warm-up, which has just measured them."""
        return None if self.in_warmup(epoch - 1) else placement().arange(self.store.n)

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Compare the outputs with those of the last measurement, and keep them in their place."""
        now = seen.outputs
        measures = self._measures(seen.epoch, seen.is_rescoring)
        if self._submodule is not None:
            outputs = self._submodule.take(len(seen.indices), self.on == "probabilities")
            now = self._summarize(outputs) if outputs is not None and measures else None
        if not measures:
            return
        if now is None and "outputs" in store:
            return
        if now is None:
            raise UnreadableStepError(
                "SwiftLearn saw no outputs of the model in the training step: a hand-written loss, or sample_loss=,"
                " does not show them. Name the submodule that returns them: SwiftLearn(outputs='net.head')."
            )
        kept, i = store["outputs"], seen.indices
        store["score"][i] = importance(now, kept[i], self.measure)
        kept[i] = now.to(kept.dtype)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Choose by importance."""
        choose = top_k if self.mode == "topk" else weighted_subset
        return Selection(choose(scores, keep_count(len(scores), self.prune_ratio), generator))

    def _measures(self, epoch: int, is_rescoring: bool) -> bool:
        return is_rescoring or self.in_warmup(epoch)

    def _summarize(self, outputs: Outputs) -> Tensor:
        """Make of a batch's outputs what is kept of them, float32 (B, D)."""
        values, of_classes = outputs.values, outputs.probabilities is not None
        if self.on == "probabilities":
            if outputs.probabilities is None:
                raise UnreadableStepError(
                    "SwiftLearn(on='probabilities') found outputs that are not class scores (a regression loss, say)."
                    " Use on='logits', which takes outputs as they are."
                )
            values = outputs.probabilities(values.float())
        _, n_vectors, width = values.shape
        if "outputs" not in self.store:
            if self.measure == "cosine" and n_vectors * width == 1:
                raise UnreadableStepError(
                    "SwiftLearn(measure='cosine') found one output per sample, of which it would see only the sign."
                    " Use measure='mse' or 'l1'."
                )
            width = width if n_vectors == 1 and width <= self.max_width else self.max_width
            self.store.add_vectors("outputs", width, torch.float16 if of_classes else torch.float32)
        largest = _LARGEST_LOGIT if of_classes else math.inf
        return project(values, self.store["outputs"].shape[1], outputs.valid, largest)
