"""Any score with any sampler.

A static or set-level method is two decisions: what a sample is scored by, and which of the scored samples are kept.
`EL2N`, `GraNd`, `Forgetting`, `CCS`, `DUAL`, `TDDS` and `RCAP` are combinations with a paper; here they are free.
``lightning-dataselect list`` names the scores and the samplers. Arguments of theirs stand in brackets:

    ScoreSelector(score="dual(window=5)", sampler="stratified(cutoff=0.3)", prune_ratio=0.7)

The higher a score, the harder the sample, or the more the score's paper wants it. Samples that were never measured are
kept first.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import make_sampler, make_score
from lightning_dataselect.methods.samplers.base import Sampler
from lightning_dataselect.methods.scored import ScoredSelector
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.numerics.ratio_schedule import PruneRatio
from lightning_dataselect.state.load_values import ValueSource
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_flag


class ScoreSelector(ScoredSelector):
    """Keep samples by a score and a sampler of your choice.

    Args:
        score: What samples are scored by: a name, with arguments in brackets if there are any, or a `Score` of your
            own. Default ``"loss"``.
        sampler: What is kept of the scored samples, likewise. Default ``"highest"``.
        prune_ratio: Share of the samples dropped. Default 0.5.
        warmup_epochs: Epochs on all data in which scores are measured. Default None: as many as the score's own method
            takes, with ``dynamic`` as few as the score needs, 0 if there is nothing to measure.
        scores: Scores measured before, instead of ``score``: a tensor (N,), a path (``.csv`` or ``.parquet`` from
            `export`, or ``.pt``), or a list of them, which is averaged. Default None: measure.
        dynamic: True to renew the scores of what is trained on, and to choose anew every ``every_n_epochs`` epochs;
            False (default) for one subset for good.
        **common: Arguments of `DataSelector`.

    Raises:
        ValueError: If a name is unknown, an argument is out of its range, ``scores`` do not fit, or score and sampler
            do not go together; on the first batch, if the step does not show what they need.

    Example:
        >>> import torch
        >>> selector = ScoreSelector(scores=torch.tensor([0.1, 0.9, 0.5, 0.2]), sampler="window(start=0.25)")
        >>> selector.select(0, torch.zeros(4), torch.Generator()).indices
        tensor([2, 3])
    """

    info: ClassVar[MethodInfo] = CATALOG["ScoreSelector"]

    def __init__(
        self,
        *,
        score: str | Score = "loss",
        sampler: str | Sampler = "highest",
        prune_ratio: PruneRatio = 0.5,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        dynamic: bool = False,
        **common: Any,
    ) -> None:
        self.score, self.sampler = make_score(score), make_sampler(sampler)
        self.dynamic = check_flag("dynamic", dynamic)
        if scores is not None and score != "loss":
            raise InvalidArgumentError(
                f"score={score!r} says what {type(self).__name__} measures, but scores= are given, so there is nothing"
                " to measure: leave one of the two out."
            )
        super().__init__(prune_ratio=prune_ratio, warmup_epochs=warmup_epochs, scores=scores, **common)
