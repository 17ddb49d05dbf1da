"""Forget measurements that were made under a reading of the loss which a later batch has shown to be wrong."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn

from lightning_dataselect.state.run_state import RunState
from lightning_dataselect.step.reader import StepReader


def forget_misread(run: RunState, reader: StepReader, *, ends_epoch: bool) -> None:
    """Forget the measurements of all samples if the current batch contradicts the reading that they were made under.

    At the end of an epoch, single samples settle what its last batch has left in doubt.

    With several ranks this waits for the end of the epoch, and so it does if the answer is on a device. The ranks then
    also agree to probe the step again, if one of them has to and could not do so alone.

    Args:
        run: Holds the measurements.
        reader: Has made them.
        ends_epoch: True at the end of an epoch, before the ranks' writes are merged; all ranks must call it together.
    """
    if run.world_size > 1 and not ends_epoch:
        return
    if ends_epoch:
        reader.hearings.settle_doubts()
    misread = reader.capture.has_misread(wait=ends_epoch)
    if run.world_size > 1:
        own = [misread, reader.hearings.wait_for_ranks]
        anywhere = torch.tensor(own, dtype=torch.int32, device=run.store.device)
        dist.all_reduce(anywhere, dist.ReduceOp.MAX)
        misread, is_doubtful = map(bool, anywhere.tolist())
        if is_doubtful:
            reader.hearings.agree()
    if misread:
        reader.capture.probe_next()
        n = int(run.store.column("loss").isfinite().count_nonzero())
        run.store.forget_measured()
    if misread and n:
        rank_zero_warn(
            "In earlier batches it was ambiguous what the loss is divided by, or which of its rows belong to which"
            f" sample, and a later batch shows that they were misread. The losses of {n} samples that were measured"
            " before are forgotten, and the step is analysed again."
        )
