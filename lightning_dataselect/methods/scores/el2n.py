"""EL2N: the length of the error vector; see `lightning_dataselect.methods.el2n`."""

from dataclasses import dataclass
from typing import ClassVar

from lightning_dataselect.methods.classification import logits_and_targets, output_error
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.methods.scores.presentations import add_to_mean, mean_columns
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore


@dataclass(frozen=True)
class EL2NScore(Score):
    """Score by the length of softmax minus target, averaged over the presentations."""

    measuring_epochs: ClassVar[int] = 10

    def columns(self) -> dict[str, float]:
        """Name the column that counts the measurements of each sample."""
        return mean_columns()

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Average the error's length over the presentations."""
        error = output_error(*logits_and_targets(seen, "EL2N"))
        add_to_mean(store, seen.indices, error.norm(dim=1))
