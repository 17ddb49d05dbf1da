"""Sharded models: selection touches no parameter, so a fit under FSDP2 chooses and ends as one under DDP."""

import lightning as L
import pytest
import torch
from helpers import dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from ranks import on_ranks
from torch import nn
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, GraNd, InfoBatch

pytestmark = pytest.mark.slow
KINDS = {
    "set": lambda: InfoBatch(prune_ratio=0.5, anneal=0.0),
    "batch": lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0),
    "last layer": lambda: GraNd(layers="last", warmup_epochs=1),
}
ALL_LAYERS = {"all layers": lambda: GraNd(layers="all", warmup_epochs=1)}


class Sharded(L.LightningModule):
    """A perceptron each of whose layers is split between the ranks, where the strategy has a mesh of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        features, classes = dataset().tensors[0].shape[1], int(dataset().tensors[1].max()) + 1
        self.net = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, classes))

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            from torch.distributed.fsdp import fully_shard

            for part in (self.net[0], self.net[2], self.net):
                fully_shard(part, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def trained(kind, sharded, ckpt_path=None, saved=None, every=None, **options):
    """Fit on this rank, and return what was chosen by and what came of it."""
    selector, module = (KINDS | ALL_LAYERS)[kind](), Sharded()
    keep = [] if saved is None else [ModelCheckpoint(saved, "{step}", every_n_train_steps=every, save_top_k=-1)]
    if sharded:
        options["strategy"] = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = L.Trainer(
        max_epochs=3, callbacks=[selector, *keep], logger=False, enable_checkpointing=bool(keep),
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    train = DataLoader(dataset(), 10, shuffle=True, generator=torch.Generator().manual_seed(1))
    trainer.fit(module, train, ckpt_path=ckpt_path)
    weights = [w.full_tensor() if hasattr(w, "full_tensor") else w for w in module.parameters()]
    return {
        "losses": selector.losses,
        "scores": selector.scores,
        "backward": [record["n_backward"] for record in selector.history],
        "weights": [w.detach() for w in weights],
        "steps": trainer.global_step,
    }


def check_same(one, other):
    assert (one["backward"], one["steps"]) == (other["backward"], other["steps"])
    torch.testing.assert_close(one["losses"], other["losses"])
    torch.testing.assert_close(one["scores"], other["scores"])
    torch.testing.assert_close(one["weights"], other["weights"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_fit_ends_as_one_of_whole_copies(kind, tmp_path):
    copies = on_ranks(trained, 2, tmp_path / "copies", kind=kind, sharded=False)
    shards = on_ranks(trained, 2, tmp_path / "shards", kind=kind, sharded=True)
    assert sum(shards[0]["backward"]) < 3 * len(dataset())
    for one, other in zip(copies, shards, strict=True):
        check_same(one, other)


def test_gradients_by_all_layers_are_refused(tmp_path):
    """A layer's weights are not those that the optimizer holds: its gradients would all seem to be 0."""
    with pytest.raises(AssertionError, match="The strategy splits the weights between the ranks"):
        on_ranks(trained, 2, tmp_path / "shards", kind="all layers", sharded=True)


def test_a_sharded_fit_is_resumed_within_a_pruned_epoch(tmp_path):
    whole = on_ranks(trained, 2, tmp_path / "whole", kind="set", sharded=True, saved=tmp_path / "saved", every=7)
    resumed = on_ranks(
        trained, 2, tmp_path / "more", kind="set", sharded=True, ckpt_path=tmp_path / "saved/step=7.ckpt"
    )
    check_same(whole[0], resumed[0])
