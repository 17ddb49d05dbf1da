"""Frontier on a stream whose samples carry a key: a pass is an epoch, and what it leaves out is not read."""

import hashlib
import os
import random
import weakref

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fit, same_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks
from resume_helpers import SaveAt
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import FewerEpochs, Frontier

N, BATCH = 400, 20
COLUMNS = ("score", "previous", "latest", "untrained", "group", "visits", "times_trained", "times_dropped")


def clusters(n=N, flipped=0.0, spread=0.35):
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 4
    x = spread * torch.randn(n, 8, generator=g)
    x[torch.arange(n), y] += 2
    wrong = torch.rand(n, generator=g) < flipped
    return x, torch.where(wrong, (y + torch.randint(1, 4, (n,), generator=g)) % 4, y), wrong


class Stream(IterableDataset):
    """Four clusters, each sample with its key, shared among workers and ranks; ``keeps`` is asked before reading."""

    def __init__(self, n=N, flipped=0.0, world_size=1, uneven=0, keeps=None):
        self.x, self.y, self.wrong = clusters(n, flipped)
        self.n, self.world_size, self.uneven, self.keeps, self.read = n, world_size, uneven, keeps, []
        self.rank = int(os.environ.get("LOCAL_RANK", 0)) if world_size > 1 else 0

    def __iter__(self):
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(self.rank + number * self.world_size, self.n - self.rank * self.uneven, of * self.world_size):
            if self.keeps is None or self.keeps(f"s{i}"):
                self.read.append(i)
                yield {"x": self.x[i], "y": self.y[i], "id": f"s{i}"}


class Sized(Stream):
    def __len__(self):
        return self.n


