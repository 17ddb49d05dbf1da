"""Several processes select alike, share an epoch evenly, and end with the scores of one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from helpers import Hardest, Net, Seen, Shares, dataset, fit, loader, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import free_port, on_ranks
from schedule_helpers import one_cycle
from torch.utils.data import DataLoader, DistributedSampler, WeightedRandomSampler

from lightning_dataselect.state.selection import Selection

N, EPOCHS = 100, 4


class Chosen(L.Callback):
    """Writes down the selection of each epoch."""

    def __init__(self, selector):
        self.selector, self.by_epoch = selector, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.by_epoch.append(self.selector.selected.tolist())


def run(selector, batch_size, train=None, steps=None, **flags):
    net, seen, chosen = Net(one_cycle), Seen(selector), Chosen(selector)
    keep = [ModelCheckpoint(steps, every_n_train_steps=1, save_top_k=-1, filename="{step}")] if steps else []
    made, _ = fit(
        selector,
        net,
        train or loader(batch_size=batch_size),
        callbacks=[seen, chosen, *keep],
        enable_checkpointing=bool(keep),
        **{"max_epochs": EPOCHS, **flags},
    )
    return {
        "scores": selector.scores,
        "losses": selector.losses,
        "chosen": chosen.by_epoch,
        "batches": seen.batches,
        "sizes": [(s.epoch, s.size) for s in net.steps],
        "validated": net.validated,
        "backward": [r["n_backward"] for r in selector.history],
        "weights": list(net.state_dict().values()),
        "ends": (made.global_step, made.lr_scheduler_configs[0].scheduler.last_epoch),
    }


def hardest(**options):
    return run(Hardest(prune_ratio=0.37, whole_batches=False), **options)


def shares(**options):
    return run(Shares(1.0, 0.6, 0.2), **options)


def weighted(**options):
    sampler = WeightedRandomSampler(torch.arange(100.0), 100)
    return run(Shares(1.0, 0.5), train=DataLoader(dataset(), 10, sampler=sampler), batch_size=10, **options)


class Spread(DistributedSampler):
    """A sharding sampler of the user's own, as those that balance or weigh: Lightning leaves it as it is."""

    def __iter__(self):
        # of unlike shards, so that a selection leaves the ranks unlike numbers of samples
        return iter(torch.arange(len(self.dataset)).tensor_split(self.num_replicas)[self.rank].tolist())


class SpreadNet(Net):
    def train_dataloader(self):
        shard = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank}
        return DataLoader(dataset(), 10, sampler=Spread(dataset(), **shard))


class FirstOnes(Shares):
    """Keeps the first samples, nearly all of them of the first rank."""

    def select(self, epoch, scores, generator):
        return Selection(torch.arange(round(scores.numel() * self.shares[epoch % len(self.shares)])))


def spread(**options):
    selector, net = FirstOnes(1.0, 0.6, 0.52), SpreadNet()
    seen = Seen(selector)
    trainer(selector, seen, max_epochs=3, **options).fit(net)
    backward = [r["n_backward"] for r in selector.history]
    return {"batches": seen.batches, "backward": backward, "losses": selector.losses}


