"""Jobs that SLURM takes back: Lightning saves where the fit is, and the same script goes on when started again."""

import multiprocessing
import os
import signal

import pytest
import torch
from helpers import Net, loader, trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from resume_helpers import facts
from schedule_helpers import one_cycle

from lightning_dataselect import EvolvedSampling, Frontier, InfoBatch

JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1",
    "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip
# as slurmctld does: the job is queued again, and what runs of it is told to end
SCONTROL = '#!/bin/sh\necho "$@" >> "$REQUEUED"\nkill -TERM $PPID\n'

METHODS = {
    "InfoBatch": lambda: InfoBatch(prune_ratio=0.5),
    "EvolvedSampling": lambda: EvolvedSampling(warmup_epochs=0),
    "Frontier": lambda: Frontier(budget=0.5),
}
TOLD: list[int] = []  # of this process; the module's own would be as before after a step that is only looked at


class TakenBack(Net):
    """Is told to save and to end the first time that it is asked for its loss after ``step`` steps of the optimizer."""

    def __init__(self, step, late):
        super().__init__(one_cycle)
        self.step, self.late = step, late

    def training_step(self, batch, batch_idx):
        is_told = self.trainer.global_step == self.step and not TOLD
        if is_told:
            TOLD.append(self.step)
        if is_told and not self.late:
            os.kill(os.getpid(), signal.SIGUSR1)
        loss = super().training_step(batch, batch_idx)
        if is_told and self.late:
            os.kill(os.getpid(), signal.SIGUSR1)
        return loss


def script(folder, method, step, late):
    os.environ |= {**JOB, "REQUEUED": str(folder / "requeued"), "PATH": f"{folder}:{os.environ['PATH']}"}
    torch.seed()
    selector, net = METHODS[method](), TakenBack(step, late)
    slurm = SLURMEnvironment(auto_requeue=True)
    made = trainer(selector, max_epochs=5, plugins=[slurm], default_root_dir=folder)
    made.fit(net, loader(batch_size=20), loader(50, 25, False))
    torch.save(facts(selector, made, net), folder / "facts.pt")


def run(folder, method, step=-1, late=False):
    """Run the job once; return how often it was queued again so far, and its facts once it has come to its end."""
    folder.mkdir(exist_ok=True)
    scontrol = folder / "scontrol"
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    process = multiprocessing.get_context("fork").Process(target=script, args=(folder, method, step, late))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    requeued = (folder / "requeued").read_text().splitlines() if (folder / "requeued").exists() else []
    assert set(requeued) <= {"requeue 4711"}
    end = folder / "facts.pt"
    return len(requeued), torch.load(end) if end.exists() else None


def comparable(end, method):
    """Return the facts, but how many samples went forward where each start counts those that it scores anew."""
    history, *others = end
    again = {"n_forward"} if method == "EvolvedSampling" else set()
    return [{name: value for name, value in record.items() if name not in again} for record in history], others


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_requeued_within_an_epoch_the_fit_is_the_same_bit_for_bit(tmp_path, method):
    _, undisturbed = run(tmp_path / "undisturbed", method)
    folder = tmp_path / "requeued"
    # the first signal comes while the step is looked at, or scored; each start goes on from where the last one was
    for times, (step, late) in enumerate([(0, True), (3, False), (8, True)], start=1):
        assert run(folder, method, step, late) == (times, None)
        saved = torch.load(folder / f"hpc_ckpt_{times}.ckpt", weights_only=True)
        assert saved["global_step"] == step
    times, end = run(folder, method)
    assert (times, comparable(end, method)) == (3, comparable(undisturbed, method))
