"""A fit goes by what is written to samplers while it runs; they may be endless, but draw indices only."""

import pytest
import torch
from helpers import Net, Seen, Shares, dataset, fit
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler, WeightedRandomSampler

from lightning_dataselect.utils.errors import InvalidLoaderError

N = 60


def batch_sampler_of(module):
    return module.trainer.train_dataloader.batch_sampler


class Doubling(Net):
    """Doubles the size of batches with every epoch."""

    def on_train_epoch_end(self):
        batch_sampler_of(self).batch_size *= 2


class DoublingAtItsStart(Net):
    def on_train_epoch_start(self):
        batch_sampler_of(self).batch_size = 5 * 2**self.trainer.current_epoch


class OwnBatches(BatchSampler):
    pass


def shuffled(kind=BatchSampler):
    return DataLoader(dataset(N), batch_sampler=kind(RandomSampler(range(N)), 5, False))


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("make", [shuffled, lambda: shuffled(OwnBatches), lambda: DataLoader(dataset(N), 5)])
@pytest.mark.parametrize("module", [Doubling, DoublingAtItsStart])
def test_batches_may_grow_from_epoch_to_epoch(module, make, share):
    _, net = fit(Shares(share), module(), make(), max_epochs=4)
    sizes = [[step.size for step in net.steps if step.epoch == epoch] for epoch in range(4)]
    if module is DoublingAtItsStart:  # the first epoch's iterator is there before its hook is called
        _, alone = fit(None, module(), make(), max_epochs=4)
        assert len(sizes[0]) == alone.count(0) * share
    for epoch, found in enumerate(sizes):
        size = 5 * 2**epoch
        n = round(N * share)
        assert found == [size] * (n // size) + [n % size] * (n % size > 0)
    assert net.steps[-1].is_last


class Halving(Net):
    def on_train_epoch_end(self):
        batch_sampler_of(self).batch_size //= 2


def test_smaller_batches_are_cut_where_lightning_cuts_them():
    counts = []
    for selector in (None, Shares(1.0)):
        _, net = fit(selector, Halving(), DataLoader(dataset(N), 20), max_epochs=3)
        counts.append([(step.epoch, step.size) for step in net.steps])
    assert counts[0] == counts[1] and len(counts[0]) == 9


class DropsLast(Net):
    def on_train_epoch_end(self):
        batch_sampler_of(self).drop_last = True


def test_a_last_batch_may_be_dropped_from_an_epoch_on():
    _, net = fit(Shares(1.0), DropsLast(), DataLoader(dataset(N), 8, shuffle=True), max_epochs=2)
    assert [net.count(epoch) for epoch in range(2)] == [8, 7]


class Replaces(Net):
    def on_train_epoch_end(self):
        batch_sampler_of(self).sampler = self.others.pop(0)


@pytest.mark.parametrize("make", [shuffled, lambda: shuffled(OwnBatches)])
def test_another_sampler_may_take_the_place_of_the_first(make):
    net, selector = Replaces(), Shares(1.0, 0.5)
    odds = (torch.arange(N) < 20).double()
    net.others = [
        WeightedRandomSampler(odds, N),
        WeightedRandomSampler(odds.flip(0), 30),
        SequentialSampler(range(N)),
        0,
    ]
    seen = Seen(selector)
    fit(selector, net, make(), callbacks=[seen], max_epochs=4)
    assert sorted(seen.of_epoch(0)) == [*range(N)]
    assert max(seen.of_epoch(1)) < 20 and len(seen.of_epoch(1)) > 10
    assert min(seen.of_epoch(2)) >= 40 and len(seen.of_epoch(2)) == 30
    assert seen.of_epoch(3) == sorted(seen.of_epoch(3)) and len(seen.of_epoch(3)) == 30


class Endless(Sampler[int]):
    """Draws for as long as it is asked."""

    def __init__(self, length=10**12, draw=lambda i: i):
        self.length, self.draw, self.n_drawn = length, draw, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        while True:
            self.n_drawn += 1
            yield self.draw(int(torch.randint(N, ())))


class EndlessBatches(Endless):
    def __iter__(self):
        while True:
            self.n_drawn += 1
            yield torch.randint(N, (5,)).tolist()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_an_endless_sampler_draws_as_much_as_the_trainer_takes(share):
    sampler = Endless()
    _, net = fit(Shares(share), Net(), DataLoader(dataset(N), 5, sampler=sampler), max_epochs=3, limit_train_batches=4)
    assert [net.count(epoch) for epoch in range(3)] == [4, 4, 4] and {step.size for step in net.steps} == {5}
    assert sampler.n_drawn <= 3 * 20 / share * 2


def test_endless_batches_are_drawn_as_far_as_the_trainer_takes_them():
    batches = EndlessBatches()
    _, net = fit(Shares(0.5), Net(), DataLoader(dataset(N), batch_sampler=batches), max_epochs=3, limit_train_batches=4)
    assert [net.count(epoch) for epoch in range(3)] == [4, 4, 4]
    assert batches.n_drawn < 30


def test_an_endless_epoch_is_refused_before_memory_runs_out():
    with pytest.raises(InvalidLoaderError, match="Endless has the length 1000000000000.*limit_train_batches=1000"):
        fit(Shares(0.5), Net(), DataLoader(dataset(N), 5, sampler=Endless()), max_steps=10)


class ManySizes(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, key):
        return dataset(N)[key[0] if isinstance(key, tuple) else key]


@pytest.mark.parametrize(
    "draw, shown", [(lambda i: (i, 1), r"\(\d+, 1\)"), (lambda i: i - N, r"-\d+"), (str, r"'\d+'")]
)
@pytest.mark.parametrize("as_batches", [False, True])
def test_what_is_no_index_is_refused(draw, shown, as_batches):
    keys = [draw(i) for i in range(N)]
    how = {"batch_sampler": [keys[:30], keys[30:]]} if as_batches else {"sampler": keys, "batch_size": 5}
    with pytest.raises(InvalidLoaderError, match=f"The sampler list drew {shown}.* integers from 0 to 59"):
        fit(Shares(0.5), Net(), DataLoader(ManySizes(), **how), max_epochs=1)


class Shrinking(Sampler[int]):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return N - 15 * self.epoch

    def __iter__(self):
        yield from torch.randperm(len(self)).tolist()


def test_a_sampler_that_draws_less_from_epoch_to_epoch_is_not_accused_of_dropping_more(recwarn):
    _, net = fit(Shares(0.8), Net(), DataLoader(dataset(N), 5, sampler=Shrinking()), max_epochs=3)
    assert not [w for w in recwarn if "draws far fewer" in str(w.message)]
    found = [sum(step.size for step in net.steps if step.epoch == epoch) for epoch in range(3)]
    assert all(abs(n - share) <= 6 for n, share in zip(found, (48, 36, 24), strict=True))


class Growing(Shrinking):
    def __len__(self):
        return 30 + 15 * self.epoch


def test_a_sampler_that_draws_more_is_cut_where_lightning_cuts_it():
    counts = []
    for selector in (None, Shares(1.0)):
        _, net = fit(selector, Net(), DataLoader(dataset(N), 5, sampler=Growing()), max_epochs=3)
        counts.append([net.count(epoch) for epoch in range(3)])
    assert counts == [[6, 6, 6]] * 2
