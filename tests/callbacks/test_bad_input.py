"""Bad input gets an error that quotes it and says what to do, before anything is trained on it."""

import inspect
import math
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import ByHand, Hardest, Net, Shares, dataset, fit, loader, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from packaging.version import Version
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SubsetRandomSampler

from lightning_dataselect import AutoAssist, LogFigures, RHOLoss
from lightning_dataselect.capture import CaptureError


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"prune_ratio": 1.0}, ValueError, r"prune_ratio=1\.0 is outside \[0, 1\): give the share .* dropped"),
        ({"prune_ratio": -0.1}, ValueError, r"prune_ratio=-0\.1 is outside"),
        ({"prune_ratio": math.nan}, ValueError, "prune_ratio=nan is outside"),
        ({"prune_ratio": math.inf}, ValueError, "prune_ratio=inf is outside"),
        (
            {"prune_ratio": "half"},
            ValueError,
            "prune_ratio='half' is neither a number nor a schedule. Write one as in 'linear",
        ),
        ({"prune_ratio": "50%"}, ValueError, "prune_ratio='50%' is neither .* For 50 %, write 0.5. Write one as in"),
        ({"prune_ratio": 30}, ValueError, r"prune_ratio=30 is outside .* say 0.3. For 30 %, write 0.3.$"),
        ({"anneal": 12.5}, ValueError, r"anneal=12.5 is outside .* For 12.5 %, write 0.125.$"),
        ({"anneal": "10 %"}, TypeError, "anneal='10 %' is not a number: give a float. For 10 %, write 0.1."),
        ({"prune_ratio": "0.5"}, ValueError, "prune_ratio='0.5' is text: give the number itself, without quotes"),
        ({"keep_ratio": 0.3}, TypeError, r"'keep_ratio'\. Did you mean prune_ratio, the share that is dropped\?"),
        ({"balance": "classes"}, ValueError, r"balance='classes' is unknown: give 'class'\."),
        ({"prune_ratio": None}, TypeError, "prune_ratio=None is not a number"),
        ({"prune_ratio": True}, TypeError, "prune_ratio=True is not a number"),
        ({"warmup_epochs": -1}, ValueError, "warmup_epochs=-1 is too small: give an int of at least 0"),
        ({"warmup_epochs": 1.5}, TypeError, r"warmup_epochs=1\.5 is not a whole number"),
        ({"anneal": 1.1}, ValueError, r"anneal=1\.1 is outside \[0, 1\]"),
        ({"every_n_epochs": 0}, ValueError, "every_n_epochs=0 is too small: give an int of at least 1"),
        ({"seed": "a"}, TypeError, "seed='a' is not a whole number"),
        ({"lr_schedule": "slow"}, ValueError, "lr_schedule='slow' is unknown: give one of 'stretch', 'steps'"),
        ({"sample_loss": 3}, TypeError, "sample_loss=3 must be 'auto', 'batch', a key"),
    ],
)
def test_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        Hardest(**arguments)


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        Hardest(0.5)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(dataset())


class Endless(Dataset):
    def __getitem__(self, index):
        return dataset()[index]


class Counting(torch.utils.data.Sampler):
    """Draws without saying how many."""

    def __iter__(self):
        return iter(range(100))


class CountingBatches(torch.utils.data.Sampler):
    """Batches without saying how many."""

    def __init__(self):
        self.sampler = RandomSampler(dataset())

    def __iter__(self):
        return iter(BatchSampler(self.sampler, 10, False))


class Prefetching:
    """Wraps a loader, as timm does."""

    def __init__(self, wrapped):
        self.dataset, self.wrapped = wrapped.dataset, wrapped

    def __iter__(self):
        yield from self.wrapped


