"""Two machines, as far as one can stand in for them: two network namespaces joined by a cable, a process in each."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import Net, Shares, fit, loader

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines():
    """Names of two namespaces that reach each other at 10.99.0.1 and 10.99.0.2, each by its interface of that name."""
    names = [f"select{i}-{os.getpid()}" for i in (0, 1)]
    ends = [f"sel{i}{os.getpid() % 10**6}" for i in (0, 1)]
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for i, (name, end) in enumerate(zip(names, ends, strict=True)):
                ip("link", "set", end, "netns", name)
                ip("-n", name, "addr", "add", f"10.99.0.{i + 1}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield list(zip(names, ends, strict=True))


def test_two_machines_choose_and_end_as_one_process(machines, tmp_path):
    running = []
    for node, (name, interface) in enumerate(machines):
        environment = os.environ | {
            "MASTER_ADDR": "10.99.0.1", "MASTER_PORT": "29500", "NODE_RANK": str(node), "LOCAL_RANK": "0",
            "GLOO_SOCKET_IFNAME": interface, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        }  # fmt: skip
        command = ["ip", "netns", "exec", name, sys.executable, TESTS / "one_node.py", tmp_path / f"{node}.pt"]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [process.communicate(timeout=280)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    nodes = [torch.load(tmp_path / f"{node}.pt") for node in (0, 1)]
    selector = Shares(1.0, 0.6, 0.2)
    _, net = fit(selector, Net(), loader(batch_size=20), max_epochs=3)
    for rank, node in enumerate(nodes):
        assert node["rank"] == rank and node["backward"] == [record["n_backward"] for record in selector.history]
        torch.testing.assert_close(node["scores"], selector.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(node["weights"], list(net.state_dict().values()), rtol=1e-4, atol=1e-5)
