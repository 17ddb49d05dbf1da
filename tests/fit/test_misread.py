"""Losses measured under a reading that a later batch contradicts are forgotten, and it is said how many."""

import warnings
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dataselect import InfoBatch

N, B = 9, 2


class ByHand(L.LightningModule):
    """A factor of two digits may be 1 / B or a constant; a draw from Poisson's distribution hides single samples."""

    def __init__(self, draws: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.draws = nn.Linear(3, 2), draws

    def loss(self, x: Tensor) -> Tensor:
        return (0.5 / len(x)) * self.net(x).square().sum()

    def training_step(self, x: Tensor, batch_idx: int) -> Any:
        if self.draws:
            torch.poisson(torch.ones(1))
        return self.loss(x)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted(module: L.LightningModule, selector: Any, n_epochs: int) -> tuple[Tensor, Tensor, list[str]]:
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = L.Trainer(
            max_epochs=n_epochs, callbacks=[selector], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(module, DataLoader(x, B))
    said = [str(warning.message) for warning in caught if "forgotten" in str(warning.message)]
    return selector.losses, torch.stack([module.loss(one[None]).detach() for one in x]), said


@pytest.mark.parametrize("n_epochs", [1, 2])
def test_what_a_smaller_last_batch_contradicts_is_forgotten(n_epochs: int) -> None:
    losses, expected, said = fitted(ByHand(), InfoBatch(prune_ratio=0.0001), n_epochs)
    assert len(said) == 1 and "The losses of 8 samples" in said[0]
    seen = losses.isfinite()
    assert seen.sum() >= (1 if n_epochs == 1 else N - 1)
    torch.testing.assert_close(losses[seen], expected[seen])


def test_single_samples_leave_nothing_to_forget() -> None:
    losses, expected, said = fitted(ByHand(draws=False), InfoBatch(prune_ratio=0.5), 1)
    assert not said
    torch.testing.assert_close(losses, expected)