LOADERS = {
    "no length": (lambda: DataLoader(Endless(), sampler=range(5)), TypeError, "Endless has no __len__.*Give it a"),
    "sampler without length": (
        lambda: DataLoader(dataset(), sampler=Counting()), TypeError, "Counting has no __len__.*Give it a __len__"),
    "batches without length": (
        lambda: DataLoader(dataset(), batch_sampler=CountingBatches()), TypeError, "CountingBatches has no __len__"),
    "iterable": (lambda: DataLoader(Stream(), 10), TypeError, "Stream is a stream.*use a map-style data set"),
    "two in a list": (lambda: [loader(), loader()], TypeError, r"\(list: 0, 1\).*Shares\(loader=0\)"),
    "two in a dict": (lambda: {"a": loader(), "b": loader()}, TypeError, r"'a', 'b'\).*Shares\(loader='a'\)"),
    "combined": (lambda: CombinedLoader([loader(), loader()], "min_size"), TypeError, r"2 .* were given \(Combined"),
    "batches in a list": (
        lambda: [(torch.zeros(10, 8), torch.zeros(10).long())] * 2, TypeError,
        r"is a list that holds <Tensor of shape \(10, 8\)>.*give DataLoader\(TensorDataset\(x, y\), batch_size=32"),
    "tensors in a list": (
        lambda: [torch.zeros(10, 8)], TypeError, r"is a list that holds <Tensor of .*for a loader by itself: give"),
    "tensors in a dict": (
        lambda: {"x": torch.zeros(10, 8), "y": torch.zeros(10)}, TypeError, r"is a dict that holds <Tensor of"),
    "a tensor": (lambda: torch.zeros(10, 8), TypeError, r"The train loader is <Tensor of shape \(10, 8\)>, which"),
    "arrays": (lambda: [np.zeros((10, 8))], TypeError, r"is a list that holds <ndarray of shape \(10, 8\)>.*give Data"),
    "wraps a loader": (
        lambda: Prefetching(loader()), TypeError,
        "Prefetching is a stream: .* if Prefetching wraps a DataLoader, let fit take that one"),
    "not a loader": (lambda: ((x, y) for x, y in [(1, 2)]), TypeError, "generator is a stream: its samples"),
    "out of order": (
        lambda: loader(num_workers=1, in_order=False), ValueError, "in_order=False.*Set in_order=True"),
    "empty": (lambda: DataLoader(dataset()[:0][0], 10), ValueError, "is empty: there are no samples"),
    "subset": (
        lambda: DataLoader(dataset(), 10, sampler=SubsetRandomSampler(range(9))), TypeError, "Subset.dataset, indices"),
    "no batches": (lambda: DataLoader(dataset(), batch_size=None), TypeError, "Give it a batch_size"),
    "all dropped": (lambda: loader(batch_size=60, drop_last=True), ValueError, "would have no batch: 50 of 100"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name):
    make, error, words = LOADERS[name]
    net = Net()
    with pytest.raises(error, match=words):
        fit(Shares(0.5), net, make())
    assert net.steps == [] and "training_step" not in vars(net)


def test_zero_samples_left():
    with pytest.raises(ValueError, match=r"prune_ratio=0\.99 leaves 0 of 20 samples.*Give at most 0\.95"):
        fit(Hardest(prune_ratio=0.99), train=loader(20))


@pytest.mark.parametrize("other", [Shares(0.5), Hardest()], ids=["of another class", "of the same class"])
def test_two_selectors(other):
    with pytest.raises(ValueError, match=r"has 2 selectors \(Hardest, \w+\).*Keep one of them"):
        fit(Hardest(), callbacks=[other])


def test_two_selectors_of_one_class_that_have_both_fitted_before():
    first, second = Hardest(), Hardest()
    for selector in (first, second):
        fit(selector, max_epochs=1)
    with pytest.raises(ValueError, match=r"has 2 selectors \(Hardest, Hardest\).*Keep one of them"):
        fit(first, callbacks=[second])


@pytest.mark.parametrize("has_fitted", [False, True])
def test_a_selector_that_is_named_twice(has_fitted):
    selector = Hardest()
    if has_fitted:
        fit(selector, max_epochs=1)
    with pytest.raises(ValueError, match=r"The same selector is .* more than once \(Hardest, Hardest\). List it once"):
        fit(selector, callbacks=[selector])


class FitsWithin(pl.Callback):
    """Lets another Trainer fit, or validate, with the same selector while this one fits."""

    def __init__(self, selector, run):
        self.selector, self.run, self.error = selector, run, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            try:
                self.run(self.selector)
            except ValueError as error:
                self.error = error


def validate(selector):
    trainer(selector).validate(Net(), loader(), verbose=False)


@pytest.mark.parametrize("run", [fit, validate])
def test_a_selector_follows_one_fit_at_a_time_and_to_its_end(run):
    selector = Hardest()
    within = FitsWithin(selector, run)
    fit(selector, callbacks=[within], max_epochs=4)
    assert [epoch["n_selected"] < epoch["n_total"] for epoch in selector.history] == [False, True, True, True]
    if run is fit:
        assert "The same Hardest is in the callbacks of two Trainers" in str(within.error)


def test_a_selector_may_follow_one_fit_after_another():
    selector = Hardest()
    fit(selector, max_epochs=2)
    fit(selector, max_epochs=3)
    assert len(selector.history) == 3


@pytest.mark.skipif(Version(pl.__version__) < Version("2.6"), reason="older ones refuse it in their own words")
def test_the_class_in_place_of_a_selector():
    with pytest.raises(TypeError, match=r"callbacks=\[Hardest\] holds the class.* write callbacks=\[Hardest\(\)\]"):
        trainer(Hardest)


def test_the_class_in_place_of_a_callback_that_draws():
    with pytest.raises(TypeError, match=r"callbacks=\[LogFigures\] holds the class, not an instance.*LogFigures\(\)"):
        fit(Hardest(), callbacks=[LogFigures])


def test_a_class_can_be_looked_through_all_the_same():
    assert dict(inspect.getmembers(Hardest))["setup"] is Hardest.setup


class NoLoss(Net):
    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)


