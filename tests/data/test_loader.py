import os

import pytest
import torch
from helpers import N, Net, Shares, dataset, fit, loader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

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
    return [prepared.batches.take(i).indices for i, _ in enumerate(prepared.loader)]


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
    changed = {name for name in before if vars(copied)[name] is not before[name]}
    assert changed == {"sampler", "batch_sampler", "collate_fn"}
    assert copied.collate_fn.collate_fn is collate
    assert type(copied) is DataLoader and len(copied) == N // 7
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
    assert type(prepared.loader) is Named and prepared.loader.name == "mine"
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
    plan = prepared.apply_plan(EpochPlan(6, torch.arange(50)))
    assert Told.epochs == [6]
    prepared.apply_plan(plan)
    assert Told.epochs == [6]
    assert plan.order.numel() == 50


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
    with pytest.raises(TypeError, match="2 were given"):
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
