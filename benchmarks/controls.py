"""Controls that no user needs: what a method has to beat to have chosen well."""

import torch
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.state.selection import Observation

_FIRST_OF_EPOCH = 2**62


class RandomWithinBatches(BatchSelector):
    """Trains on a random part of each batch, and scores none but the first of an epoch.

    A method that cuts batches takes as many steps as full data does, of fewer samples each; `short` takes fewer steps
    of whole batches. Where small batches learn more from a sample, such a method beats `short` whatever it chooses.
    This one costs the same, takes the same steps, and does not choose.

    Args:
        batch_ratio: Share of each batch that is trained on.
        warmup_epochs: Epochs at the start on whole batches.
        seed: Of the draws.
    """

    def __init__(self, *, batch_ratio: float = 0.5, warmup_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(
            batch_ratio=batch_ratio, warmup_epochs=warmup_epochs, seed=seed, score_every_n_batches=_FIRST_OF_EPOCH
        )

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Draw ``k`` positions at random."""
        return torch.rand(len(seen.indices), generator=generator, device=seen.indices.device).topk(k).indices