class PlainBackward(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx).backward()


class Contrastive(Net):
    """A loss that belongs to no sample."""

    def training_step(self, batch, batch_idx):
        z = self.net(batch[0])
        return (z @ z.T).logsumexp((0, 1))


class WrongSize(Net):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return {"loss": loss, "each": loss.expand(3)}


class LossOfEach(Net):
    """Returns its losses without reducing them, as one may think that a selector needs it."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="none")


class TakesIterator(Net):
    def training_step(self, dataloader_iter):
        batch, batch_idx, _ = next(dataloader_iter)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("module", "options", "error", "words"),
    [
        (
            NoLoss,
            {},
            CaptureError,
            r"in place of a loss.*Return the loss.*\(loss\) in place of loss.backward\(\)\.$",
        ),
        (LossOfEach, {}, CaptureError, r"a loss of shape \(10,\) in place of a single number: return its mean, as"),
        (PlainBackward, {}, CaptureError, r"call self.manual_backward\(loss\) in place of loss.backward\(\)"),
        (
            Contrastive,
            {},
            CaptureError,
            "loss was found for each of the batch's 10 samples.*RandomPruning and FewerEpochs need no per-sample",
        ),
        (WrongSize, {"sample_loss": "each"}, ValueError, r"shape \(3,\), but the batch has 10 samples"),
        (WrongSize, {"sample_loss": "other"}, KeyError, "sample_loss='other': training_step returned .*'each', 'loss'"),
        (TakesIterator, {}, TypeError, "Let training_step take `batch`, or remove the callback"),
    ],
)
def test_steps_without_a_sound_loss_fail_on_the_first_batch(module, options, error, words):
    net = module()
    with pytest.raises(error, match=words):
        fit(Hardest(**options), net)
    assert len(net.steps) <= 1 and "training_step" not in vars(net)


class ContrastiveByHand(ByHand, Contrastive):
    pass


@pytest.mark.parametrize("module", [Contrastive, ContrastiveByHand])
def test_a_method_that_needs_no_losses_goes_on_with_one_warning(module):
    class Blind(Shares):
        needs_losses = False

    net = module()
    with pytest.warns(UserWarning, match="Blind goes on without per-sample losses") as caught:
        fit(Blind(0.5), net)
    said = [str(w.message) for w in caught if "goes on without" in str(w.message)]
    assert len(said) == 1 and "RandomPruning" not in said[0], "who needs no losses need not take another method"
    assert not same_weights(net, Net())


class Broken(Net):
    """The loss of samples 0 to 4 is not a number; the step leaves them out of what is trained on."""

    bad = math.nan

    def training_step(self, batch, batch_idx):
        x, y = batch
        losses = F.cross_entropy(self.net(x), y, reduction="none")
        poisoned = (x[:, :1] == dataset().tensors[0][:5, 0]).any(1)
        return {"loss": losses.mean(), "each": losses.detach().where(~poisoned, self.bad)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_kept_and_reported_once(bad):
    selector, net = Hardest(prune_ratio=0.9, sample_loss="each"), Broken()
    net.bad = bad
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(selector, net)
    reports = [str(w.message) for w in caught if "NaN or infinite" in str(w.message)]
    assert len(reports) == 1 and "The losses of 5 samples of epoch 0" in reports[0]
    assert selector.losses[:5].isnan().all() and not selector.losses[5:].isnan().any()
    assert set(range(5)) <= set(selector.selected.tolist()) and selector.selected.numel() == 10


def test_training_with_a_nan_loss_goes_on_as_without_the_callback():
    class Diverging(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.nan if len(self.steps) > 12 else 1)

    nets = []
    for selector in (None, Hardest(prune_ratio=0)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nets.append(fit(selector, Diverging(), loader(shuffle=False), max_epochs=2)[1])
    for mine, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True)


@pytest.fixture
def checkpoint(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_epochs=1)
    fit(Hardest(), callbacks=[keep], enable_checkpointing=True, max_epochs=2)
    return tmp_path / "last.ckpt"


def test_a_checkpoint_of_another_method(checkpoint):
    with pytest.raises(ValueError, match="written by Hardest, but this Trainer has Shares.*Resume with Hardest"):
        fit(Shares(0.5), ckpt_path=checkpoint)


def test_a_checkpoint_of_another_data_set(checkpoint):
    net = Net()
    with pytest.raises(ValueError, match="written with a data set of 100 samples, but the train loader's has 60"):
        fit(Hardest(), net, loader(60), ckpt_path=checkpoint)
    assert net.steps == []


def test_a_checkpoint_without_a_selector_gives_the_weights(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_epochs=1, save_on_train_epoch_end=True)
    _, before = fit(None, callbacks=[keep], enable_checkpointing=True, max_epochs=2)
    selector, net = Shares(0.5), Net()
    fit(selector, net, ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    assert [(r["epoch"], r["n_backward"]) for r in selector.history] == [(2, 50), (3, 50)]
    assert not same_weights(net, before)


def test_a_checkpoint_without_a_selector_in_the_middle_of_an_epoch(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=14)
    fit(None, callbacks=[keep], enable_checkpointing=True, max_epochs=2)
    with pytest.raises(
        ValueError, match="in the middle of an epoch by a fit without a selector.*at the end of an epoch"
    ):
        fit(Shares(0.5), ckpt_path=tmp_path / "last.ckpt")


def test_the_class_in_place_of_a_model():
    with pytest.raises(TypeError, match=r"holdout_model=<class .*Net'> is not a LightningModule: give one that was"):
        RHOLoss(holdout_model=Net)
    with pytest.raises(TypeError, match=r"assistant=Linear is a class that cannot be made from \(x, labels\).*give"):
        fit(AutoAssist(assistant=torch.nn.Linear))


@pytest.mark.parametrize("name", [-1, None, []])
def test_a_column_by_no_name(name):
    selector = Hardest()
    fit(selector, max_epochs=2)
    with pytest.raises(KeyError, match=r"There is no column .*There are loss, score"):
        selector.column(name)