def own(rank, epoch):
    return [i for e, batch in rank["batches"] if e == epoch for i in batch if i < N]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("world", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_ranks_select_alike_and_share_each_epoch_evenly(tmp_path, world):
    batch_size = 20 // world
    ranks = on_ranks(hardest, world, tmp_path, batch_size=batch_size)
    first = ranks[0]
    assert [len(chosen) for chosen in first["chosen"]] == [100, 63, 63, 63]
    for rank in ranks:
        assert rank["chosen"] == first["chosen"] and rank["backward"] == first["backward"]
        assert equal(
            (rank["scores"], rank["losses"], *rank["weights"]), (first["scores"], first["losses"], *first["weights"])
        )
    for epoch, chosen in enumerate(first["chosen"]):
        assert sorted(sum((own(rank, epoch) for rank in ranks), [])) == chosen, "once each, padding apart"
        per_rank = -(-len(chosen) // world)
        for rank in ranks:
            sizes = [size for e, size in rank["sizes"] if e == epoch]
            assert len(sizes) == -(-per_rank // batch_size) and sum(sizes) == per_rank
        assert first["backward"][epoch] == per_rank * world
    assert len(first["validated"]) == EPOCHS


@pytest.mark.parametrize("world", [2, 4])
def test_merged_scores_are_those_of_one_rank(tmp_path, world):
    # 60 and 20 of 100 in batches of 20 leave no padding, so that all train on the same global batches
    (alone,) = on_ranks(shares, 1, tmp_path / "alone", batch_size=20)
    ranks = on_ranks(shares, world, tmp_path / "ranks", batch_size=20 // world)
    for rank in ranks:
        assert (rank["chosen"], rank["ends"]) == (alone["chosen"], alone["ends"])
        torch.testing.assert_close(rank["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rank["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    assert not alone["scores"].isnan().any()


def test_resumes_in_the_middle_of_an_epoch(tmp_path):
    whole = on_ranks(hardest, 2, tmp_path / "whole", batch_size=10, steps=tmp_path / "steps")
    assert len(whole[0]["sizes"]) == 5 + 3 * 4
    for step in (3, 5, 8):
        path = tmp_path / "steps" / f"step={step}.ckpt"
        resumed = on_ranks(hardest, 2, tmp_path / str(step), batch_size=10, ckpt_path=path)
        for again, before in zip(resumed, whole, strict=True):
            assert again["batches"] == before["batches"][step:]
            assert equal((again["scores"], again["losses"]), (before["scores"], before["losses"]))
            assert equal(again["weights"], before["weights"])
            assert again["ends"] == before["ends"]


def test_a_random_sampler_of_ones_own_is_drawn_alike_on_every_rank(tmp_path):
    ranks = on_ranks(weighted, 2, tmp_path)
    for epoch in range(EPOCHS):
        counts = [len([i for e, batch in rank["batches"] if e == epoch for i in batch]) for rank in ranks]
        assert counts[0] == counts[1]
        assert set(sum((own(rank, epoch) for rank in ranks), [])) <= set(ranks[0]["chosen"][epoch])
    # the ranks' global random states differ, so only one drawing that is shared gives the same positions
    assert ranks[0]["ends"] == ranks[1]["ends"] and equal(ranks[0]["weights"], ranks[1]["weights"])


@pytest.mark.parametrize("flags", [{}, {"use_distributed_sampler": False}], ids=str)
def test_ranks_that_draw_for_themselves_train_on_all_that_is_selected(tmp_path, flags):
    ranks = on_ranks(spread, 2, tmp_path, **flags)
    assert [sorted(own(rank, 0)) for rank in ranks] == [list(range(50)), list(range(50, 100))]
    for epoch, n in enumerate((100, 60, 52)):
        shares = [own(rank, epoch) for rank in ranks]
        assert sorted(sum(shares, [])) == list(range(n)) and len(shares[0]) == len(shares[1])
    assert ranks[0]["backward"] == [100, 60, 52]
    assert not ranks[0]["losses"].isnan().any() and equal(ranks[0]["losses"], ranks[1]["losses"])


def test_sharding_may_be_turned_off(tmp_path):
    ranks = on_ranks(hardest, 2, tmp_path, batch_size=10, use_distributed_sampler=False)
    assert ranks[0]["chosen"] == ranks[1]["chosen"]
    for rank in ranks:
        assert [sorted(own(rank, e)) for e in range(EPOCHS)] == rank["chosen"]


SCRIPT = """
import sys
import torch
from helpers import Hardest, fit, loader

selector = Hardest(prune_ratio=0.4)
trainer, net = fit(selector, train=loader(batch_size=10), strategy="ddp", devices=2, max_epochs=2)
torch.save([selector.scores, selector.selected], f"{sys.argv[1]}/rank{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_a_script_that_lightning_starts_itself(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    launched = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR"}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.getcwd()])
    env = {k: v for k, v in os.environ.items() if k not in launched and not k.startswith("PYTEST")}
    env |= {"MASTER_PORT": free_port(), "PYTHONPATH": paths}
    command = [sys.executable, tmp_path / "train.py", tmp_path]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search(r"self\.log\('(kept'|dataselect/)", done.stderr), "all ranks have the same figures"
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    assert equal(first, second) and first[1].numel() == 60


class Report(L.Callback):
    """Writes down what a rank's selector has come to, from the rank's own process."""

    def __init__(self, selector, folder):
        self.selector, self.folder = selector, folder

    def on_train_end(self, trainer, pl_module):
        facts = [self.selector.scores, self.selector.selected, trainer.global_step]
        torch.save(facts, self.folder / f"rank{trainer.global_rank}.pt")


STARTED = {"ddp_spawn": 2, "ddp_notebook": 2, "ddp_fork": 2}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STARTED)
def test_processes_that_the_trainer_starts(tmp_path, strategy, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", free_port())
    selector = Hardest(prune_ratio=0.4)
    made, net = fit(
        selector, train=loader(batch_size=10), strategy=strategy, devices=2, max_epochs=2,
        callbacks=[Report(selector, tmp_path)],
    )  # fmt: skip
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(2))
    assert equal(first[:2], second[:2]) and first[1].numel() == 60 and first[2] == second[2] == 5 + 3
    assert not torch.equal(net.net[0].weight, Net().net[0].weight), "the trained weights came back"
    with pytest.raises(RuntimeError, match="ended with them"):
        _ = selector.scores
