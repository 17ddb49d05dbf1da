"""Several ranks look at a step again where its samples are of unlike lengths at last: each alone, or all at once."""

from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

B, N_BATCHES = 4, 3
seen: list[tuple[int, int, int]] = []  # of each run of the step, which a look at it leaves as it is


class Sorting(L.LightningModule):
    """Sorts the samples of a batch by their lengths, and lets the ranks talk to each other if that is wanted."""

    def __init__(self, talks: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.talks, self.net = talks, nn.Linear(1, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        seen.append((self.trainer.current_epoch, batch_idx, len(batch)))
        mean = torch.ones(1)
        if self.talks:
            dist.all_reduce(mean)
        x = torch.stack([row[0] for row in sorted(batch, key=len)])[:, None]
        return F.cross_entropy(self.net(x), (x[:, 0] > 0).long()) / mean.item()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def looks_of(*, talks: bool, uneven_rank: int | None, **ranks: Any) -> Any:
    """Return what a fit ends with, the looks at parts of a batch, by epoch and batch, and what was said."""
    world, n = ranks.get("devices", 1), B * N_BATCHES * ranks.get("devices", 1)
    data = [torch.full((5,), i / n - 0.5) for i in range(n)]
    if uneven_rank is not None:  # the last batch of that rank; without shuffling, rank r has every world-th sample
        for k, i in enumerate(range(n - world * B + uneven_rank, n, world)):
            data[i] = data[i].repeat(B - k)
    module = Sorting(talks)
    trainer = L.Trainer(
        max_epochs=3, callbacks=[InfoBatch(prune_ratio=0.5, warmup_epochs=3)], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **ranks,
    )  # fmt: skip
    seen.clear()
    said = None
    try:
        trainer.fit(module, DataLoader(data, B, collate_fn=list))
    except (CaptureError, RuntimeError) as error:  # or that the other rank is gone
        said = str(error)
    return said, {(epoch, batch) for epoch, batch, size in seen if size < B}


@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
def test_ranks_whose_samples_stay_alike_look_once(talks: bool, tmp_path: Any) -> None:
    for error, looks in on_ranks(looks_of, 2, tmp_path / "ranks", talks=talks, uneven_rank=None):
        assert error is None and looks == {(0, 0)}


@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
def test_what_one_rank_alone_meets_is_refused(talks: bool, tmp_path: Any) -> None:
    """At once where ranks need not wait for each other, else in the first batch of the next epoch."""
    ranks = on_ranks(looks_of, 2, tmp_path / "ranks", talks=talks, uneven_rank=1)
    said, looks = ranks[1]
    assert said is not None, ranks
    assert "reorders the samples of a batch" in said
    assert looks == {(0, 0), (int(talks), N_BATCHES - 1)}
    assert ranks[0][1] == ({(0, 0), (1, 0)} if talks else {(0, 0)})
