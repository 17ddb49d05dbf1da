import os

import pytest
import torch
from helpers import N, Net, Seen, Shares, dataset, fit, loader
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from lightning_dataselect import EvolvedSampling
from lightning_dataselect.data.loader import prepare
from lightning_dataselect.state.plan import EpochPlan


def collate(samples):
    return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def note_worker(worker_id):
    os.environ["NOTED_WORKER"] = str(worker_id)


class Named(DataLoader):
    """A subclass with a constructor and an attribute of its own."""

    def __init__(self, name, data):
        super().__init__(data, batch_size=7, shuffle=True)
        self.name = name

    def __iter__(self):
        return ((x + 1, y) for x, y in super().__iter__())


class Pairs(Sampler[list[int]]):
    """A batch sampler of the user's own: two indices a batch, and each batch reversed."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        return (batch[::-1] for batch in BatchSampler(self.sampler, 2, True))

    def __len__(self):
        return len(self.sampler) // 2


class Grouped(Sampler[int]):
    """All samples, ten consecutive ones of a class at a time."""

    def __init__(self, labels):
        self.order = labels.argsort(stable=True)

    def __iter__(self):
        return iter(self.order.tolist())

    def __len__(self):
        return len(self.order)


def keep(prepared, kept, epoch=1):
    prepared.apply_plan(EpochPlan(epoch, torch.as_tensor(kept)))
    return [prepared.batches.take(i).indices.tolist() for i, _ in enumerate(prepared.loader)]


def test_everything_but_the_sampler_is_kept():
    given = loader(
        batch_size=7,
        drop_last=True,
        collate_fn=collate,
        num_workers=2,
        persistent_workers=True,
        pin_memory=True,
        worker_init_fn=note_worker,
        generator=torch.Generator(),
        prefetch_factor=3,
        timeout=280,
        multiprocessing_context="fork",
    )
    before = dict(vars(given))
    copied = prepare(given, seed=0).loader
    changed = {name for name in vars(copied) if vars(copied)[name] is not before.get(name)}
    assert changed == {"sampler", "batch_sampler", "collate_fn", "_arrive", "_begin"}
    assert copied.collate_fn.collate_fn is collate
    assert isinstance(copied, DataLoader) and type(copied).__name__ == "DataLoader" and len(copied) == N // 7
    assert vars(given) == before


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_hold_just_the_kept_samples(drop_last):
    batches = keep(prepare(loader(drop_last=drop_last), seed=0), range(0, 75, 3))
    assert [len(b) for b in batches] == ([10, 10] if drop_last else [10, 10, 5])
    drawn = sum(batches, [])
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(0, 75, 3))


def test_shuffles_only_what_the_user_shuffled():
    kept = list(range(0, 40, 2))
    assert sum(keep(prepare(loader(shuffle=False), seed=0), kept), []) == kept
    assert sum(keep(prepare(loader(shuffle=True), seed=0), kept), []) != kept


def test_the_samples_are_those_that_are_recorded():
    prepared = prepare(loader(num_workers=2), seed=0)
    prepared.apply_plan(EpochPlan(1, torch.arange(0, N, 3)))
    x = dataset().tensors[0]
    for batch_idx, (batch, _) in enumerate(prepared.loader):
        torch.testing.assert_close(batch, x[prepared.batches.take(batch_idx).indices])


def test_a_subclass_stays_itself():
    given = Named("mine", dataset())
    prepared = prepare(given, seed=0)
    assert isinstance(prepared.loader, Named) and prepared.loader.name == "mine"
    another = type(prepared.loader)("another", dataset())
    assert type(another).__name__ == "Named" and len(list(another)) == -(-N // 7)
    prepared.apply_plan(EpochPlan(1, torch.tensor([3, 5])))
    (batch, _), *rest = prepared.loader
    torch.testing.assert_close(batch, dataset().tensors[0][prepared.batches.take(0).indices] + 1)
    assert not rest


def test_a_batch_sampler_of_ones_own_groups_the_kept():
    given = DataLoader(dataset(), batch_sampler=Pairs(RandomSampler(dataset())))
    batches = keep(prepare(given, seed=0), range(31))
    assert [len(b) for b in batches] == [2] * 15
    assert set(sum(batches, [])) <= set(range(31))
    assert isinstance(given.batch_sampler.sampler, RandomSampler)


def test_a_batch_sampler_given_as_sampler_works_too():
    data = dataset()
    given = DataLoader(data, batch_size=None, sampler=BatchSampler(RandomSampler(data), 10, False))
    prepared = prepare(given, seed=0)
    batches = keep(prepared, range(25))
    assert sorted(sum(batches, [])) == list(range(25))
    assert [len(b) for b in batches] == [10, 10, 5]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_that_come_in_any_order_are_refused(n_workers):
    """The indices of a batch are written down as they are drawn, not as it comes."""
    batches = loader(num_workers=n_workers, in_order=False)
    with pytest.raises(ValueError, match=r"in_order=False: batches arrive in an unknown order.*Set in_order=True\."):
        fit(EvolvedSampling(), Net(), batches)


def test_weighted_draws_keep_their_odds_among_the_kept():
    weights = torch.arange(N).float()
    sampler = WeightedRandomSampler(weights, 200_000, generator=torch.Generator().manual_seed(0))
    given = DataLoader(dataset(), batch_size=1000, sampler=sampler)
    kept = torch.arange(0, N, 4)
    drawn = torch.tensor(sum(keep(prepare(given, seed=0), kept), []))
    counts = torch.bincount(drawn, minlength=N)
    expected = weights[kept] / weights[kept].sum() * counts.sum()
    deviation = (counts[kept] - expected) / expected.clamp(min=1).sqrt()
    assert deviation.abs().max() < 5
    assert counts[0] == 0 and counts.sum() == counts[kept].sum()


def test_a_grouped_sampler_keeps_its_groups_and_their_order():
    labels = dataset().tensors[1]
    given = DataLoader(dataset(), batch_size=10, sampler=Grouped(labels))
    kept = set(range(0, N, 2))
    drawn = sum(keep(prepare(given, seed=0), sorted(kept)), [])
    assert drawn == [i for i in Grouped(labels) if i in kept]


def test_a_sampler_of_ones_own_is_told_the_epoch_and_drawn_once():
    class Told(Grouped):
        epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    prepared = prepare(DataLoader(dataset(), batch_size=10, sampler=Told(dataset().tensors[1])), seed=0)
    prepared.apply_plan(EpochPlan(6, torch.arange(50)))
    assert Told.epochs == [] and prepared.sampler.plan.order is None, "it is drawn with the first batch"
    for _ in range(2):
        next(iter(prepared.loader))
        assert Told.epochs == [6]
    assert prepared.sampler.plan.order.numel() == 50


def test_a_distributed_sampler_gives_its_shards():
    given = DataLoader(dataset(), batch_size=10, sampler=DistributedSampler(dataset(), 4, 1, shuffle=False))
    assert sum(keep(prepare(given, seed=0), range(10)), []) == [1, 5, 9]


class InModule(Net):
    def train_dataloader(self):
        return loader()


def test_loaders_come_from_fit_a_datamodule_or_the_module():
    import lightning as L

    runs = []
    for how in ("fit", "datamodule", "module"):
        selector, module = Shares(1, 0.4), InModule() if how == "module" else Net()
        made = L.Trainer(
            accelerator="cpu",
            max_epochs=3,
            callbacks=[selector],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if how == "fit":
            made.fit(module, loader())
        elif how == "datamodule":
            made.fit(module, datamodule=L.LightningDataModule.from_datasets(dataset(), batch_size=10))
        else:
            made.fit(module)
        runs.append([(s.epoch, s.batch_idx) for s in module.steps])
        assert [r["n_backward"] for r in selector.history] == [100, 40, 100]
    assert runs[0] == runs[1] == runs[2]


def test_the_users_loader_is_unchanged_after_a_fit():
    given = loader(num_workers=2, persistent_workers=True)
    before, inside = dict(vars(given)), dict(vars(given.batch_sampler))
    fit(Shares(1, 0.5, 0.2), train=given, max_epochs=3)
    assert vars(given) == before and vars(given.batch_sampler) == inside
    assert len(list(given)) == 10


def test_loaders_made_after_a_refusal_are_as_before():
    constructors = DataLoader.__init__, BatchSampler.__init__, DataLoader.__setattr__
    with pytest.raises(TypeError, match="2 train loaders were given"):
        fit(Shares(0.5), train=[loader(), loader()])
    assert (DataLoader.__init__, BatchSampler.__init__, DataLoader.__setattr__) == constructors
    assert not [name for name in vars(loader()) if name.startswith("__pl")]


class OfAPart(Grouped):
    """Draws every second sample and never another."""

    def __init__(self):
        self.order = torch.arange(0, N, 2)


def test_a_sampler_of_a_part_that_leaves_less_than_was_asked_for_is_named():
    prepared = prepare(DataLoader(dataset(), batch_size=10, sampler=OfAPart()), seed=0)
    with pytest.warns(UserWarning, match="OfAPart draws far fewer of the selected samples.*in torch.utils.data.Subset"):
        keep(prepared, [*range(0, 40, 2), *range(1, N, 2)])


def test_a_sampler_whose_draws_are_a_fair_share_is_not(recwarn):
    keep(prepare(DataLoader(dataset(), batch_size=10, sampler=OfAPart()), seed=0), range(N))
    keep(prepare(DataLoader(dataset(), batch_size=10, sampler=OfAPart()), seed=0), range(50))
    weighted = WeightedRandomSampler(torch.ones(N), N, generator=torch.Generator().manual_seed(0))
    keep(prepare(DataLoader(dataset(), batch_size=10, sampler=weighted), seed=0), range(60))
    assert not [w for w in recwarn if "far fewer" in str(w.message)]


class Deaf(Pairs):
    """Has a sampler, but does not read it."""

    def __iter__(self):
        return iter(BatchSampler(range(N), 10, False))

    def __len__(self):
        return len(self.sampler) // 10


class Counted(Pairs):
    """Has counted its batches once and for all."""

    def __init__(self, sampler):
        super().__init__(sampler)
        self.n = len(sampler) // 2

    def __len__(self):
        return self.n


class Bucketed(Sampler[list[int]]):
    """Has no sampler: makes batches of samples that are alike, and shuffles them by the epoch."""

    epoch = 0

    def __init__(self, sampler=None):
        self.drawn = []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        self.drawn.append(self.epoch)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return ([*range(10 * bucket, 10 * bucket + 10)] for bucket in order)

    def __len__(self):
        return 10


class Endless(Bucketed):
    """Never stops yielding, as Lightning never asks for more than its length."""

    def __iter__(self):
        while True:
            yield from super().__iter__()


@pytest.mark.parametrize("make", [Deaf, Counted, Bucketed, Endless])
def test_batch_samplers_that_know_nothing_of_a_selection_are_filtered(make):
    given = make(RandomSampler(dataset()))
    selector = Shares(1, 0.5, 0.3)
    seen = Seen(selector)
    _, net = fit(selector, train=DataLoader(dataset(), batch_sampler=given), callbacks=[seen], max_epochs=3)
    for epoch, n in enumerate((100, 50, 30)):
        drawn = seen.of_epoch(epoch)
        assert len(drawn) == len(set(drawn)) == n
    assert [net.steps[-1].epoch, net.validated[-1][0]] == [2, 2]
    assert [sum(s.is_last for s in net.steps if s.epoch == e) for e in range(3)] == [1, 1, 1]
    if make is Bucketed:
        for _, batch in seen.batches:
            assert len({i // 10 for i in batch}) == 1


@pytest.mark.parametrize("kind", [list, tuple])
def test_batches_may_be_listed(kind):
    """A list is a batch sampler, though it shares nothing with an object that stands for it."""
    given = kind(list(range(at, min(at + 15, N))) for at in range(0, N, 15))
    selector, looked = Shares(1, 0.5), []

    class Looking(Net):
        def on_train_epoch_start(self):
            batches = self.trainer.train_dataloader.batch_sampler
            looked.append((len(batches), len(list(batches)), batches[0] == given[0]))

    seen = Seen(selector)
    fit(selector, Looking(), DataLoader(dataset(), batch_sampler=given), callbacks=[seen], max_epochs=2)
    assert len(seen.of_epoch(0)) == N and len(seen.of_epoch(1)) == N // 2
    assert looked[0] == (7, 7, True)


HOOKS = ["on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_validation_epoch_end"]


class Peeking(Net):
    """Looks at the train data whenever ``hook`` is called, and keeps what it has begun."""

    def __init__(self, hook, how):
        super().__init__()
        self.how, self.kept = how, []
        setattr(self, hook, self.peek)

    def peek(self, *_):
        if self.trainer.sanity_checking:
            return
        source = self.trainer.train_dataloader
        if self.how == "asked for anew":
            source = self.trainer.fit_loop._data_source.dataloader()
        iterator = iter(source)
        self.kept.append((iterator, next(iterator)))
        if self.how == "whole":
            self.kept.append((list(iterator),))


def peeked(net):
    selector = Shares(1, 0.5, 0.2)
    seen = Seen(selector)
    fit(selector, net, callbacks=[seen], max_epochs=3, val_check_interval=0.5)
    return seen.batches, selector.losses.tolist(), [p.tolist() for p in net.parameters()]


def test_looking_at_the_train_loader_changes_nothing():
    expected = peeked(Net())
    for hook in HOOKS:
        for how in ("one batch", "whole", "asked for anew"):
            assert peeked(Peeking(hook, how)) == expected, (hook, how)


@pytest.mark.parametrize("persistent", [False, True])
def test_looking_at_it_with_workers_changes_nothing(persistent):
    runs = []
    for net in (Net(), Peeking("on_train_epoch_start", "one batch")):
        selector = Shares(1, 0.5)
        seen = Seen(selector)
        train = loader(num_workers=1, persistent_workers=persistent)
        fit(selector, net, train, callbacks=[seen], max_epochs=2)
        net.kept = None
        runs.append((seen.batches, selector.losses.tolist()))
    assert runs[0] == runs[1]


class Updated(Grouped):
    """Is told things by hooks, and draws by the last."""

    def __init__(self, labels):
        super().__init__(labels)
        self.first, self.drew = None, []

    def update(self, first):
        self.first = first

    def __iter__(self):
        self.drew.append(self.first)
        return super().__iter__()


class Updating(Net):
    def on_train_epoch_start(self):
        loader, epoch = self.trainer.train_dataloader, self.trainer.current_epoch
        loader.sampler.update(epoch)
        loader.sampler.mine = epoch
        assert loader.sampler.mine == epoch and isinstance(loader.sampler, Updated)
        assert loader.batch_sampler.sampler is loader.sampler
        assert len(loader) == (10 if epoch != 1 else 5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_hears_what_hooks_say_before_it_is_drawn(workers):
    runs = []
    for selector in (None, Shares(1, 0.5)):
        sampler = Updated(dataset().tensors[1])
        net = Updating() if selector else Net()
        hook = None if selector else Updating.on_train_epoch_start
        if hook:
            net.on_train_epoch_start = lambda net=net, s=sampler: s.update(net.trainer.current_epoch)
        fit(selector, net, DataLoader(dataset(), 10, sampler=sampler, num_workers=workers), max_epochs=3)
        runs.append(sampler.drew)
    assert runs[0] == runs[1]


class Told(Grouped):
    def __init__(self, labels):
        super().__init__(labels)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_samplers_are_told_the_epoch_where_lightning_tells_them():
    runs = []
    for selector in (None, Shares(1, 0.5)):
        outer, inner = Told(dataset().tensors[1]), Told(dataset().tensors[1])
        for train in (
            DataLoader(dataset(), 10, sampler=outer),
            DataLoader(dataset(), batch_sampler=BatchSampler(inner, 10, False)),
        ):
            fit(selector, train=train, max_epochs=4)
        runs.append((outer.epochs, inner.epochs))
    assert runs[0] == runs[1] == ([0, 1, 2, 3], [0, 1, 2, 3])


class InAList(Net):
    def training_step(self, batch, batch_idx):
        (batch,) = batch.values() if isinstance(batch, dict) else batch
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("put", [lambda x: [x], lambda x: {"a": x}, lambda x: CombinedLoader([x], "min_size")])
@pytest.mark.parametrize("make", [lambda: Shares(1, 0.5), lambda: EvolvedSampling(batch_ratio=0.5)])
def test_one_loader_in_a_list_is_taken_as_lightning_takes_it(put, make):
    runs = []
    for module, given in ((InAList(), put(loader())), (Net(), loader())):
        selector = make()
        _, net = fit(selector, module, given, max_epochs=2)
        runs.append(([s.size for s in net.steps], selector.losses.tolist()))
    assert runs[0] == runs[1]
