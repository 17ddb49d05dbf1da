"""Irreducible losses for RHOLoss: from tensors, files, and held-out models."""

import threading

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import Net, dataset, fit, loader, same_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import DataSelector, EvolvedSampling, RHOLoss, Selection
from lightning_dataselect.methods.holdout import halves

HELD = torch.linspace(0, 2, 100)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.mark.parametrize("name", ["a.pt", "a.npy", "a.csv", "a.parquet", "shuffled.csv", "plain.csv"])
def test_holdout_losses_are_read_from_files_in_dataset_order(tmp_path, name):
    path = tmp_path / name
    table = pd.DataFrame({"index": range(100), "loss": HELD.numpy()})
    if name == "shuffled.csv":
        table = table.sample(frac=1, random_state=0)
    if name == "plain.csv":
        table = table[["loss"]]
    {
        ".pt": lambda: torch.save(HELD, path),
        ".npy": lambda: np.save(path, HELD.double().numpy()),
        ".csv": lambda: table.to_csv(path, index=False),
        ".parquet": lambda: table.to_parquet(path),
    }[path.suffix]()
    for source in (path, str(path)):
        selector = RHOLoss(holdout_losses=source)
        fit(selector, max_epochs=1)
        torch.testing.assert_close(selector.store.column("holdout"), HELD)


def test_export_of_another_run_serves_as_holdout_losses(tmp_path):
    other = EvolvedSampling()
    fit(other, max_epochs=1)
    selector = RHOLoss(holdout_losses=other.export(tmp_path / "losses.csv"))
    fit(selector, max_epochs=1)
    torch.testing.assert_close(selector.store.column("holdout"), other.losses)
    torch.testing.assert_close(selector.scores, selector.losses - other.losses)


def table(tmp_path, **columns):
    pd.DataFrame(columns).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (lambda p: p / "none.pt", FileNotFoundError, "none.pt': there is no such file"),
        (lambda p: p / "a.json", ValueError, r"a.json' must end in \.pt, \.npy, \.csv or \.parquet"),
        (lambda p: torch.ones(3, 2), ValueError, r"holds \(3, 2\): one number a sample"),
        (lambda p: table(p, score=[1.0]), ValueError, r"columns \['score'\], but none is called 'loss'"),
        (lambda p: table(p, index=[0, 2], loss=[1.0, 2.0]), ValueError, "each sample once.*Add the samples that are"),
        (lambda p: table(p, index=[0, 0], loss=[1.0, 2.0]), ValueError, "each sample once"),
        (lambda p: torch.tensor([1.0, torch.nan]), ValueError, "1 entries that are NaN.*for sample 1:.*fit_holdout"),
        (lambda p: table(p, loss=[1.0, None, torch.inf]), ValueError, "2 entries.*for sample 1"),
    ],
)
def test_refuses_what_are_no_losses(tmp_path, source, error, words):
    with pytest.raises(error, match=words):
        RHOLoss(holdout_losses=source(tmp_path))


def test_refuses_losses_of_another_data_set():
    with pytest.raises(ValueError, match="holdout_losses has 7 entries, but the training set has 100 samples"):
        fit(RHOLoss(holdout_losses=torch.ones(7)))


class Memory(L.LightningModule):
    """Has one number a sample, so that what it was trained on is what it has learnt, and nothing else."""

    def __init__(self, n=40):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n, 3))
        self.dropout = nn.Dropout(0.2)

    def training_step(self, batch, batch_idx):
        i, y = batch
        return F.cross_entropy(self.dropout(self.table[i]), y)

    def configure_optimizers(self):
        return torch.optim.SGD([self.table], 50.0)


def numbered(n=40, batch_size=8, **options):
    return DataLoader(TensorDataset(torch.arange(n), torch.arange(n) % 3), batch_size, shuffle=True, **options)


def test_cross_fitting_measures_each_sample_by_the_model_that_has_not_seen_it():
    losses = RHOLoss.fit_holdout(Memory(), numbered(), max_epochs=3, **QUIET)
    assert losses.shape == (40,) and losses.dtype == torch.float32
    torch.testing.assert_close(losses, torch.full((40,), 3.0).log())


def test_held_out_set_trains_one_model():
    """Trained on the first 20 samples, it has learnt these and no others."""
    held = DataLoader(TensorDataset(torch.arange(20), torch.arange(20) % 3), 5)
    # so many epochs that dropout, which draws from the global random state, cannot hide a sample in all of them
    losses = RHOLoss.fit_holdout(Memory(), numbered(), held, max_epochs=10, **QUIET)
    assert losses[:20].max() < 0.1
    torch.testing.assert_close(losses[20:], torch.full((20,), 3.0).log())


