"""Run a function on several ranks: forked processes that a Trainer with strategy="ddp" finds each other in."""

import contextlib
import multiprocessing
import os
import random
import socket
import traceback

import torch


def free_port():
    """Return a port that is free, and that the system gives to no client before it is used."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # below what Linux, macOS and Windows give to clients
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return str(port)


def _rank(function, rank, world, port, folder, options):
    # with these, Lightning takes the processes for started by a launcher
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    torch.seed()
    spread = {"strategy": "ddp", "devices": world} if world > 1 else {}
    try:
        torch.save(function(**spread, **options), folder / f"rank{rank}.pt")
    except BaseException:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)


def on_ranks(function, world, folder, **options):
    """Return the results of ``function(strategy=, devices=, **options)`` on each of ``world`` ranks."""
    folder.mkdir(exist_ok=True)
    port, context = free_port(), multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(function, r, world, port, folder, options)) for r in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(280)
        process.kill()
    errors = "\n".join(path.read_text() for path in folder.glob("rank*.txt"))
    assert [process.exitcode for process in ranks] == [0] * world, errors
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(world)]
