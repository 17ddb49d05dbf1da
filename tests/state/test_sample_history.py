"""The history of each sample, against a plain one kept in NumPy of what the training steps themselves saw."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Seen, Shares, fit
from lightning.pytorch.callbacks import ModelCheckpoint
from matrix_settings import Tiny
from ranks import on_ranks
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from lightning_dataselect import ESWP, AutoAssist, EvolvedSampling, SelectiveBackprop
from lightning_dataselect.numerics.margins import margins
from lightning_dataselect.report.export import to_frame
from lightning_dataselect.state.class_history import NEVER
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation

N, C = 48, 3
COLUMNS = (
    *("times_trained", "times_dropped", "margin", "predicted", "first_learnt", "times_forgotten"),
    *("label", "times_classified", "margin_sum", "confidence_sum", "confidence_squares"),
)


class Diary:
    """The history of N samples, one sample at a time, in float64."""

    def __init__(self, n=N):
        self.times_trained, self.times_dropped, self.times_forgotten = (np.zeros(n, int) for _ in range(3))
        self.margin, self.predicted, self.first_learnt = np.full(n, np.nan), np.full(n, -1), np.full(n, NEVER)
        self.label, self.times_classified = np.full(n, -1), np.zeros(n, int)
        self.margin_sum, self.confidence_sum, self.confidence_squares = np.zeros((3, n))

    def see(self, i, logits, label, epoch):
        others = np.delete(logits, label)
        margin = logits[label] - others.max()
        if self.margin[i] > 0 and margin <= 0:
            self.times_forgotten[i] += 1
        if margin > 0:
            self.first_learnt[i] = min(self.first_learnt[i], epoch)
        self.margin[i], self.predicted[i], self.label[i] = margin, logits.argmax(), label
        confidence = np.exp(logits[label]) / np.exp(logits).sum()
        self.times_classified[i] += 1
        self.margin_sum[i] += margin
        self.confidence_sum[i] += confidence
        self.confidence_squares[i] += confidence**2

    def check(self, store, names=COLUMNS):
        for name in names:
            found = store.column(name).numpy()
            np.testing.assert_allclose(found, getattr(self, name), rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_last_loss_of_a_sample_is_read_as_if_it_had_been_written_at_once():
    store, expected = SampleHistoryStore(4, score_is_loss=True), np.full(5, np.nan, np.float32)
    batches = [([0, 1], [1.0, 2.0]), ([1, 3], [3.0, 4.0]), ([1, 4, 4], [5.0, 6.0, 7.0])]
    for turn, (samples, losses) in enumerate(batches):
        store.record_losses(torch.tensor(samples), torch.tensor(losses))
        for sample, loss in zip(samples, losses, strict=True):
            expected[sample] = loss
        if turn != 1:  # what is read in between is no less than all that came before
            name = ("score", "loss")[turn // 2]
            np.testing.assert_array_equal(store[name][:4].numpy(), expected[:4])
    store["loss"][1] = 9.0  # a method's own write stands until the next batch
    np.testing.assert_array_equal(store.column("loss")[1].numpy(), 9.0)
    assert store.column("times_measured").tolist() == [1, 3, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_margins(dtype, n_classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, n_classes, generator=generator).to(dtype)
    labels = torch.randint(n_classes, (40,), generator=generator)
    labels[3] = -100
    margin, predicted = margins(logits, labels)
    exact = logits.double().numpy()
    assert predicted.tolist() == exact.argmax(1).tolist()
    assert margin.dtype == torch.float32 and margin[3].isnan()
    for i in set(range(40)) - {3}:
        expected = exact[i, labels[i]] - np.delete(exact[i], labels[i]).max()
        np.testing.assert_allclose(margin[i], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("read_every", [1, 3, 7, 1000])
@pytest.mark.parametrize("replacement", [True, False])
def test_whenever_it_is_written_the_history_is_the_same(read_every, replacement):
    """With replacement samples come again within a batch and between two writes; else each once in an epoch."""
    rng = np.random.default_rng(0)
    store, diary = SampleHistoryStore(N), Diary()
    order = np.arange(N)
    for step in range(150):
        epoch = step // 25 if replacement else step // 6
        order = rng.permutation(N) if step % 6 == 0 else order
        i = rng.integers(0, N + 1, 8) if replacement else order[step % 6 * 8 :][:8]  # N is padding
        logits, labels = rng.normal(size=(8, C)).astype(np.float32), rng.integers(0, C, 8)
        seen = Observation(*map(torch.tensor, (i, np.zeros(8), logits, labels)), epoch)
        store.record_logits(seen)
        store.count_trained(seen.indices)
        store.count_dropped(seen.indices, seen.indices[:5])
        seen.logits.zero_(), seen.targets.zero_()  # a loader may reuse its memory
        for k in range(8):
            if i[k] < N:
                diary.see(i[k], logits[k].astype(float), labels[k], epoch)
                diary.times_trained[i[k]] += 1
                diary.times_dropped[i[k]] += k >= 5
        if step % read_every == 0:
            diary.check(store)
    diary.check(store)
    assert diary.times_forgotten.max() > 1 and (diary.first_learnt < NEVER).any()


@pytest.mark.parametrize("unknown", ["first", "last"])
def test_a_sample_that_comes_again_with_a_label_that_is_ignored_has_come_twice(unknown):
    store, labels = SampleHistoryStore(2), torch.tensor([0, 0])
    store.record_logits(Observation(torch.tensor([1]), torch.zeros(1), torch.tensor([[3.0, 0.0]]), labels[:1], 0))
    store.flush()
    labels = torch.tensor([-100, 0] if unknown == "first" else [0, -100])
    logits = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    store.record_logits(Observation(torch.tensor([1, 1]), torch.zeros(2), logits, labels, 0))
    margin = store.column("margin")[1].item()
    assert margin == -1.0 if unknown == "first" else np.isnan(margin)
    assert store.column("times_forgotten")[1] == (unknown == "last")
    assert store.column("label")[1] == labels[1].clamp(min=-1) and store.column("times_classified")[1] == 2


def test_soft_targets_count_by_their_largest_entry_and_one_class_is_no_classification():
    store = SampleHistoryStore(4)
    store.record_logits(Observation(torch.tensor([0]), torch.zeros(1), torch.randn(1, 1), torch.zeros(1).long(), 0))
    store.flush()
    assert not store.knows_classes
    logits = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    store.record_logits(
        Observation(torch.tensor([1, 2]), torch.zeros(2), logits, torch.tensor([[0.3, 0.7], [0.9, 0.1]]), 0)
    )
    np.testing.assert_allclose(store.column("margin"), [np.nan, 2.0, -2.0, np.nan])


def test_what_is_put_aside_stays_small():
    store = SampleHistoryStore(100_000)
    for size, n_classes in ((64, 10), (128, 1000), (4, 300_000), (65_536, 2)):
        logits, labels = torch.randn(size, n_classes), torch.zeros(size, dtype=torch.int64)
        for step in range(70):
            if n_classes > 10_000 and step > 3:
                break
            indices = torch.arange(size)
            store.record_logits(Observation(indices, torch.zeros(size), logits, labels, 0))
            store.count_trained(indices)
            assert store.n_bytes_pending < 8 << 20


def test_copies_leave_nothing_behind():
    store = SampleHistoryStore(3)
    store.count_trained(torch.tensor([0, 2]))
    for copied in (copy.deepcopy(store), pickle.loads(pickle.dumps(store)), store):
        assert copied.column("times_trained").tolist() == [1, 0, 1]


# ---- in a fit ----------------------------------------------------------------------------------------------------


def samples():
    """The first feature of each sample is its index, which the network does not see."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 4, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.8).long()
    y[::7] = (y[::7] + 1) % C
    return TensorDataset(torch.cat([torch.arange(N).float()[:, None], x], 1), y)


