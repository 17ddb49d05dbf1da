"""DeepSpeed, whose stage 3 puts a layer's weights in place for that layer alone: a fit ends as one under DDP.

DeepSpeed itself runs on a CPU. Lightning's strategy asks for GPUs, so the one here leaves out that check.
"""

import importlib.util
import os

import lightning as L
import pytest
import torch
from helpers import dataset
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks
from torch import nn
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, GraNd, InfoBatch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]
KINDS = {
    "set": lambda: InfoBatch(prune_ratio=0.5, anneal=0.0),
    "batch": lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0),
    "last layer": lambda: GraNd(layers="last", warmup_epochs=1),
    "all layers": lambda: GraNd(layers="all", warmup_epochs=1),
}


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        features, classes = dataset().tensors[0].shape[1], int(dataset().tensors[1].max()) + 1
        self.net = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, classes))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def on_cpu(stage):
    os.environ["DS_ACCELERATOR"] = "cpu"
    from lightning.pytorch.strategies import DeepSpeedStrategy

    class OnCpu(DeepSpeedStrategy):
        def setup_environment(self):
            super(DeepSpeedStrategy, self).setup_environment()

        def setup_distributed(self):
            self.set_world_ranks()
            self._init_deepspeed_distributed()

        @property
        def root_device(self):
            return torch.device("cpu", self.local_rank)

    strategy = OnCpu(stage=stage, process_group_backend="gloo")
    if stage == 3:  # else weights as small as these would stay whole
        strategy.config["zero_optimization"] |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 0,
        }
    return strategy


def whole(module, stage):
    if stage != 3:
        return [weight.detach().clone() for weight in module.parameters()]
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters())):
        return [weight.detach().clone() for weight in module.parameters()]


def trained(kind, stage, ckpt_path=None, saved=None, **options):
    """Fit on this rank, and return what was chosen by and what came of it."""
    selector, module = KINDS[kind](), Model()
    keep = [] if saved is None else [ModelCheckpoint(saved, "{step}", every_n_train_steps=7, save_top_k=-1)]
    if stage is not None:
        options["strategy"] = on_cpu(stage)
    trainer = L.Trainer(
        max_epochs=3, callbacks=[selector, *keep], logger=False, enable_checkpointing=bool(keep), accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    train = DataLoader(dataset(), 10, shuffle=True, generator=torch.Generator().manual_seed(1))
    trainer.fit(module, train, ckpt_path=ckpt_path)
    return {
        "scores": selector.scores,
        "backward": [record["n_backward"] for record in selector.history],
        "weights": whole(module, stage),
        "steps": trainer.global_step,
    }


def check_same(one, other):
    assert (one["backward"], one["steps"]) == (other["backward"], other["steps"])
    torch.testing.assert_close(one["scores"], other["scores"])
    torch.testing.assert_close(one["weights"], other["weights"])


@pytest.mark.parametrize(
    ("kind", "stage"), [(kind, 2) for kind in KINDS] + [(kind, 3) for kind in KINDS if kind != "all layers"]
)
def test_a_fit_ends_as_one_under_ddp(kind, stage, tmp_path):
    copies = on_ranks(trained, 2, tmp_path / "copies", kind=kind, stage=None)
    shards = on_ranks(trained, 2, tmp_path / "shards", kind=kind, stage=stage)
    for one, other in zip(copies, shards, strict=True):
        check_same(one, other)


def test_gradients_by_all_layers_are_refused_where_the_weights_are_split(tmp_path):
    with pytest.raises(AssertionError, match="The strategy splits the weights between the ranks"):
        on_ranks(trained, 2, tmp_path / "shards", kind="all layers", stage=3)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_fit_is_resumed_within_a_pruned_epoch(stage, tmp_path):
    through = on_ranks(trained, 2, tmp_path / "whole", kind="set", stage=stage, saved=tmp_path / "saved")
    again = on_ranks(trained, 2, tmp_path / "more", kind="set", stage=stage, ckpt_path=tmp_path / "saved/step=7.ckpt")
    check_same(through[0], again[0])
