"""Epochs that grow and shrink: everything that counts batches is right in each of them."""

import os

import lightning as L
import pytest
import torch
from helpers import N, Net, Seen, Shares, fit, loader
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from torch.utils.data import Dataset

SHARES = (1.0, 0.5, 0.2, 1.0, 0.7, 1.0, 0.1)
LENGTHS = [10, 5, 2, 10, 7, 10, 1]


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_steps_last_batches_and_validation(workers):
    selector = Shares(*SHARES)
    trainer, net = fit(selector, train=loader(**workers), max_epochs=7)
    assert [net.count(e) for e in range(7)] == LENGTHS
    assert trainer.global_step == sum(LENGTHS)
    assert [(s.epoch, s.batch_idx) for s in net.steps if s.is_last] == [(e, n - 1) for e, n in enumerate(LENGTHS)]
    assert net.validated == [(e, sum(LENGTHS[: e + 1])) for e in range(7)]
    assert [r["n_backward"] for r in selector.history] == [10 * n for n in LENGTHS]
    assert [r["n_selected"] for r in selector.history] == [10 * n for n in LENGTHS]


def test_each_epoch_trains_on_the_selected_samples_once():
    selector = Shares(*SHARES)
    seen, chosen = Seen(selector), []

    class Chosen(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            chosen.append(selector.selected.tolist())

    fit(selector, callbacks=[seen, Chosen()], max_epochs=7)
    assert [sorted(seen.of_epoch(e)) for e in range(7)] == chosen
    assert len({tuple(seen.of_epoch(e)) for e in (0, 3, 5)}) == 3


def test_last_batch_may_be_short():
    _, net = fit(Shares(1.0, 0.25, 0.34), max_epochs=3)
    assert [[s.size for s in net.steps if s.epoch == e][-1] for e in range(3)] == [10, 5, 4]


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_ends_with_the_epoch(accumulate):
    stepped = []

    class Counted(Net):
        def on_before_optimizer_step(self, optimizer):
            stepped.append((self.trainer.current_epoch, self.steps[-1].batch_idx))

    fit(Shares(*SHARES), Counted(), accumulate_grad_batches=accumulate, max_epochs=7)
    ends = [(e, b) for e, n in enumerate(LENGTHS) for b in range(n) if (b + 1) % accumulate == 0 or b == n - 1]
    assert stepped == ends


def test_progress_bar_totals():
    totals = []

    class Bar(TQDMProgressBar):
        def on_train_epoch_end(self, *args):
            totals.append((self.train_progress_bar.total, self.train_progress_bar.n))
            super().on_train_epoch_end(*args)

    fit(Shares(*SHARES), callbacks=[Bar()], enable_progress_bar=True, max_epochs=7)
    assert totals == [(n, n) for n in LENGTHS]


def test_checkpoints_and_early_stopping_follow_validation(tmp_path):
    class Worse(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", float(self.trainer.current_epoch))

    best = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, filename="{epoch}")
    stop = EarlyStopping("val_loss", patience=2)
    trainer, net = fit(Shares(*SHARES), Worse(), callbacks=[best, stop], enable_checkpointing=True, max_epochs=7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"]
    assert best.best_model_path.endswith("epoch=0.ckpt")
    assert trainer.current_epoch == 3 and [net.count(e) for e in range(4)] == [10, 5, 2, 0]


class Pids(Dataset):
    """Samples that say which process read them."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.randn(8, generator=torch.Generator().manual_seed(index)), index % 3, os.getpid()


@pytest.mark.parametrize("persistent", [False, True])
def test_persistent_workers_are_kept(persistent):
    pids = [set() for _ in range(4)]

    class Noted(Net):
        def training_step(self, batch, batch_idx):
            pids[self.trainer.current_epoch] |= set(batch[2].tolist())
            return super().training_step(batch[:2], batch_idx)

    data = torch.utils.data.DataLoader(Pids(), batch_size=5, num_workers=2, persistent_workers=persistent)
    fit(Shares(1.0, 0.3, 1.0, 0.5), Noted(), data)
    assert len(pids[0]) == 2 and os.getpid() not in pids[0]
    assert all((p == pids[0]) is persistent for p in pids[1:])


def test_warm_up_annealing_and_kept_selections():
    asked = []

    class Asked(Shares):
        def select(self, epoch, scores, generator):
            asked.append(epoch)
            return super().select(epoch, scores, generator)

    selector = Asked(0.5, warmup_epochs=2, anneal=0.3, every_n_epochs=3)
    fit(selector, max_epochs=10)
    assert asked == [2, 5]
    assert [r["n_selected"] for r in selector.history] == [100] * 2 + [50] * 5 + [100] * 3


def test_unmeasured_samples_are_nan_and_measured_ones_are_not():
    selector = Shares(0.2)
    fit(selector, max_epochs=1)
    known = ~selector.losses.isnan()
    assert known.nonzero().squeeze(1).tolist() == selector.selected.tolist()
    assert torch.equal(selector.scores[known], selector.losses[known])


class Normalised(Net):
    """BatchNorm refuses to train on a batch of one sample, which the whole set never makes."""

    def __init__(self):
        super().__init__()
        self.net.insert(1, torch.nn.BatchNorm1d(16))


def test_no_batch_of_one_is_left_over():
    module = Normalised()
    selector = Shares(1.0, 0.41, 0.31, 0.01 + 0.1)
    fit(selector, module)
    assert [[s.size for s in module.steps if s.epoch == e] for e in (1, 2, 3)] == [
        [10, 10, 10, 9, 2],
        [10, 10, 9, 2],
        [9, 2],
    ]
    assert [r["n_backward"] for r in selector.history] == [100, 41, 31, 11]