class Told(Tiny):
    """Keeps a diary of what its steps were given; ``evaluated`` also of those without a gradient."""

    def __init__(self, diary, evaluated=False):
        super().__init__()
        self.diary, self.evaluated = diary, evaluated

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.model(x[:, 1:])
        ids = x[:, 0].long().tolist()
        if torch.is_grad_enabled() and self.model.training:
            np.add.at(self.diary.times_trained, ids, 1)
        if torch.is_grad_enabled() != self.evaluated:
            for i, row, label in zip(ids, logits.detach().double().numpy(), y.tolist(), strict=True):
                self.diary.see(i, row, label, self.current_epoch)
        return F.cross_entropy(logits, y)


def loader(**options):
    return DataLoader(samples(), **{"batch_size": 8, "shuffle": True, **options})


def test_a_method_that_chooses_before_the_epoch():
    diary = Diary()
    selector = Shares(1.0, 0.5, 0.75)
    fit(selector, Told(diary), loader(), max_epochs=6)
    diary.times_dropped = 6 - diary.times_trained
    diary.check(selector.store)
    assert diary.times_dropped.sum() == 2 * (24 + 12)
    assert diary.times_forgotten.sum() > 0 and (diary.first_learnt == NEVER).sum() < N


def test_what_was_not_reached_is_neither_trained_on_nor_dropped():
    diary = Diary()
    selector = Shares(1.0, 0.5)
    fit(selector, Told(diary), loader(), max_epochs=2, limit_train_batches=2)
    assert diary.times_trained.sum() == 32
    diary.check(selector.store, ("times_trained", "margin"))
    assert selector.store.column("times_dropped").sum() == 24


