"""Processes that are really killed, and resumed from the last checkpoint that they left."""

import multiprocessing
import os
import random
import signal

import pytest
import torch
from helpers import Hardest, Net, fit, loader
from lightning.pytorch.callbacks import ModelCheckpoint
from resume_helpers import facts
from schedule_helpers import one_cycle

STEPS = 5 + 3 * 3


class Mortal(Net):
    """Kills its process in its ``fatal``-th training step, before or after the loss is computed."""

    def __init__(self, fatal, late):
        super().__init__(one_cycle)
        self.fatal, self.late = fatal, late

    def training_step(self, batch, batch_idx):
        dies = self.trainer.global_step == self.fatal
        if dies and not self.late:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = super().training_step(batch, batch_idx)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss


def train(folder, workers, fatal, late):
    # each process has its own global random state, as a new process of the user's would
    torch.seed()
    keep = ModelCheckpoint(folder, filename="last", every_n_train_steps=1, enable_version_counter=False)
    selector, net = Hardest(prune_ratio=0.5), Mortal(fatal, late)
    last = folder / "last.ckpt"
    trainer, _ = fit(
        selector, net, loader(batch_size=20, num_workers=workers), callbacks=[keep], enable_checkpointing=True,
        ckpt_path=last if last.exists() else None,
    )  # fmt: skip
    torch.save(facts(selector, trainer, net), folder / "facts.pt")


def run(folder, workers, fatal=-1, late=False):
    process = multiprocessing.get_context("fork").Process(target=train, args=(folder, workers, fatal, late))
    process.start()
    process.join(280)
    return process.exitcode


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, 0) == 0
    return torch.load(folder / "facts.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        *((0, [step]) for step in random.Random(1).sample(range(STEPS), 6)),
        *((2, [step]) for step in random.Random(2).sample(range(STEPS), 3)),
        (0, [2, 5, 11]),
        (2, [4, 9]),
    ],
    ids=str,
)
def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path, never_killed, workers, kills):
    for step in kills:
        assert run(tmp_path, workers, step, late=step % 2 == 1) == -signal.SIGKILL
        assert (tmp_path / "last.ckpt").exists() is (step > 0)
    assert run(tmp_path, workers) == 0
    assert torch.load(tmp_path / "facts.pt") == never_killed
