"""Each rank has its own Assistant; all take as many steps, count alike, and resume with their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import free_port

N = 201
SCRIPT = Path(__file__).with_name("autoassist_ddp.py")


def launch(folder, synchronous, checkpoint="none"):
    folder.mkdir(exist_ok=True)
    ranks = {"LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "RANK"}
    clean = {k: v for k, v in os.environ.items() if k not in ranks and not k.startswith("PYTEST")}
    path = os.pathsep.join(filter(None, [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH")]))
    env = {**clean, "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    arguments = [sys.executable, SCRIPT, folder, "yes" if synchronous else "no", checkpoint]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check(ranks):
    first, second = ranks
    assert same(first["weights"], second["weights"])
    assert first["history"] == second["history"]
    for name in ("scores", "losses"):
        assert torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1))
    for epoch, record in enumerate(first["history"]):
        own = [[batch for e, batch in rank["batches"] if e == epoch] for rank in ranks]
        assert len(own[0]) == len(own[1]) == 6, "equal batch counts"
        trained = [i for batches in own for batch in batches for i in batch]
        assert record["n_backward"] == record["n_forward"] == len(trained)
        assert len([i for i in trained if i < N]) == len({i for i in trained if i < N})
    assert first["history"][-1]["n_backward"] < N


def test_two_ranks_share_each_epoch_though_assistants_differ(tmp_path):
    check(launch(tmp_path, synchronous=False))


@pytest.mark.slow
def test_two_ranks_resume_with_their_own_assistants(tmp_path):
    ranks = launch(tmp_path / "whole", synchronous=True)
    check(ranks)
    a, b = (rank["assistant"]["network"] for rank in ranks)
    assert not same(a, b)
    resumed = launch(tmp_path / "again", True, str(tmp_path / "whole" / "step=7.ckpt"))
    for again, before in zip(resumed, ranks, strict=True):
        assert again["history"] == before["history"]
        assert same(again["weights"], before["weights"])
        assert same(again["assistant"]["network"], before["assistant"]["network"])
        assert again["batches"] == before["batches"][7:]
