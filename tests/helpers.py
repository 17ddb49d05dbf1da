"""A small module, data, selectors whose choice is known beforehand, and a Trainer without side effects."""

import atexit
import inspect
from dataclasses import dataclass

import lightning as L
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.state.selection import Selection

N = 100
# a checkpoint must be readable without trusting its sender, where this lightning can be told so
SAFELY = {"weights_only": True} if "weights_only" in inspect.signature(L.Trainer.fit).parameters else {}


@atexit.register
def leave_process_group():
    # a process that ends with gloo's threads running aborts now and then, whatever it ran:
    # https://github.com/pytorch/pytorch/issues/190489. Lightning leaves the group by itself on NCCL alone
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def dataset(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def loader(n=N, batch_size=10, shuffle=True, **options):
    return DataLoader(dataset(n), batch_size=batch_size, shuffle=shuffle, **options)


@dataclass
class Step:
    """Record what a training step sees of the Trainer."""

    epoch: int
    batch_idx: int
    size: int
    is_last: bool
    lr: float


class Net(L.LightningModule):
    """A two-layer classifier that writes down its steps; ``schedule(optimizer, trainer)`` makes its scheduler."""

    def __init__(self, schedule=None, lr=0.1, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        self.schedule, self.lr = schedule, lr
        self.steps: list[Step] = []
        self.validated: list[tuple[int, int]] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.steps.append(Step(self.trainer.current_epoch, batch_idx, len(x), self.trainer.is_last_batch, lr))
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))

    def on_validation_start(self):
        if not self.trainer.sanity_checking:
            self.validated.append((self.trainer.current_epoch, len(self.steps)))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer, self.trainer)}

    def count(self, epoch):
        return sum(step.epoch == epoch for step in self.steps)


class ByHand(L.LightningModule):
    """Takes the steps of its optimizer itself; to be listed before the module whose loss that is."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Shares(DataSelector):
    """Keeps a random choice of the given share in each epoch, over and over."""

    weighted = False

    def __init__(self, *shares, **common):
        super().__init__(**{"warmup_epochs": 0, "whole_batches": False, **common})
        self.shares = shares

    def select(self, epoch, scores, generator):
        n = scores.numel()
        kept = round(n * self.shares[epoch % len(self.shares)])
        indices = torch.randperm(n, generator=generator)[:kept]
        return Selection(indices, 0.5 + torch.rand(kept, generator=generator) if self.weighted else None)


class WeightedShares(Shares):
    """Weighs the chosen samples at random, too."""

    weighted = True


class Hardest(DataSelector):
    """Keeps the samples of the highest loss."""

    def select(self, epoch, scores, generator):
        kept = round((1 - self.prune_ratio) * scores.numel())
        return Selection(scores.nan_to_num(torch.inf).topk(kept).indices)


class AtMost(L.Callback):
    """Fails a fit that goes on for more batches and epochs than these, in place of one that never ends."""

    def __init__(self, n):
        self.left = n

    def on_train_epoch_start(self, *_):
        self.left -= 1
        assert self.left >= 0, "the fit does not end"

    def on_train_batch_start(self, *_):
        self.on_train_epoch_start()


class Seen(L.Callback):
    """Writes down which samples each batch held, as the selector has it; to be listed after the selector."""

    def __init__(self, selector):
        self.selector = selector
        self.batches: list[tuple[int, list[int]]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append((trainer.current_epoch, self.selector.batch.indices.tolist()))

    def of_epoch(self, epoch):
        return [i for e, indices in self.batches if e == epoch for i in indices]


def trainer(*callbacks, max_epochs=4, cls=L.Trainer, **flags):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return cls(accelerator="cpu", max_epochs=max_epochs, callbacks=list(callbacks), **{**quiet, **flags})


def fit(selector=None, module=None, train=None, val=None, *, callbacks=(), ckpt_path=None, **flags):
    """Fit and return the Trainer and the module; the selector comes first among the callbacks."""
    module = Net() if module is None else module
    chosen = [] if selector is None else [selector]
    made = trainer(*chosen, *callbacks, **flags)
    options = {"ckpt_path": ckpt_path, **SAFELY} if ckpt_path else {}
    made.fit(module, loader() if train is None else train, loader(50, 25, False) if val is None else val, **options)
    return made, module


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