class Counting(Stream):
    """Saves where it is, as a stream that would not be read from its beginning."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.at = 0

    def __iter__(self):
        for i in range(self.at, self.n):
            self.at = i + 1
            yield {"x": self.x[i], "y": self.y[i], "id": f"s{i}"}
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Classifier(L.LightningModule):
    def __init__(self, lr=0.05, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net, self.lr = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), lr
        self.epochs, self.last, self.validated = [], [], []

    def training_step(self, batch, batch_idx):
        if batch_idx == 0 or not self.epochs:
            self.epochs.append([])
        self.epochs[-1] += batch["id"]
        if self.trainer.is_last_batch:
            self.last.append((self.current_epoch, batch_idx, len(batch["id"])))
        return self.loss(self.net(batch["x"]), batch["y"])

    def loss(self, out, y):
        return F.cross_entropy(out, y)

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_start(self):
        if not self.trainer.sanity_checking:
            self.validated.append((self.current_epoch, len(self.epochs[-1])))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Regressor(Classifier):
    def loss(self, out, y):
        return F.mse_loss(out[:, 0], y.float())


def frontier(budget=0.5, **more):
    return Frontier(budget=budget, sample_id="id", **more)


def train(selector, module=None, data=None, max_epochs=12, **flags):
    module = Classifier() if module is None else module
    made, _ = fit(
        selector, module, DataLoader(Stream(), BATCH) if data is None else data, max_epochs=max_epochs, **flags
    )
    return made, module


def facts(selector):
    counts = [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]
    columns = [selector.column(name).nan_to_num(-1).tolist() for name in COLUMNS]
    by_key = {key: values for key, *values in zip(selector.sample_ids, *columns, strict=True)}
    return counts, [repr(decision) for decision in selector.decisions], by_key


# ---- what is left out --------------------------------------------------------------------------------------------


def hashed(key):
    return int.from_bytes(hashlib.blake2b(b"s" + key.encode(), digest_size=8).digest(), "little", signed=True)


def uniform(key, seed, epoch, purpose):
    """The number drawn for a key, by Python's integers."""
    x = hashed(key) % 2**64
    x ^= random.Random(f"{seed}/{epoch}/{purpose}").getrandbits(64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor % 2**64
    return ((x ^ (x >> 31)) >> 11) / 2**53


class Watched(Frontier):
    """Writes down the losses that a pass is decided by, by key."""

    def __init__(self, **given):
        super().__init__(**given)
        self.known = []

    def leave_out(self, epoch, rows):
        self.known.append({name: column.double().numpy() for name, column in rows.columns.items()})
        return super().leave_out(epoch, rows)


def test_a_pass_leaves_out_what_the_formulas_say():
    selector = Watched(budget=0.5, sample_id="id", seed=3)
    _, module = train(selector, Classifier(lr=0.02), DataLoader(Stream(flipped=0.3), BATCH))
    keys = sorted((f"s{i}" for i in range(N)), key=hashed)
    trial = np.array([uniform(key, 3, 1, "trial") for key in keys])
    held_back, control = trial < 0.1, (trial >= 0.1) & (trial < 0.2)
    assert 20 < held_back.sum() < 60 and 20 < control.sum() < 60
    missing = [np.array([key not in set(epoch) for key in keys]) for epoch in module.epochs]
    assert not missing[0].any() and missing[1].tolist() == held_back.tolist()
    known, decision = selector.known[1], selector.decisions[0]
    assert (decision.passes, decision.epoch, decision.contradicted) == (2, 2, True)
    unseen = np.isnan(known["previous"])
    assert unseen.tolist() == held_back.tolist(), "seen once so far"
    L0 = np.nanmean(known["untrained"])
    learnt = (known["score"] < 0.25 * L0) & decision.learnt
    above = (known["previous"] > L0) & (known["latest"] > L0)
    for c in range(4):
        of_class = known["label"] == c
        if np.mean(known["latest"][of_class] > L0) > 0.5:
            above &= ~of_class
    learnt &= np.array([uniform(key, 3, 2, "left out") for key in keys]) < 0.9
    expected = (learnt | above) & ~held_back & ~control
    assert missing[2].tolist() == expected.tolist() and decision.n_left_out == expected.sum() > 40
    assert decision.n_contradicted == (expected & (known["latest"] > L0)).sum()
    assert selector.known[2]["contradicted"].tolist() == above.tolist(), "those of the trial, too"


def test_wrong_labels_are_left_out_and_right_ones_are_not():
    stream = Stream(flipped=0.3)
    selector = frontier(0.6)
    _, module = train(selector, Classifier(lr=0.02), DataLoader(stream, BATCH))
    assert selector.decisions[-1].contradicted
    times = torch.tensor([sum(f"s{i}" in epoch for epoch in module.epochs[3:]) for i in range(N)]).float()
    assert times[stream.wrong].mean() < 0.6 * times[~stream.wrong].mean()


def test_it_spends_what_fewer_epochs_spends_in_shorter_passes():
    selector = frontier(0.5)
    made, module = train(selector)
    other, _ = train(FewerEpochs(budget=0.5), Classifier(), DataLoader(Stream(), BATCH))
    assert made.global_step == other.global_step == 6 * N // BATCH
    assert made.current_epoch > 6 and selector.decisions[-1].learnt
    for record, epoch in zip(selector.history[:-1], module.epochs, strict=False):
        assert record["n_total"] == record["n_full"] == N
        assert record["n_selected"] == record["n_trained"] == record["n_backward"] == len(epoch)
    dropped = selector.column("times_dropped")
    assert (dropped + selector.column("times_trained"))[dropped > 0].max() <= len(selector.history)
    assert "learnt ones after 2 epochs" in selector.remark()


@pytest.mark.parametrize("data", [Stream, Sized])
def test_where_nothing_can_be_told_it_is_fewer_epochs(data):
    module, plain = Regressor(), Regressor()
    selector = frontier(0.4)
    train(selector, module, DataLoader(data(), BATCH))
    train(FewerEpochs(budget=0.4), plain, DataLoader(data(), BATCH))
    assert same_weights(module, plain) and module.epochs == plain.epochs and module.last == plain.last
    assert module.validated == plain.validated
    assert selector.remark() == "; all samples in turn, as losses gave no reason to leave any out"


def test_warmup_and_annealing_train_on_whole_passes():
    selector = frontier(0.5, warmup_epochs=3, anneal=0.3)
    _, module = train(selector)
    whole = [len(epoch) == N for epoch in module.epochs]
    assert whole[:3] == [True] * 3 and not all(whole) and whole[-2]
    assert selector.decisions[0].epoch == 4


def test_a_key_that_is_forgotten_is_trained_on():
    selector = frontier(history_size=100)
    _, module = train(selector)
    assert len(selector.sample_ids) == 100
    assert all(len(epoch) >= 300 for epoch in module.epochs[:-1])


# ---- where it is left out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_workers_leave_out_what_the_main_process_has_chosen(options):
    selector = frontier()
    _, module = train(selector, data=DataLoader(Stream(), BATCH, **options))
    for record, epoch in zip(selector.history, module.epochs, strict=True):
        assert len(epoch) == len(set(epoch)) == record["n_trained"]
    assert len(module.epochs[1]) == N - (torch.tensor([uniform(f"s{i}", 0, 1, "trial") for i in range(N)]) < 0.1).sum()
    assert min(len(epoch) for epoch in module.epochs[:-1]) < 0.6 * N


@pytest.mark.slow
def test_workers_that_are_spawned():
    selector, options = frontier(), {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}
    _, module = train(selector, data=DataLoader(Stream(), BATCH, **options))
    alone = Classifier()
    train(frontier(), alone)
    assert module.epochs == alone.epochs and same_weights(module, alone)


def of_worker(worker):
    get_worker_info().dataset.n = 80


def test_a_worker_init_fn_reaches_the_data_set():
    stream = Stream()
    _, module = train(frontier(), data=DataLoader(stream, BATCH, num_workers=1, worker_init_fn=of_worker))
    assert len(module.epochs[0]) == 80 and stream.n == N


def test_a_stream_of_known_length_is_the_same_and_is_shown_its_length():
    class Scheduled(Classifier):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            steps = int(self.trainer.estimated_stepping_batches)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module = Scheduled()
    made, _ = train(frontier(), module, DataLoader(Sized(), BATCH))
    assert made.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    by_steps = Classifier()
    train(frontier(), by_steps, DataLoader(Stream(), BATCH))
    known = Classifier()
    train(frontier(), known, DataLoader(Sized(), BATCH))
    assert same_weights(known, by_steps) and known.last == by_steps.last and known.validated == by_steps.validated


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stream_that_asks_reads_nothing_that_is_left_out(n_workers):
    selector = frontier()
    stream = Stream(keeps=selector.keeps)
    _, module = train(selector, data=DataLoader(Batched(stream), None, num_workers=n_workers))
    assert min(len(epoch) for epoch in module.epochs[:-1]) < 0.6 * N
    if n_workers == 0:
        assert len(stream.read) == pytest.approx(sum(map(len, module.epochs)), abs=3 * BATCH)  # read ahead at the end
        alone = Classifier()
        train(frontier(), alone)
        assert alone.epochs == module.epochs and same_weights(alone, module)


def test_who_asks_is_found_anew_in_each_fit():
    selector = frontier()
    train(selector, data=DataLoader(Stream(keeps=selector.keeps), BATCH), max_epochs=2)
    module, alone = Classifier(), Classifier()
    train(selector, module)
    train(frontier(), alone)
    assert min(len(epoch) for epoch in module.epochs[:-1]) < 0.6 * N and same_weights(module, alone)


class Batched(IterableDataset):
    """Makes batches itself, as WebDataset does."""

    def __init__(self, stream):
        self.stream = stream

    def __iter__(self):
        rows = []
        for row in self.stream:
            rows.append(row)
            if len(rows) == BATCH:
                yield default_collate(rows)
                rows = []
        if rows:
            yield default_collate(rows)


class Iterable:
    """A loader that is no DataLoader."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_batches_that_nobody_has_filtered_are_refused_on_the_first():
    module = Classifier()
    with pytest.raises(TypeError, match=r"makes its batches itself, so Frontier cannot.*keeps = frontier.keeps.*'id'"):
        train(frontier(), module, Iterable(Batched(Stream())))
    assert module.epochs == []


@pytest.mark.parametrize("data", [Stream(), Batched(Stream())], ids=["samples", "batches"])
def test_a_loader_that_makes_no_batches_is_refused_with_what_to_do_for_either(data):
    name = type(data).__name__
    words = (
        rf"^DataLoader\(batch_size=None\) passes on what {name} yields.*Where {name} yields samples, let the DataLoader"
        r" make batches of them \(batch_size=32.*Where it yields batches.*keeps = frontier.keeps.*sample_id='id'"
    )
    with pytest.raises(TypeError, match=words):
        train(frontier(), Classifier(), DataLoader(data, None))


def test_losses_that_cannot_be_read_by_keys_that_are_too_few_are_said_to_be_so():
    def sample_id(batch):
        return batch["id"][:7]

    words = r"^sample_id=sample_id gives 7 keys for a batch \(dict\) whose parts have 20 rows each.*cross_entropy gave"
    with (
        pytest.warns(UserWarning, match="The batch is taken to hold 7 samples. If each row is a sample, give one"),
        pytest.raises(ValueError, match=words),
    ):
        train(Frontier(sample_id=sample_id))


def test_samples_of_more_rows_than_one_are_no_reason_to_complain(recwarn):
    """As of graphs, whose nodes are rows: a plain comparison of lengths would refuse them."""

    class Sets(Classifier):
        def training_step(self, batch, batch_idx):
            of_sample = torch.zeros(len(batch["id"]), 8).index_add(0, batch["of"], batch["x"])
            self.epochs = [[]]
            return self.loss(self.net(of_sample), torch.arange(len(batch["id"])) % 4)

    def as_nodes(rows):
        of = torch.arange(len(rows)).repeat_interleave(torch.arange(len(rows)) % 3 + 1)
        return {"x": torch.stack([r["x"] for r in rows])[of], "of": of, "id": [r["id"] for r in rows]}

    for sample_id in ("id", lambda batch: batch["id"]):
        train(Frontier(sample_id=sample_id), Sets(), DataLoader(Stream(), BATCH, collate_fn=as_nodes), max_epochs=2)
    assert not [one for one in recwarn if "rows each" in str(one.message)]


def as_pairs(rows):
    return {
        "x": torch.stack([r["x"] for r in rows]),
        "y": torch.stack([r["y"] for r in rows]),
        "id": [r["id"] for r in rows],
    }


@pytest.mark.parametrize(
    "given",
    [{"collate_fn": as_pairs, "sample_id": "id"}, {"sample_id": lambda batch: [name[1:] for name in batch["id"]]}],
    ids=["a collate_fn", "a function of the batch"],
)
def test_keys_that_only_a_batch_has(given):
    selector = Frontier(budget=0.5, sample_id=given.pop("sample_id"))
    _, module = train(selector, data=DataLoader(Stream(), BATCH, **given))
    assert min(len(epoch) for epoch in module.epochs[:-1]) < 0.6 * N


# ---- the Trainer's settings --------------------------------------------------------------------------------------


def test_each_pass_is_validated_and_steps_on_its_last_batch():
    selector = frontier()
    made, module = train(selector, data=DataLoader(Sized(), BATCH), accumulate_grad_batches=3)
    n_batches = [-(-len(epoch) // BATCH) for epoch in module.epochs]
    assert module.last == [
        (e, n - 1, len(epoch) - (n - 1) * BATCH)
        for e, (n, epoch) in enumerate(zip(n_batches, module.epochs, strict=True))
    ]
    assert [epoch for epoch, _ in module.validated] == list(range(len(n_batches)))
    assert made.global_step == sum(-(-n // 3) for n in n_batches)


def test_an_interval_of_batches_is_met_in_passes_that_are_shorter():
    _, module = train(frontier(), val_check_interval=15)
    assert {epoch for epoch, _ in module.validated} == set(range(len(module.epochs)))


def test_passes_that_the_trainer_limits():
    made, module = train(frontier(), limit_train_batches=10)
    n_batches = [-(-len(epoch) // BATCH) for epoch in module.epochs]
    assert made.global_step == sum(n_batches) == 60 and max(n_batches) == 10 == n_batches[1]
    selector = frontier()
    made, module = train(selector, max_epochs=-1, max_steps=200)
    assert made.global_step == 100 and len(module.epochs) > 5


# ---- resumed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [Stream, Sized])
@pytest.mark.parametrize("when", ["the end", "a validation"])
def test_resumes_at_the_end_of_a_pass(data, when, tmp_path):
    moments = {"the end": {"save_on_train_epoch_end": True}, "a validation": {"save_on_train_epoch_end": False}}

    def go(module, **more):
        selector = frontier(0.6)
        train(selector, module, DataLoader(data(flipped=0.3), BATCH), **more)
        return facts(selector)

    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", **moments[when])
    module = Classifier(lr=0.02)
    expected = go(module, callbacks=[saving], enable_checkpointing=True)
    for epoch in (0, 1, 2, 4):
        resumed = Classifier(lr=0.02, seed=9)
        assert go(resumed, ckpt_path=tmp_path / f"epoch={epoch}.ckpt") == expected, epoch
        assert same_weights(resumed, module), epoch


@pytest.mark.parametrize(
    ("data", "n_workers"), [(Stream, 0), (Stream, 2), (Sized, 0), (Counting, 0), (Counting, 1)], ids=str
)
@pytest.mark.parametrize("at", [(0, 4), (2, 4), (3, 1)], ids=str)
def test_resumes_within_a_pass_where_the_loader_has_a_state(data, n_workers, at, tmp_path, recwarn):
    def go(module, **more):
        selector, rows = frontier(0.6), data(flipped=0.3)
        train(selector, module, StatefulDataLoader(rows, BATCH, num_workers=n_workers), **more)
        return facts(selector)

    module, resumed = Classifier(lr=0.02), Classifier(lr=0.02, seed=9)
    path = tmp_path / "within.ckpt"
    expected = go(module, callbacks=[SaveAt(path, *at)])
    assert go(resumed, ckpt_path=path) == expected and same_weights(resumed, module)
    assert not [w for w in recwarn if "goes on after batch" in str(w.message)]


@pytest.mark.parametrize("data", [Stream, Counting])
@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_resumes_within_a_pass_again_and_again(data, n_workers, tmp_path):
    """torchdata counts twice what a stream without a state has yielded before a resume, and so is lost at the third."""
    if (data, n_workers) == (Counting, 2):
        pytest.skip("it is not shared among workers")

    def go(module, **more):
        selector = frontier(0.6)
        train(selector, module, StatefulDataLoader(data(flipped=0.3), BATCH, num_workers=n_workers), **more)
        return facts(selector)

    paths, resumed = [tmp_path / f"{i}.ckpt" for i in range(4)], Classifier(lr=0.02)
    module, places = Classifier(lr=0.02), [(2, 2), (2, 5), (2, 7), (3, 3)]
    expected, before = go(module), None
    for path, place in zip(paths, places, strict=True):
        go(Classifier(lr=0.02, seed=9 if before else 0), callbacks=[SaveAt(path, *place)], ckpt_path=before)
        before = path
    assert go(resumed, ckpt_path=before) == expected and same_weights(resumed, module)


class State(dict):
    """A dict that can be referred to weakly."""


class Recorded(StatefulDataLoader):
    def state_dict(self):
        state = State(super().state_dict())
        self.states.append(weakref.ref(state))
        return state


def test_states_of_the_loader_are_kept_of_what_is_read_ahead_alone():
    class Held(L.Callback):
        most = 0

        def on_train_batch_end(self, *_):
            self.most = max(self.most, sum(state() is not None for state in Recorded.states))

    held, Recorded.states = Held(), []
    train(frontier(), data=Recorded(Stream(), BATCH), max_epochs=4, callbacks=[held])
    assert len(Recorded.states) > 40 and 0 < held.most <= 4


# ---- ranks -------------------------------------------------------------------------------------------------------


def on_one_rank(uneven=0, path=None, ckpt_path=None, n_workers=1, **spread):
    selector, module = frontier(0.6), Classifier(lr=0.02, seed=9 if ckpt_path else 0)
    data = DataLoader(Stream(flipped=0.3, world_size=2, uneven=uneven), BATCH, num_workers=n_workers)
    saving = [ModelCheckpoint(path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True)] if path else []
    more = {"callbacks": saving, "enable_checkpointing": bool(path), "ckpt_path": ckpt_path}
    train(selector, module, data, **more, **spread)
    weights = [t.tolist() for t in module.state_dict().values()]
    return facts(selector), weights, module.epochs, selector.keeps.left_out().tolist()


@pytest.mark.parametrize("uneven", [0, 60])
def test_two_ranks_decide_alike_and_end_their_passes_together(uneven, tmp_path):
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", uneven=uneven)
    assert first[0][:2] == second[0][:2] and first[1] == second[1]
    batches = [[-(-len(epoch) // BATCH) for epoch in rank[2]] for rank in (first, second)]
    assert batches[0] == batches[1] and len(batches[0]) > 8
    assert not set(first[0][2]) & set(second[0][2])
    assert first[3] == second[3] and len(first[3]) > 60
    assert any("contradicted=True" in decision for decision in first[0][1])


def test_two_ranks_resume(tmp_path):
    first, second = on_ranks(on_one_rank, 2, tmp_path / "whole", path=tmp_path / "saved")
    again = on_ranks(on_one_rank, 2, tmp_path / "again", ckpt_path=tmp_path / "saved" / "epoch=3.ckpt")
    for whole, resumed in zip((first, second), again, strict=True):
        assert whole[1] == resumed[1] and whole[0][:2] == resumed[0][:2] and whole[3] == resumed[3]
        assert whole[2][4:] == resumed[2]


def within_on_one_rank(path, n_workers, ckpt_path=None, **spread):
    selector, module = frontier(0.6), Classifier(lr=0.02, seed=9 if ckpt_path else 0)
    data = StatefulDataLoader(Stream(flipped=0.3, world_size=2), BATCH, num_workers=n_workers)
    train(selector, module, data, callbacks=[] if ckpt_path else [SaveAt(path, 3, 2)], ckpt_path=ckpt_path, **spread)
    return facts(selector)[:2], [t.tolist() for t in module.state_dict().values()], module.epochs


@pytest.mark.timeout(240)
@pytest.mark.parametrize("n_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_ranks_resume_within_a_pass_each_where_its_own_loader_was(n_workers, tmp_path):
    path = tmp_path / "within.ckpt"
    wholes = on_ranks(within_on_one_rank, 2, tmp_path / "whole", path=path, n_workers=n_workers)
    again = on_ranks(within_on_one_rank, 2, tmp_path / "again", path=path, n_workers=n_workers, ckpt_path=path)
    read = [len(whole[2][3]) for whole in wholes]
    assert read[0] != read[1], "they leave out different samples"
    for whole, resumed in zip(wholes, again, strict=True):
        assert whole[2][3][3 * BATCH :] == resumed[2][0] and whole[2][4:] == resumed[2][1:]
        assert whole[:2] == resumed[:2]


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_without_keys_it_is_refused():
    module = Classifier()
    with pytest.raises(TypeError, match="Stream is a stream.*give it sample_id=.*Without keys take FewerEpochs"):
        train(Frontier(), module)
    assert module.epochs == []


@pytest.mark.parametrize(
    ("sample_id", "words"), [("key", "is no field of the batch"), ("x", "must be strings or whole")]
)
def test_keys_that_are_none(sample_id, words):
    with pytest.raises(ValueError, match=f"sample_id='{sample_id}'.*{words}"):
        train(Frontier(sample_id=sample_id))
