"""Margins: how far the best other class is ahead of the target.

    margin_i = z_i[y_i] - max_{c != y_i} z_i[c]          AUM_i = the mean of it over the presentations

Pleiss, Zhang, Elenberg, Weinberger, "Identifying Mislabeled Data using the Area Under the Margin Ranking", NeurIPS
2020, arXiv 2001.10528, take ``z`` the logits; Zheng, Liu, Lai, Prakash (CCS), ICLR 2023, arXiv 2210.15809, the
probabilities (their code), and the sum in place of the mean, which ranks alike where all samples are seen equally
often. The score is ``-margin``: as with every score here the hard samples have the high ones.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from lightning_dataselect.methods.classification import logits_and_targets
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.methods.scores.presentations import add_to_mean, mean_columns
from lightning_dataselect.numerics.margins import margins
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.validation import check_choice

Scale = Literal["probabilities", "logits"]


def negative_margin(logits: Tensor, targets: Tensor, on: Scale) -> Tensor:
    """Return how far the best other class is ahead of the target, float32 (B,).

    Args:
        logits: (B, C), C of at least 2.
        targets: int64 (B,), or soft (B, C), of which the largest entry counts; a negative class marks an ignored
            sample.
        on: ``"probabilities"`` or ``"logits"``.

    Returns:
        float32 (B,), NaN for an ignored sample.

    Example:
        >>> import torch
        >>> negative_margin(torch.tensor([[1.0, 3.0, 2.5]]), torch.tensor([0]), "logits")
        tensor([2.])
    """
    labels = targets.argmax(1) if targets.dim() == 2 else targets
    values = logits.float()
    return -margins(values.softmax(1) if on == "probabilities" else values, labels)[0]


@dataclass(frozen=True)
class MarginScore(Score):
    """Score by how far the best other class was ahead of the target at the last presentation.

    Args:
        on: ``"probabilities"`` (default) or ``"logits"``.
    """

    on: Scale = "probabilities"

    is_signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice("on", self.on, ("probabilities", "logits"))

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Keep the margin with its sign turned."""
        store["score"][seen.indices] = negative_margin(*logits_and_targets(seen, "The margin"), self.on)


@dataclass(frozen=True)
class AUMScore(Score):
    """Score by the mean margin over the presentations, with its sign turned.

    Args:
        on: ``"probabilities"`` (default), as the code of CCS, or ``"logits"``, as the paper on AUM.
    """

    on: Scale = "probabilities"

    is_signed: ClassVar[bool] = True
    measuring_epochs: ClassVar[int] = 20

    def __post_init__(self) -> None:
        check_choice("on", self.on, ("probabilities", "logits"))

    def columns(self) -> dict[str, float]:
        """Name the column that counts the presentations of each sample."""
        return mean_columns()

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Average the margin over the presentations."""
        add_to_mean(store, seen.indices, negative_margin(*logits_and_targets(seen, "AUM"), self.on))
