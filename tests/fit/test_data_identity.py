"""Scores belong to samples: a data set that grows, or is exchanged, is noticed."""

import random

import lightning as L
import numpy as np
import pytest
import torch
from helpers import Net, Seen, Shares, dataset, fit, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_dataselect import EL2N, DataSelector, EvolvedSampling, InfoBatch, Selection
from lightning_dataselect.data.fingerprint import fingerprint, has_changed


class Frozen(Net):
    """Trains nothing, so that the loss of a sample stays."""

    def __init__(self, make, lr=0.0):
        super().__init__(lr=lr)
        self.make = make

    def train_dataloader(self):
        return DataLoader(self.make(), 10, shuffle=True)

    def losses_of(self, data):
        x, y = (torch.stack(part) for part in zip(*[data[i] for i in range(len(data))], strict=True))
        return torch.nn.functional.cross_entropy(self.net(x), y, reduction="none").detach()


def parts(*ranges):
    whole, ranges = dataset(200), iter(ranges)
    return lambda: Subset(whole, next(ranges))


def run(selector, net, **flags):
    made = trainer(selector, **{"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1, **flags})
    made.fit(net)
    return made


@pytest.mark.parametrize("make", [lambda: InfoBatch(), lambda: EL2N(warmup_epochs=1), lambda: EvolvedSampling()])
def test_other_samples_in_the_same_places_drop_the_scores(make):
    selector, net = make(), Frozen(parts(range(60), range(60, 120)))
    with pytest.warns(UserWarning, match="no longer holds the 60 samples that were scored.*starts again with epoch 1"):
        run(selector, net)
    assert selector.history[1]["n_selected"] == 60
    torch.testing.assert_close(selector.losses, net.losses_of(Subset(dataset(200), range(60, 120))))


def test_their_keys_are_looked_up_anew():
    selector = InfoBatch(sample_id=lambda data: list(data.indices))
    with pytest.warns(UserWarning, match="no longer holds the 60 samples"):
        run(selector, Frozen(parts(range(60), range(60, 120))))
    assert selector.sample_ids == list(range(60, 120))


def test_another_fit_looks_up_the_keys_of_its_own_samples():
    selector = InfoBatch(sample_id=lambda data: list(data.indices))
    for part in (range(60), range(60, 120)):
        run(selector, Frozen(lambda part=part: Subset(dataset(200), part)))
    assert selector.sample_ids == list(range(60, 120))


def test_fewer_samples_drop_them_too():
    selector = InfoBatch()
    with pytest.warns(UserWarning, match="it has 40. Their scores are dropped.*give InfoBatch.sample_id"):
        run(selector, Frozen(parts(range(60), range(40))))
    assert [r["n_total"] for r in selector.history] == [60, 40]


class Shrinking(Frozen):
    """Loses the last samples of its data set in place, in a hook that comes after the epoch was planned."""

    def __init__(self, hook):
        self.data = list(dataset(60))
        super().__init__(lambda: self.data)
        setattr(self, hook, lambda: self.trainer.current_epoch == 1 and self.data.__delitem__(slice(40, None)))


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_epoch_end"])
@pytest.mark.parametrize("make", [lambda: InfoBatch(prune_ratio=0.1), lambda: EvolvedSampling()])
def test_samples_that_are_gone_since_their_epoch_was_planned_are_not_asked_for(make, hook):
    selector, net, seen = make(), Shrinking(hook), 1 if hook == "on_train_epoch_start" else 2
    with pytest.warns(UserWarning, match="it has 40. Their scores are dropped"):
        trainer(selector, max_epochs=6).fit(net)
    known = selector.losses.isfinite()
    assert [r["n_total"] for r in selector.history][-2:] == [40, 40] and known.any()
    torch.testing.assert_close(selector.losses[known], net.losses_of(net.data)[known])
    assert selector.history[seen]["n_selected"] <= 40


CHANGES = {
    "cleaned": [i for i in range(60) if i % 7],
    "cut": range(40),
    "in another order": range(59, -1, -1),
    "extended in between": [*range(30), *range(60, 90), *range(30, 60)],
    "cleaned and extended": [*range(60, 80), *range(59, 10, -1)],
}


class EveryThird(DataSelector):
    """Chooses every third sample, each with a weight of its own."""

    def select(self, epoch, scores, generator):
        indices = torch.arange(0, len(scores), 3)
        return Selection(indices, torch.linspace(1, 2, len(indices)))


class States(L.Callback):
    """Takes down what is known of the samples at both ends of each epoch; to be listed after the selector."""

    def __init__(self, selector):
        self.selector, self.before, self.after = selector, {}, {}

    def take_down(self):
        selector = self.selector
        return selector.losses.clone(), selector.column("times_trained").clone(), selector.run_state.fit.plan

    def on_train_epoch_start(self, trainer, pl_module):
        self.before[trainer.current_epoch] = self.take_down()

    def on_train_epoch_end(self, trainer, pl_module):
        self.after[trainer.current_epoch] = self.take_down()


@pytest.mark.parametrize("now", CHANGES.values(), ids=CHANGES)
def test_samples_with_keys_are_found_again_wherever_they_stand(now, recwarn):
    now = list(now)
    selector = EveryThird(warmup_epochs=2, whole_batches=False, sample_id=lambda data: list(data.indices))
    states, seen = States(selector), Seen(selector)
    made = trainer(selector, states, seen, max_epochs=3, reload_dataloaders_every_n_epochs=1)
    made.fit(Frozen(parts(range(60), range(60), now), lr=0.05))
    (losses, trained, _), (losses_now, trained_now, plan) = states.after[1], states.before[2]
    weights = dict(zip(range(0, 60, 3), torch.linspace(1, 2, 20).tolist(), strict=True))
    for place, key in enumerate(now):
        if key < 60:
            assert losses_now[place] == losses[key] and trained_now[place] == trained[key] == 2
        else:
            assert losses_now[place].isnan() and trained_now[place] == 0
    kept = [place for place, key in enumerate(now) if key >= 60 or key in weights]
    assert plan.indices.tolist() == sorted(seen.of_epoch(2)) == kept
    assert plan.weights.tolist() == [weights.get(now[place], 1.0) for place in kept]
    assert selector.sample_ids == now and [r["n_total"] for r in selector.history] == [60, 60, len(now)]
    assert not [w for w in recwarn if "no longer holds" in str(w.message)]


def test_samples_that_come_to_a_data_set_are_never_measured(recwarn):
    selector, net = Shares(1.0, 0.5, 1.0), Frozen(parts(range(60), range(60), range(90)))
    run(selector, net, max_epochs=3)
    assert [r["n_total"] for r in selector.history] == [60, 60, 90]
    torch.testing.assert_close(selector.losses, net.losses_of(Subset(dataset(200), range(90))))
    assert not [w for w in recwarn if "no longer holds" in str(w.message)]


def test_they_are_trained_on_in_the_epoch_that_they_come_in():
    selector, net = Shares(1.0, 0.5), Frozen(parts(range(60), range(90)))
    seen = Seen(selector)
    trainer(selector, seen, max_epochs=2, reload_dataloaders_every_n_epochs=1).fit(net)
    assert set(range(60, 90)) <= set(seen.of_epoch(1)) and len(seen.of_epoch(1)) == 30 + 30


class Growing(Dataset):
    def __init__(self):
        self.samples = [dataset(200)[i] for i in range(60)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.mark.parametrize("change", ["grow", "exchange"])
def test_a_data_set_that_changes_in_place_is_noticed_too(change, recwarn):
    data, selector = Growing(), Shares(1.0)
    whole = dataset(200)

    class Changing(Frozen):
        def on_validation_end(self):
            if self.trainer.current_epoch == 1 and not self.trainer.sanity_checking:
                new = [whole[i] for i in range(60, 120)]
                data.samples = [*data.samples, *new] if change == "grow" else new

    net = Changing(None)
    _, net = fit(selector, net, DataLoader(data, 10, shuffle=True), max_epochs=4)
    assert [r["n_total"] for r in selector.history] == ([60, 60, 120, 120] if change == "grow" else [60] * 4)
    torch.testing.assert_close(selector.losses, net.losses_of(data))
    assert bool([w for w in recwarn if "no longer holds" in str(w.message)]) == (change == "exchange")


class Augmented(Dataset):
    """Is drawn at random, by global states or by one of its own."""

    def __init__(self, kind):
        self.kind, self.own = kind, random.Random(0)

    def __len__(self):
        return 40

    def __getitem__(self, i):
        noise = {"torch": lambda: torch.rand(3), "random": lambda: random.random(), "own": self.own.random}[self.kind]
        return {"x": torch.full((3,), float(i)) + noise(), "y": i % 3}


@pytest.mark.parametrize("kind", ["torch", "random", "own"])
def test_samples_drawn_at_random_are_known_again(kind):
    before, state = fingerprint(Augmented(kind)), random.getstate()
    assert not has_changed(before, Augmented(kind)) and random.getstate() == state


def test_no_other_device_is_seeded(monkeypatch):
    # nothing would put its state back: dropout on it would draw the same in every epoch
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("another device was seeded"))
    assert not has_changed(fingerprint(Augmented("torch")), Augmented("torch"))


def test_another_transform_is_no_other_sample():
    x, y = dataset().tensors
    before = fingerprint(dataset())
    assert not has_changed(before, TensorDataset(x * 2, y))
    assert has_changed(before, TensorDataset(x.flip(0), y.flip(0)))
    assert has_changed(before, dataset(seed=1))


def test_a_part_that_is_the_same_in_all_samples_says_nothing():
    weighted = [(float(i), 1.0) for i in range(9)]
    assert has_changed(fingerprint(weighted), [(x + 100, weight) for x, weight in weighted])
    assert not has_changed(fingerprint(weighted), weighted)


@pytest.mark.parametrize("kind", [int, str, torch.tensor, np.int64, lambda i: torch.tensor([i], dtype=torch.int32)])
def test_the_position_that_a_sample_contains_says_nothing_about_it(kind):
    samples = [(x, int(y)) for x, y in dataset(60)]
    numbered, turned = ([(*one, kind(i)) for i, one in enumerate(some)] for some in (samples, samples[::-1]))
    assert has_changed(fingerprint(numbered), turned)
    other_transform = [(x * 2, y, i) for x, y, i in numbered]
    assert not has_changed(fingerprint(numbered), numbered) and not has_changed(fingerprint(numbered), other_transform)


def test_what_cannot_be_read_or_compared_says_nothing():
    class Broken(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            raise OSError

    class Things(Broken):
        def __getitem__(self, i):
            return object()

    for data in (Broken(), Things()):
        assert not has_changed(fingerprint(data), data)


@pytest.mark.parametrize("data, words", [(dataset(100), None), (dataset(100, seed=1), "no longer holds the 100")])
def test_a_checkpoint_of_another_data_set_of_the_same_length(data, words, tmp_path, recwarn):
    keep = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    fit(Shares(1.0), callbacks=[keep], enable_checkpointing=True, max_epochs=1)
    fit(Shares(1.0), train=DataLoader(data, 10), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    told = [str(w.message) for w in recwarn if "no longer holds" in str(w.message)]
    assert bool(told) == bool(words) and all(words in each for each in told)


def keyed(selector, places, path, max_epochs, *callbacks):
    data = Subset(dataset(200), list(places))
    options = {"callbacks": list(callbacks), "enable_checkpointing": bool(callbacks), "max_epochs": max_epochs}
    return fit(selector, Net(lr=0.05), DataLoader(data, 10, shuffle=True), ckpt_path=path, **options)


def by_key(key, **more):
    return EveryThird(warmup_epochs=2, whole_batches=False, sample_id=key, **more)


@pytest.mark.parametrize("kind", [{"save_on_train_epoch_end": True}, {"every_n_train_steps": 6}], ids=str)
@pytest.mark.parametrize("now", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_finds_samples_with_keys_wherever_they_stand(now, kind, tmp_path, recwarn):
    now, key = list(now), lambda data: [f"sample {i}" for i in data.indices]
    first = by_key(key)
    keyed(first, range(60), None, 2, ModelCheckpoint(tmp_path, filename="last", **kind))
    losses, trained = first.losses, first.column("times_trained")
    resumed = by_key(key)
    states, seen = States(resumed), Seen(resumed)
    keyed(resumed, now, tmp_path / "last.ckpt", 3, states, seen)
    losses_now, trained_now, plan = states.before[2]
    for place, i in enumerate(now):
        if i < 60:
            assert losses_now[place] == losses[i] and trained_now[place] == trained[i] == 2
        else:
            assert losses_now[place].isnan() and trained_now[place] == 0
    assert sorted(seen.of_epoch(2)) == plan.indices.tolist()
    assert resumed.sample_ids == [f"sample {i}" for i in now] and resumed.history[-1]["n_total"] == len(now)
    assert not [w for w in recwarn if "no longer holds" in str(w.message)]


def test_within_an_epoch_it_finds_none(tmp_path):
    def key(data):
        return list(data.indices)

    keyed(by_key(key), range(60), None, 2, ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=8))
    with pytest.raises(ValueError, match="middle of an epoch on 60 samples.*there are 40.*at the end of an epoch"):
        keyed(by_key(key), range(40), tmp_path / "last.ckpt", 3)
    keyed(by_key(key), range(60), tmp_path / "last.ckpt", 3)


def test_keys_take_eight_bytes_a_sample_of_a_checkpoint(tmp_path):
    for sample_id in (None, lambda data: [f"a long name of sample {i}" for i in data.indices]):
        keep = ModelCheckpoint(tmp_path, filename=str(sample_id is None), save_on_train_epoch_end=True)
        keyed(by_key(sample_id), range(60), None, 1, keep)
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["callbacks"] for name in (True, False)]
    without, hashes = (state["lightning_dataselect.EveryThird"]["keys"] for state in saved)
    assert without is None and hashes.dtype == torch.int64 and hashes.shape == (60,) and len(hashes.unique()) == 60