def test_a_sampler_that_repeats():
    diary = Diary()
    sampler = WeightedRandomSampler(torch.arange(N).float() ** 2, 2 * N)
    selector = Shares(1.0, 0.5)
    fit(selector, Told(diary), loader(sampler=sampler, shuffle=None), max_epochs=4)
    assert diary.times_trained.max() > 12
    diary.check(selector.store, ("times_trained", "margin", "predicted", "first_learnt", "times_forgotten"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0),
        lambda: ESWP(batch_ratio=0.5, prune_ratio=0.25, anneal=0.0),
        lambda: SelectiveBackprop(beta=1.0),
        lambda: AutoAssist(base_prob=0.05, learning_rate=0.5, synchronous=True),
    ],
)
def test_a_method_that_chooses_within_batches_counts_what_was_back_propagated(make):
    diary = Diary()
    selector = make()
    fit(selector, Told(diary, evaluated=not isinstance(selector, AutoAssist)), loader(), max_epochs=5)
    assert diary.times_trained.sum() == sum(r["n_backward"] for r in selector.history) < 5 * N
    np.testing.assert_array_equal(selector.store.column("times_trained"), diary.times_trained)
    np.testing.assert_array_equal(selector.store.column("times_dropped"), 5 - diary.times_trained)


def test_without_classes_there_are_counts_alone():
    class Regression(Tiny):
        def training_step(self, batch, batch_idx):
            return F.mse_loss(self.model(batch[0][:, 1:]).mean(1), batch[1].float())

    selector = Shares(1.0, 0.5)
    fit(selector, Regression(), loader(), max_epochs=2)
    frame = to_frame(selector.store, selector.selected, selector.weights)
    counts = ["times_trained", "times_dropped"]
    assert list(frame) == ["index", "loss", "score", "selected", "weight", *counts, "mean_loss", "suspicion"]
    assert (frame["times_trained"] + frame["times_dropped"] == 2).all()


def assert_same(one, other, rtol=0.0):
    assert list(one) == list(other)
    for name in one:
        a, b = one[name].to_numpy(dtype=float, na_value=np.nan), other[name].to_numpy(dtype=float, na_value=np.nan)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize("step", [3, 6, 9, 12])
