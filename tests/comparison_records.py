"""Runs made by hand, to sum up."""

from lightning_dataselect.comparison.runs.records import Point, RunRecord

N, EPOCHS = 100, 10


def record(
    method,
    seed,
    value,
    *,
    epochs=EPOCHS,
    seconds=1.0,
    cpu=None,
    n_backward=None,
    n_forward=None,
    kept=(),
    waiting=0.0,
    busy=None,
    epochs_done=None,
    ended_by="",
    device="cpu",
    curve=None,
):
    cpu = seconds if cpu is None else cpu
    n_backward = N * epochs if n_backward is None else n_backward
    return RunRecord(
        method=method,
        seed=seed,
        epochs=epochs,
        epochs_done=epochs_done or epochs,
        ended_by=ended_by,
        value=value,
        best=value,
        tested={},
        seconds=seconds,
        cpu_seconds=cpu,
        waiting_seconds=waiting,
        gpu_busy=busy,
        validation_seconds=0.0,
        n_total=N,
        n_forward=n_backward if n_forward is None else n_forward,
        n_backward=n_backward,
        curve=curve or [Point(seconds, value, cpu, n_backward)],
        kept=list(kept),
        histogram=None,
        device=device,
        fingerprint={},
        n_threads=1,
    )


def pruned(method, seed, value, n_backward=N * EPOCHS // 2, **others):
    return record(method, seed, value, n_backward=n_backward, kept=[0.5], **others)
