"""The last loss of a sample."""

from dataclasses import dataclass

from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore


@dataclass(frozen=True)
class LossScore(Score):
    """Score by the last loss seen."""

    def rate(self, seen: Observation, store: ScoreStore) -> None:
        """Keep the loss."""
        store["score"].index_copy_(0, seen.indices, seen.losses)
