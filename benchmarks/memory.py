"""The most memory that a training step holds at a time, or the process as a whole."""

import contextlib
import re
import resource
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


class PeakMemory(pl.Callback):
    """Records the bytes that each step has allocated at its peak, beyond those at its start.

    On the CPU the profiler tells of every allocation; list it first among the callbacks.
    """

    def __init__(self) -> None:
        self.peaks: list[int] = []
        self._profiler: profile | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        self._stop()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profiler.start()

    def on_train_end(self, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self.peaks.append(peak_bytes(self._profiler))
            self._profiler = None
        elif torch.cuda.is_available() and hasattr(self, "_before"):
            self.peaks.append(torch.cuda.max_memory_allocated() - self._before)


def peak_bytes(profiler: profile) -> int:
    """Return the most bytes held at a time, of those allocated on the CPU under a profiler with ``profile_memory``.

    Each allocation carries the running total of torch's own reporter, so that one that the profiler loses, as it may on
    a busy machine, moves no other.
    """
    allocations, events = [], list(profiler.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
            allocations.append(event)
    if not allocations:
        return 0
    first = min(allocations, key=lambda event: event.start_time_ns).extra_fields
    held_before = first.total_allocated - first.alloc_size
    return max(event.extra_fields.total_allocated for event in allocations) - held_before


def process_peak_from_now() -> int:
    """Forget the peak so far, on Linux, and return the bytes that the process holds."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return process_peak_bytes()


def process_peak_bytes() -> int:
    """Return the most bytes that the process has held at a time."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found is not None:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