def test_a_resumed_fit_exports_the_same(tmp_path, step):
    def run(**options):
        selector = Shares(1.0, 0.5, 0.75)
        keep = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        fit(selector, Tiny4(), loader(), callbacks=[keep], enable_checkpointing=True, max_epochs=4, **options)
        return to_frame(selector.store, selector.selected, selector.weights)

    whole = run()
    assert whole["times_forgotten"].sum() > 0 and whole["first_learnt"].notna().sum() > 0
    assert_same(run(ckpt_path=tmp_path / f"step={step}.ckpt"), whole)


class Tiny4(Tiny):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.model(x[:, 1:]), y)


def exported(batch_size=8, sampler=False, **options):
    selector = Shares(1.0, 0.5, 1.0)
    drawn = {"sampler": WeightedRandomSampler(torch.arange(N).float() ** 2, 2 * N), "shuffle": None} if sampler else {}
    seen = Seen(selector)
    train = loader(batch_size=batch_size, **drawn)
    fit(selector, Tiny4(), train, callbacks=[seen], max_epochs=6, **options)
    frame = to_frame(selector.store, selector.selected, selector.weights)
    frame.attrs["drawn"] = [i for _, batch in seen.batches for i in batch if i < N]
    return frame


def test_two_ranks_export_what_one_does(tmp_path):
    (alone,) = on_ranks(exported, 1, tmp_path / "alone", batch_size=8)
    first, second = on_ranks(exported, 2, tmp_path / "ranks", batch_size=4)
    assert alone["times_forgotten"].sum() > 0 and alone["times_dropped"].sum() == 2 * 24
    assert_same(first, second)
    assert_same(first, alone, rtol=1e-4)


def test_ranks_that_draw_the_same_sample_count_it_twice(tmp_path):
    first, second = on_ranks(exported, 2, tmp_path, sampler=True)
    assert_same(first, second)
    drawn = [np.bincount(rank.attrs["drawn"], minlength=N) for rank in (first, second)]
    np.testing.assert_array_equal(first["times_trained"], drawn[0] + drawn[1])
    assert np.minimum(*drawn).max() > 5


def merged(strategy, devices):
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    store = SampleHistoryStore(4, world_size=devices)
    for epoch, sample in enumerate([1, 2]):
        # both see the same sample; the higher rank is wrong, so that the lower one's finding must not be lost
        seen = Observation(
            torch.tensor([sample]), torch.zeros(1), torch.tensor([[0.0, 1.0]]), torch.tensor([rank]), epoch
        )
        store.record_logits(Observation(seen.indices, seen.losses, -seen.logits, seen.targets, epoch))
        store.count_trained(seen.indices)
        store.mark_dirty(seen.indices)
        store.end_epoch(torch.tensor([0, 1, 2]))
    if rank == 0:
        store.record_logits(Observation(torch.tensor([0]), torch.zeros(1), torch.zeros(1, 2), torch.zeros(1).long(), 2))
        store.mark_dirty(torch.tensor([0]))
    store.merge()
    return store.state_dict()


def test_what_ranks_found_of_one_sample_is_brought_together(tmp_path):
    first, second = on_ranks(merged, 2, tmp_path)
    for name in first:
        assert torch.equal(first[name].nan_to_num(), second[name].nan_to_num()), name
    assert first["first_learnt"].tolist() == [NEVER, 0, 1, NEVER]
    assert first["times_trained"].tolist() == [0, 2, 2, 0]
    assert first["times_dropped"].tolist() == [0, 0, 0, 2]


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_and_the_last_presentation_stands():
    rng = np.random.default_rng(0)
    store, diary = SampleHistoryStore(N), Diary()
    store.to("cuda")
    batches = [(rng.integers(0, N, 8), rng.normal(size=(8, C)), rng.integers(0, C, 8)) for _ in range(200)]
    moved = [Observation(*(torch.tensor(a).cuda() for a in (i, x[:, 0], x, y)), 0) for i, x, y in batches]
    try:
        torch.cuda.set_sync_debug_mode("error")
        for seen in moved:
            store.record_logits(seen)
            store.count_trained(seen.indices)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for i, logits, labels in batches:
        for k in range(8):
            diary.see(i[k], logits[k], labels[k], 0)
            diary.times_trained[i[k]] += 1
    diary.check(store)