def test_losses_are_those_of_a_copy_trained_by_hand():
    class Only(DataSelector):
        def __init__(self, indices):
            super().__init__(seed=4, warmup_epochs=0)
            self.indices = indices

        def select(self, epoch, scores, generator):
            return Selection(self.indices)

    module, (x, y) = Net(), dataset(101).tensors
    losses = RHOLoss.fit_holdout(module, loader(101, 10), seed=4, max_epochs=2, **QUIET)
    assert same_weights(module, Net()), "the module given is not trained"
    for own, other in (halves(101, 4), halves(101, 4)[::-1]):
        _, trained = fit(Only(own), Net(), loader(101, 10), max_epochs=2)
        with torch.no_grad():
            expected = F.cross_entropy(trained.net(x), y, reduction="none")
        torch.testing.assert_close(losses[other], expected[other])


def test_holdout_loaders_are_taken_from_a_datamodule_and_read_whole():
    class Data(L.LightningDataModule):
        def setup(self, stage):
            self.loader = numbered(39, 8, drop_last=True)

        def train_dataloader(self):
            return self.loader

    expected = torch.full((39,), 3.0).log()
    torch.testing.assert_close(RHOLoss.fit_holdout(Memory(39), Data(), max_epochs=1, **QUIET), expected)
    held = DataLoader(TensorDataset(torch.arange(39, 40), torch.tensor([0])), 1)
    torch.testing.assert_close(RHOLoss.fit_holdout(Memory(), Data(), held, max_epochs=1, **QUIET), expected)


def test_fitting_leaves_random_state_and_is_repeatable():
    state, module = torch.get_rng_state(), Net()
    runs = [RHOLoss.fit_holdout(module, loader(), max_epochs=1, **QUIET) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(*runs)


def test_by_default_the_copies_train_for_as_many_epochs_as_the_fit():
    selector = RHOLoss(batch_ratio=0.3)
    fit(selector, max_epochs=3)
    expected = RHOLoss.fit_holdout(Net(), loader(), max_epochs=3, **QUIET)
    torch.testing.assert_close(selector.store.column("holdout"), expected)


def test_model_that_diverges_is_an_error():
    class Diverging(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * torch.inf

    with (
        pytest.raises(ValueError, match="100 of 100 training samples a loss that is not finite"),
        pytest.warns(UserWarning),
    ):
        RHOLoss.fit_holdout(Diverging(), loader(), max_epochs=1, **QUIET)


def test_without_losses_it_cross_fits_by_itself_and_counts_the_cost():
    selector = RHOLoss(batch_ratio=0.3, holdout_epochs=2)
    _, net = fit(selector, max_epochs=3)
    expected = RHOLoss.fit_holdout(Net(), loader(), max_epochs=2, **QUIET)
    torch.testing.assert_close(selector.store.column("holdout"), expected)
    own, holdout = (130, 30), (2 * 100 + 100, 2 * 100)
    first, *others = [(r["n_forward"], r["n_backward"]) for r in selector.history]
    assert first == (own[0] + holdout[0], own[1] + holdout[1]) and others == [own] * 2
    given = RHOLoss(batch_ratio=0.3, holdout_losses=expected)
    _, same = fit(given, max_epochs=3)
    assert same_weights(net, same)


def test_by_itself_it_takes_the_transfer_hooks_of_the_data_module():
    class Doubled(L.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def on_after_batch_transfer(self, batch, dataloader_idx):
            assert batch[0].abs().max() < 10
            return batch[0] + 100, batch[1]

    class Checks(Net):
        def training_step(self, batch, batch_idx):
            assert batch[0].min() > 50
            return super().training_step((batch[0] - 100, batch[1]), batch_idx)

    bystander = L.Callback()
    bystander.lock = threading.RLock()  # the Trainer cannot be copied, and need not be
    made = L.Trainer(max_epochs=1, callbacks=[RHOLoss(), bystander], logger=False, enable_checkpointing=False, **QUIET)
    made.fit(Checks(), datamodule=Doubled())
    assert made.global_step == 10


def test_resumed_fit_does_not_train_holdout_models_again(tmp_path, monkeypatch):
    selector = RHOLoss()
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    _, net = fit(selector, callbacks=[keep], enable_checkpointing=True, max_epochs=2)
    monkeypatch.setattr("lightning_dataselect.methods.rho_loss.train_holdout", None)
    again = RHOLoss()
    _, resumed = fit(again, Net(seed=5), ckpt_path=tmp_path / "step=5.ckpt", max_epochs=2)
    assert same_weights(net, resumed)
    assert torch.equal(again.store.column("holdout"), selector.store.column("holdout"))
