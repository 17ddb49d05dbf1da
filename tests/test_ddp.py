"""Several processes select alike, share an epoch evenly, and end with the scores of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

N, EPOCHS = 100, 4
SCRIPT = Path(__file__).with_name("ddp_fit.py")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def launch(folder, world, **config):
    """Run the script on ``world`` ranks and return what each has written."""
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps({"selector": "hardest", "world": world, "folder": str(folder), **config}))
    ranks = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "RANK"}
    clean = {k: v for k, v in os.environ.items() if k not in ranks and not k.startswith("PYTEST")}
    env = {**clean, "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, path], env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(world)]


def own(rank, epoch):
    return [i for e, batch in rank["batches"] if e == epoch for i in batch if i < N]


def check_shares(ranks, batch_size):
    first = ranks[0]
    for rank in ranks:
        assert rank["chosen"] == first["chosen"]
        assert torch.equal(rank["scores"], first["scores"]) and torch.equal(rank["losses"], first["losses"])
        assert [h["n_backward"] for h in rank["history"]] == [h["n_backward"] for h in first["history"]]
        assert all(torch.equal(rank["weights"][k], v) for k, v in first["weights"].items())
    for epoch, chosen in enumerate(first["chosen"]):
        drawn = sum((own(rank, epoch) for rank in ranks), [])
        assert sorted(drawn) == chosen, "each selected sample once, padding apart"
        per_rank = -(-len(chosen) // len(ranks))
        for rank in ranks:
            sizes = [size for e, size in rank["sizes"] if e == epoch]
            assert len(sizes) == -(-per_rank // batch_size) and sum(sizes) == per_rank
        assert first["history"][epoch]["n_backward"] == per_rank * len(ranks)
    assert len(first["validated"]) == EPOCHS


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("one"), 1, batch_size=20)[0]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_agree_and_match_one_rank(tmp_path, one_rank, world):
    # 63 samples on 2 or 4 ranks leave padding; the global batch of 20 is the same
    ranks = launch(tmp_path, world, batch_size=20 // world)
    check_shares(ranks, 20 // world)
    assert ranks[0]["calls"] == one_rank["calls"]
    full = ranks[0]["chosen"][0]
    assert full == one_rank["chosen"][0] == list(range(N))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_merged_scores_are_those_of_one_rank(tmp_path, one_rank, world):
    # 60 of 100 and batches of 20: no padding, so that both train on the same batches
    flags = {"flags": {"max_epochs": 2}, "selector": "shares"}
    (alone,) = launch(tmp_path / "alone", 1, batch_size=20, **flags)
    ranks = launch(tmp_path / "ranks", world, batch_size=20 // world, **flags)
    assert ranks[0]["chosen"] == alone["chosen"]
    for rank in ranks:
        torch.testing.assert_close(rank["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rank["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    assert not alone["scores"].isnan().any()


@pytest.mark.slow
def test_resumes_in_the_middle_of_an_epoch(tmp_path):
    whole = launch(tmp_path / "whole", 2, batch_size=10, save=True)
    assert len(whole[0]["sizes"]) == 5 + 3 * 4
    for step in (3, 5, 8):
        (path,) = (tmp_path / "whole" / "steps").glob(f"step={step}.ckpt")
        resumed = launch(tmp_path / f"from{step}", 2, batch_size=10, ckpt_path=str(path))
        for again, before in zip(resumed, whole, strict=True):
            assert again["batches"] == before["batches"][step:]
            assert torch.equal(again["scores"], before["scores"])
            assert torch.equal(again["losses"], before["losses"])
            assert all(torch.equal(again["weights"][k], v) for k, v in before["weights"].items())
            assert (again["steps"], again["calls"]) == (before["steps"], before["calls"])


@pytest.mark.slow
def test_a_random_sampler_of_ones_own_is_drawn_alike_on_every_rank(tmp_path):
    ranks = launch(tmp_path, 2, batch_size=10, weighted=True, selector="shares")
    for epoch in range(EPOCHS):
        halves = [own(rank, epoch) for rank in ranks]
        assert abs(len(halves[0]) - len(halves[1])) <= 1
        assert set(sum(halves, [])) <= set(ranks[0]["chosen"][epoch])
    assert halves[0] != halves[1]


@pytest.mark.slow
def test_sharding_may_be_turned_off(tmp_path):
    ranks = launch(tmp_path, 2, batch_size=10, flags={"use_distributed_sampler": False})
    assert ranks[0]["chosen"] == ranks[1]["chosen"]
    for rank in ranks:
        assert [sorted(own(rank, e)) for e in range(EPOCHS)] == rank["chosen"]
