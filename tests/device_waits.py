"""Count, on a CPU, the calls that would make the host wait for a GPU."""

import traceback
from collections import Counter

import lightning as L
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Each needs a number on the host: a value, or the size of what comes out.
OPERATORS = {
    aten._local_scalar_dense: "item",
    aten.equal: "equal",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten._unique: "unique",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique_consecutive",
    aten.repeat_interleave: "repeat_interleave",
    aten.bincount: "bincount",
}
COPIES = {torch.Tensor.tolist: "tolist", torch.Tensor.numpy: "numpy", torch.Tensor.cpu: "cpu"}


def is_mask(index):
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def wait_of(operator, args, kwargs):
    """Name what an operator would wait for, or return None."""
    if operator.overloadpacket is aten.repeat_interleave and (len(args) < 2 or not isinstance(args[1], torch.Tensor)):
        return None if kwargs.get("output_size") is not None else "repeat_interleave"
    if operator.overloadpacket is aten.index and any(map(is_mask, args[1])):
        return "index by a mask"
    if operator.overloadpacket in (aten.index_put, aten.index_put_, aten._index_put_impl_):
        return "assignment by a mask" if any(map(is_mask, args[1])) and args[2].numel() > 1 else None
    return OPERATORS.get(operator.overloadpacket)


class Waits(TorchDispatchMode):
    """Counts, while it is active, each operator that would wait for the device, with the line of ours that calls it."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def count(self, name):
        ours = [frame for frame in traceback.extract_stack() if "/lightning_dataselect/" in frame.filename]
        place = ours[-1] if ours else None
        where = f"{place.filename.rsplit('/lightning_dataselect/', 1)[1]}:{place.lineno}" if place else "not ours"
        self.found[name, where] += 1

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = wait_of(operator, args, kwargs or {})
        if name is not None:
            self.count(name)
        return operator(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts, too, what reads a tensor's memory from Python and so never becomes an operator on a CPU."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in COPIES:
            self.waits.count(COPIES[function])
        return function(*args, **(kwargs or {}))


class SyncWarnings:
    """Lets CUDA warn of whatever waits for it."""

    def __enter__(self):
        torch.cuda.set_sync_debug_mode("warn")

    def __exit__(self, *_):
        torch.cuda.set_sync_debug_mode("default")


class Open(L.Callback):
    """Enters modes where a steady step begins; to be listed first.

    Args:
        steady: The epochs whose steps are steady, but for the first of each.
        modes: Context managers that can be entered again.
    """

    def __init__(self, steady, modes):
        self.steady, self.modes = steady, modes
        self.entered = []
        self.n_steps = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch in self.steady and batch_idx > 0:
            self.n_steps += 1
            for mode in self.modes:
                mode.__enter__()
                self.entered.append(mode)

    def close(self):
        while self.entered:
            self.entered.pop().__exit__(None, None, None)


class Close(L.Callback):
    """Leaves the modes where the step ends; to be listed last."""

    def __init__(self, opened):
        self.opened = opened

    def on_train_batch_end(self, *_):
        self.opened.close()

    def on_exception(self, *_):
        self.opened.close()


def waits_of_steady_steps(selector, steady, fit):
    """Fit, and return how often each thing waited in the steady steps, and how many of these there were."""
    waits = Waits()
    opened = Open(steady, [waits, Copies(waits)])
    try:
        fit([opened, *([] if selector is None else [selector]), Close(opened)])
    finally:
        opened.close()
    return waits.found, opened.n_steps
