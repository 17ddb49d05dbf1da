"""RCAP: a budget for each class by its size and its loss, filled by loss.

Hassan, Khare, Paik, "RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning", UAI 2025, arXiv 2606.11761.

With ``n_c`` the samples of class c of C, ``k`` those kept of all N, ``l_i`` a sample's last loss, before each epoch:

    l_i is clipped to [0, log C];  q_i = softmax of l / beta over the class of i                                 (code)
    L_c = sum of q_i over the samples of c in the last subset                                                    (code)
    k_c = k sqrt(L_c n_c) / sum_c' sqrt(L_c' n_c'), at most n_c; what is cut off goes to the others likewise     (code)
    of class c draw k_c without replacement by q_i                                                               (code)

The paper's abstract speaks of the class's aggregated *loss*; its body was not available to us. ``class_loss="score"``
sums the clipped losses in place of ``q_i`` (**reconstructed**). Other than the authors' code, budgets add up to exactly
``k``: theirs are rounded up, and what full classes leave over is shared out by the whole ``k``. They begin with every
loss at ``log C``; here the classes become known in a first epoch on everything (our choice). They try ``beta`` of 1/3,
1/2, 1, 2 and 3; 1 is our choice.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.samplers.class_quota import ClassQuota
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.loss import LossScore
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.utils.errors import UnexpectedArgumentError


class RCAP(ScoredSelector):
    """Draw samples of high loss from each class, more from small classes and from those that are hard, each epoch.

    Args:
        prune_ratio: Share of the samples dropped each epoch. Default 0.5.
        temperature: What losses are divided by before the softmax, beta: the lower, the more the highest losses are
            favoured. Default 1, our choice among the authors' 1/3 to 3.
        class_loss: ``"importance"`` (default) as in the authors' code, ``"score"`` for the sum of the clipped losses,
            a reconstruction of their paper.
        warmup_epochs: Epochs on all data, at least 1, in which the classes become known. Default 1.
        **common: Arguments of `DataSelector` but ``balance``: the classes have budgets anyway.

    Raises:
        UnexpectedArgumentError: If ``balance`` is given.
        ValueError: If an argument is out of its range; on the first batch, if there is no classification loss.

    Example:
        >>> RCAP(temperature=0.5).sampler
        ClassQuota(temperature=0.5, clip='log_classes', class_loss='importance')
    """

    info: ClassVar[MethodInfo] = CATALOG["RCAP"]
    other_words: ClassVar[Mapping[str, str]] = {"beta": "temperature"}
    unused: ClassVar[frozenset[str]] = frozenset({"balance", "scores"})
    dynamic = True

    def __init__(
        self,
        *,
        prune_ratio: PruneRatio = 0.5,
        temperature: float = 1.0,
        class_loss: Literal["importance", "score"] = "importance",
        warmup_epochs: int = 1,
        **common: Any,
    ) -> None:
        for name in sorted(self.unused & common.keys()):
            raise UnexpectedArgumentError(
                f"RCAP has no use for {name}={common[name]!r}: it chooses by the losses of the fit itself, with a"
                " budget for each class. Leave it out, or take ScoreSelector(sampler='class_quota')."
            )
        self.score, self.sampler = LossScore(), ClassQuota(temperature, "log_classes", class_loss)
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=None, balance=None, **common)
