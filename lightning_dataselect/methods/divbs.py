"""DivBS: a part of each batch whose gradients stand for the mean gradient, each adding what the others lack.

Hong, Lyu, Yao, Zhang, Tsang, Wang, "Diversified Batch Selection for Training Acceleration", ICML 2024,
arXiv 2406.04872. With ``g_i`` the gradient of sample i and ``m`` their mean over the batch, a subset S is worth

    r(S) = sum over an orthonormal basis e of span{g_i : i in S} of <e, m>^2

so that a sample that repeats others adds nothing. S is built one by one, each step on what is left:

    1. take a sample i by  |<g_i, m>|
    2. e = g_i without its part in the span of those taken, of length 1;   m <- m - <e, m> e

``g_i`` is the gradient of the last linear layer's weight, ``(softmax(f(x_i)) - y_i) h_i^T`` with ``h_i`` the layer's
input, from a pass in eval mode. The objective, and that S grows greedily, are stated in the paper. How step 1 takes a
sample is that of the authors' code: it draws one with a probability in proportion to ``|<g_i, m>|``. That the greedy
step of the paper, with its guarantee of 1 - 1/e of the best r(S), takes the largest is a reconstruction,
``mode="greedy"``. The default, a tenth of each batch, is that of the authors' CIFAR runs, with batches of 320.

The gradients are not written out: products of the two factors give all inner products, B x B numbers, and the steps are
a Cholesky factorization of these with pivots, on the device and without waiting for it. Choices of our own: no sample
is taken twice; once the samples taken span the mean gradient, chance takes the others (the code does so where every
product is exactly 0); targets are taken plain, whatever label smoothing the loss has, as are ignored samples, whose
gradient is 0.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.last_layer import LastLayerGradients
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.utils.validation import check_choice, refuse_arguments

_NOTHING = 1e-5  # of a length, where float32 can no longer tell it from 0


def inner_products(error: Tensor, features: Tensor) -> Tensor:
    """Return the inner products of all samples' gradients of a linear layer's weight.

    Args:
        error: Float (B, C), softmax minus target; NaN for an ignored sample.
        features: Float (B, H), the layer's input.

    Returns:
        float32 (B, B).

    Example:
        >>> inner_products(torch.tensor([[0.5, -0.5], [1.0, -1.0]]), torch.tensor([[2.0], [3.0]]))
        tensor([[ 2.,  6.],
                [ 6., 18.]])
    """
    with torch.autocast(error.device.type, enabled=False):  # a product of 16 bits is not exact enough
        error, features = error.float().nan_to_num(0.0), features.float()
        return (error @ error.T) * (features @ features.T)


def diverse_subset(products: Tensor, k: int, generator: torch.Generator, *, sample: bool) -> Tensor:
    """Take samples one by one by how much of the mean gradient that is left they point along.

    Args:
        products: float32 (B, B), of `inner_products`.
        k: Number to take, at most B.
        generator: On the device of ``products``.
        sample: Whether a sample is drawn in proportion to that, or the first one is taken.

    Returns:
        int64 (k,), in the order in which they were taken.

    Example:
        >>> products = inner_products(torch.eye(3), torch.tensor([[3.0], [1.0], [2.0]]))
        >>> diverse_subset(products, 2, torch.Generator().manual_seed(0), sample=False)
        tensor([0, 2])
    """
    n = len(products)
    length2 = products.diagonal()
    left2 = length2.clone()  # squared length of what is outside the span, of each gradient
    towards = products.mean(1)  # its product with the mean gradient that is left
    span = products.new_zeros(k, n)  # its coordinates in the span
    of_mean = (length2.clamp(min=0) * towards.mean().clamp(min=0)).sqrt()  # the largest that `towards` could be
    chances = torch.rand(n, generator=generator, device=products.device)
    is_taken = torch.zeros(n, dtype=torch.bool, device=products.device)
    taken = []
    for step in range(k):
        adds = (towards.abs() > _NOTHING * of_mean) & (left2 > _NOTHING * length2)
        worth = towards.abs()
        if sample:
            waits = torch.rand(n, generator=generator, device=products.device).neg_().log1p_().neg_()
            worth = worth / waits.clamp(min=torch.finfo(worth.dtype).tiny)
        keys = torch.where(adds, worth, chances - 2).masked_fill(is_taken, -torch.inf)
        one = keys.argmax(keepdim=True)
        is_taken = is_taken.index_fill(0, one, True)
        outside = products.index_select(0, one).squeeze(0) - span.index_select(1, one).squeeze(1) @ span
        length = left2.index_select(0, one).clamp(min=torch.finfo(left2.dtype).tiny).sqrt()
        span[step] = torch.where(adds.index_select(0, one), outside / length, 0.0)
        left2 = left2 - span[step].square()
        towards = towards - span[step] * span[step].mean()
        taken.append(one)
    return torch.cat(taken)


class DivBS(WithinBatches, BatchSelector):
    """Score each batch, and train on a diverse part of it, by the gradients of the last linear layer.

    Args:
        batch_ratio: Share of each batch that is trained on, in (0, 1]. Default 0.1, that of the authors' runs.
        mode: ``"sample"`` (default) draws each sample in proportion to how much it adds, as the authors' code does;
            ``"greedy"`` takes the one that adds most.
        warmup_epochs: Epochs on whole batches at the start. Default 0, the authors'.
        **common: Arguments of `BatchSelector` but ``score_every_n_batches``, since gradients are not remembered, and
            ``prune_ratio``, ``every_n_epochs`` and ``balance``, which have no effect here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range; on the first batch, if there is no classification loss or no
            linear layer with as many outputs as classes.

    Example:
        >>> DivBS(batch_ratio=0.2, mode="greedy").batch_ratio
        0.2
    """

    unused: ClassVar[frozenset[str]] = WithinBatches.unused | {"score_every_n_batches"}
    info: ClassVar[MethodInfo] = CATALOG["DivBS"]

    needs_one_loader = True
    _last_layer = FitLocal[LastLayerGradients | None](None)

    def __init__(
        self,
        *,
        batch_ratio: float = 0.1,
        mode: Literal["sample", "greedy"] = "sample",
        warmup_epochs: int = 0,
        **common: Any,
    ) -> None:
        refuse_arguments(
            "DivBS", {"score_every_n_batches"}, common, "a batch is chosen from by its gradients, which take a pass"
        )
        super().__init__(batch_ratio=batch_ratio, warmup_epochs=warmup_epochs, score_every_n_batches=1, **common)
        self.mode = check_choice("mode", mode, ("sample", "greedy"))

    def on_fit_setup(self, context: FitContext) -> None:
        """Get ready to score, and to see what the last linear layer is given meanwhile."""
        super().on_fit_setup(context)
        self._last_layer = LastLayerGradients(context.module, lambda layer: self._scores(layer.training))
        context.add_cleanup(self._last_layer.remove)

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Take samples whose gradients add to each other."""
        assert self._last_layer is not None
        error, features, _ = self._last_layer.factors(seen, "DivBS", "EvolvedSampling or SelectiveBackprop")
        return diverse_subset(inner_products(error, features), k, generator, sample=self.mode == "sample")

    def _scores(self, is_training: bool) -> bool:
        assert self.context is not None
        return not is_training and self.batch is not None and not self.trains_on_whole_batches(self.context.epoch)
