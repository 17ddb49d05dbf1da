"""AutoAssist in a fit: it learns what is easy, never holds the training up, and leaves nothing behind."""

import copy
import pickle
import threading
import time

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import N, Net, Seen, dataset, fit, loader, same_weights, trainer
from resume_helpers import compare
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import AutoAssist
from lightning_dataselect.data.loader import prepare
from lightning_dataselect.methods.autoassist.queue import ThreadedQueue


def alive():
    return [t for t in threading.enumerate() if t.name == "AutoAssist"]


def two_halves(n=1200):
    """Even samples are easy and look like it; odd ones have labels at random."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=generator)
    x[:, 7] = torch.tensor([1.0, -1.0]).repeat(n // 2)
    y = torch.where(x[:, 7] > 0, (x[:, 0] > 0).long(), torch.randint(0, 2, (n,), generator=generator))
    x[::2, 0] *= 4
    return TensorDataset(x, y)


class Paced(Net):
    """Lets the Assistant finish what it can do before each step, as a step that takes long would."""

    def __init__(self, selector, **options):
        super().__init__(**options)
        self.wait = lambda: wait_for(selector)  # not copied where the step is tried out, as an attribute would be

    def training_step(self, batch, batch_idx):
        self.wait()
        return super().training_step(batch, batch_idx)


def wait_for(selector):
    queue, late = selector.prefetch_filter.queue, time.monotonic() + 100
    while isinstance(queue, ThreadedQueue) and queue.thread.is_alive() and has_work(queue) and time.monotonic() < late:
        time.sleep(0.001)


def has_work(queue):
    unjudged = any(waiting.verdict is None for waiting in queue.waiting)
    return unjudged or (len(queue.records) > 0 and len(queue.waiting) >= queue.learn_at)


@pytest.mark.parametrize("synchronous", [True, False])
def test_easy_samples_are_dropped(synchronous):
    train = DataLoader(two_halves(), batch_size=20, shuffle=True)
    selector = AutoAssist(base_prob=0.2, synchronous=synchronous, learning_rate=0.1)
    seen = Seen(selector)
    module = Paced(selector, lr=0.01)
    fit(selector, module, train, callbacks=[seen], max_epochs=4)
    trained = torch.tensor(seen.of_epoch(3))
    easy, hard = int((trained % 2 == 0).sum()), int((trained % 2 == 1).sum())
    assert easy < 0.5 * 600 and hard > 0.65 * 600
    assert len(trained) == len(trained.unique()), "an epoch comes by each sample once"
    q = selector.scores
    assert q[::2].nanmean() + 0.3 < q[1::2].nanmean()
    assert selector.assistant_accuracy > 0.6
    sizes = [sum(s.size for s in module.steps if s.epoch == e) for e in range(4)]
    assert sizes == [r["n_backward"] for r in selector.history] == [r["n_forward"] for r in selector.history]
    assert [module.count(e) for e in range(4)] == [60] * 4, "as many steps as the loader has batches"
    assert [s.is_last for s in module.steps] == ([False] * 59 + [True]) * 4
    if synchronous:
        assert easy + hard == sizes[3] and selector.current_assistant.steps == 240


class Checked(Net):
    """Remembers which rows it was given."""

    def training_step(self, batch, batch_idx):
        self.rows = [*getattr(self, "rows", []), batch[0].clone()]
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("workers", [0, 2])
def test_losses_and_rows_belong_to_the_recorded_indices(workers):
    selector, module = AutoAssist(base_prob=0.3, queue_size=3), Checked()
    seen = Seen(selector)
    train = loader(batch_size=7, num_workers=workers, persistent_workers=workers > 0)
    fit(selector, module, train, callbacks=[seen], max_epochs=3, limit_train_batches=9)
    x = dataset().tensors[0]
    assert len(module.rows) == len(seen.batches) == 27
    for rows, (_, indices) in zip(module.rows, seen.batches, strict=True):
        torch.testing.assert_close(rows, x[indices])


@pytest.mark.parametrize("synchronous", [True, False])
def test_no_batch_is_pulled_that_is_not_trained_on(synchronous):
    read = []

    class Counted(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, index):
            read.append(index)
            return dataset()[index]

    fit(AutoAssist(synchronous=synchronous), train=DataLoader(Counted(), 10), max_epochs=2, limit_train_batches=3)
    fingerprints = 2 * 8  # samples looked at before the fit and before its second epoch
    assert len(read) == 60 + fingerprints


class Busy(nn.Module):
    """Keeps what it learns from, and calls what capture listens to."""

    def __init__(self):
        super().__init__()
        self.layer, self.learnt = nn.Linear(8, 1), []

    def forward(self, x):
        if self.training:
            self.learnt.append(x.clone())
        out = self.layer(x)
        for _ in range(20):
            F.mse_loss(out, out.detach()).mean()
            F.cross_entropy(torch.cat([out, out], 1), torch.zeros(len(x), dtype=torch.int64))
        return out


class Wiping(Net):
    """Works out its samples' losses by hand, and wipes its batch out."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x.clone())
        with torch.no_grad():
            self.by_hand = [*getattr(self, "by_hand", []), (z.exp().sum(1).log() - z[range(len(y)), y])]
        x.zero_()
        return F.cross_entropy(z, y)


@pytest.mark.parametrize("synchronous", [True, False])
def test_training_and_assistant_do_not_disturb_each_other(synchronous):
    busy = Busy()
    selector, module = AutoAssist(base_prob=0.5, assistant=lambda x, labels: busy, synchronous=synchronous), Wiping()
    seen = Seen(selector)
    fit(selector, module, loader(400, 10), callbacks=[seen], max_epochs=2)
    expected = torch.full((400,), torch.nan)
    for losses, (_, indices) in zip(module.by_hand, seen.batches, strict=True):
        expected[indices] = losses
    torch.testing.assert_close(selector.losses, expected, equal_nan=True)
    assert busy.learnt and min(float(rows.abs().sum(1).min()) for rows in busy.learnt) > 0


class Stuck(nn.Module):
    """Comes to no end in its thread until it is let go, or a whole minute has passed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 1)
        self.begun, self.let_go, self.calls, self.in_vain = threading.Event(), threading.Event(), 0, False

    def forward(self, x):
        if threading.current_thread().name == "AutoAssist":
            self.calls += 1
            self.begun.set()
            if not self.let_go.wait(60):
                self.in_vain = True
                self.let_go.set()
        return self.layer(x)


class LetGo(L.Callback):
    """Begins the training when the network is stuck, and lets it go after the last step."""

    def __init__(self, network):
        self.network = network

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        assert self.network.begun.wait(60)

    def on_train_end(self, trainer, pl_module):
        self.calls = self.network.calls
        self.network.let_go.set()


def test_training_ends_though_the_assistant_never_answers():
    network, module = Stuck(), Net()
    selector, end = AutoAssist(base_prob=0.1, assistant=lambda x, labels: network), LetGo(network)
    # more batches, and more records, than the queues hold
    fit(selector, module, loader(600, 20), callbacks=[end], max_epochs=2)
    assert not network.in_vain, "the training has waited for the Assistant"
    assert end.calls == 1
    assert [r["n_backward"] for r in selector.history] == [600, 600] and len(module.steps) == 60


class Fails(Net):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def training_step(self, batch, batch_idx):
        if batch_idx == 5:
            assert alive()
            raise self.error
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_no_thread_is_left_after_an_error(error):
    with pytest.raises(type(error) if isinstance(error, ValueError) else SystemExit):
        fit(AutoAssist(), Fails(error))
    assert not alive()


def test_no_thread_is_left_after_a_fit_and_it_lives_in_between():
    selector, lives = AutoAssist(), []

    class Look(L.Callback):
        def on_train_batch_end(self, *args):
            lives.append(len(alive()))

    fit(selector, callbacks=[Look()], max_epochs=2)
    assert set(lives) == {1} and not alive()
    fit(selector, callbacks=[Look()], max_epochs=1)
    assert not alive() and len(selector.history) == 1


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(8, 1), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 3:
            raise ZeroDivisionError("of its own")
        return self.layer(x)


def test_assistant_that_fails_ends_the_fit():
    selector = AutoAssist(assistant=Broken())
    with pytest.raises(RuntimeError, match="The Assistant has failed: ZeroDivisionError"):
        fit(selector, Paced(selector), max_epochs=20)
    assert not alive()


def run(synchronous=True, seed=0, **flags):
    selector, module = AutoAssist(synchronous=synchronous, seed=seed), Net()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        fit(selector, module, max_epochs=3, **flags)
        return selector, module, torch.get_rng_state()


def test_synchronous_runs_repeat_bit_for_bit():
    (a, first, _), (b, again, _), (_, other, _) = run(), run(), run(seed=1)
    assert same_weights(first, again) and not same_weights(first, other)
    assert torch.equal(a.scores, b.scores)
    assert all(map(torch.equal, a.current_assistant.network.parameters(), b.current_assistant.network.parameters()))


def test_global_random_state_is_that_of_a_plain_fit():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        # a loader draws its own seed from it, once an epoch; the order comes from the selector's seed
        made = trainer(max_epochs=3)
        made.fit(Net(), prepare(loader(), seed=0).loader, loader(50, 25, False))
        plain = torch.get_rng_state()
    for synchronous in (True, False):
        assert torch.equal(run(synchronous)[2], plain)


def test_second_fit_builds_a_new_assistant():
    used, fresh = run()[0], AutoAssist(synchronous=True)
    for selector in (used, fresh):
        fit(selector, train=loader(shuffle=False), max_epochs=1)
    assert used.current_assistant.steps == 10 and torch.equal(used.scores, fresh.scores)


def test_synchronous_fit_goes_on_from_any_batch(tmp_path):
    assert (
        compare(
            tmp_path, lambda: AutoAssist(synchronous=True), train=loader, kinds=("step", "epoch"), every=7, max_epochs=3
        )
        == 5
    )


def test_assistant_is_in_the_checkpoint(tmp_path):
    selector = AutoAssist()
    made, _ = fit(selector, Paced(selector), max_epochs=3, enable_checkpointing=True, default_root_dir=tmp_path)
    made.save_checkpoint(tmp_path / "end.ckpt")
    saved = selector.rank_state()["assistant"]
    assert saved["steps"] > 0
    again = AutoAssist()
    fit(again, max_epochs=3, ckpt_path=tmp_path / "end.ckpt")
    restored = again.rank_state()["assistant"]
    assert restored["accuracy"] == saved["accuracy"] and restored["threshold"] == saved["threshold"]
    assert all(torch.equal(restored["network"][name], value) for name, value in saved["network"].items())
    with pytest.raises(ValueError, match="Give the same `assistant`"):
        fit(AutoAssist(assistant=nn.Linear(8, 1)), max_epochs=4, ckpt_path=tmp_path / "end.ckpt")


class Copies(L.Callback):
    def __init__(self, selector):
        self.selector, self.copies = selector, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 4:
            self.copies += [copy.deepcopy(self.selector), pickle.loads(pickle.dumps(self.selector))]
            assert alive()


def test_copies_made_in_a_fit_leave_it_alone():
    selector = AutoAssist()
    copies = Copies(selector)
    fit(selector, callbacks=[copies], max_epochs=2)
    assert len(selector.history) == 2 and not alive()
    for copied in copies.copies:
        fit(copied, max_epochs=1)
        assert len(copied.history) == 1 and not alive()


class Texts(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return [1 + (index * k) % 30 for k in range(1, 3 + index % 4)], index % 2


def to_tensors(samples):
    width = max(len(ids) for ids, _ in samples)
    padded = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in samples])
    labels = torch.tensor([label for _, label in samples])
    return {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": labels}


class TextNet(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.EmbeddingBag(31, 2, padding_idx=0)

    def training_step(self, batch, batch_idx):
        sizes = {len(part) for part in batch.values()}
        assert len(sizes) == 1
        self.seen = [*getattr(self, "seen", []), (self.trainer.current_epoch, *sizes)]
        return F.cross_entropy(self.net(batch["input_ids"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        pass


def test_tokens_padded_batch_by_batch_are_dropped_after_the_first_epoch():
    selector, module = AutoAssist(synchronous=True), TextNet()
    fit(selector, module, DataLoader(Texts(), 10, shuffle=True, collate_fn=to_tensors), max_epochs=4)
    sizes = [sum(size for e, size in module.seen if e == epoch) for epoch in range(4)]
    assert sizes[0] == N, "text drops nothing in the first epoch"
    assert all(N // 2 - 15 < size < N for size in sizes[1:])
    assert [record["n_backward"] for record in selector.history] == sizes


class ImageNet(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x.flatten(1)[:, :8]), y)

    def validation_step(self, batch, batch_idx):
        pass


def test_own_assistant_learns_from_images():
    data = TensorDataset(torch.rand(60, 3, 4, 4), torch.arange(60) % 3)
    own = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    before = copy.deepcopy(own.state_dict())
    for assistant in (None, own, lambda x, labels: nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 1))):
        selector = AutoAssist(assistant=assistant, synchronous=True)
        fit(selector, ImageNet(), DataLoader(data, 10), max_epochs=2)
        assert selector.current_assistant.steps == 12 and not selector.scores.isnan().any()
    assert all(torch.equal(own.state_dict()[name], value) for name, value in before.items())


def test_warm_up_and_annealing_take_whole_batches():
    selector = AutoAssist(base_prob=0.1, warmup_epochs=2, anneal=0.25, synchronous=True)
    fit(selector, train=loader(400, 20), max_epochs=8)
    kept = [record["n_backward"] for record in selector.history]
    assert kept[:2] == kept[6:] == [400, 400] and max(kept[2:6]) < 400


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"base_prob": 1.5}, ValueError, "base_prob=1.5"),
        ({"base_prob": 0}, ValueError, r"base_prob=0 is outside \(0, 1\]"),
        ({"assistant": "small"}, TypeError, "assistant='small'"),
        ({"inputs": 3}, TypeError, "inputs=3"),
        ({"queue_size": 0}, ValueError, "queue_size=0"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate=0.0"),
        ({"memory": 1.0}, ValueError, "memory=1.0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AutoAssist(**arguments)


def test_wrong_inputs_and_assistants_are_refused_on_the_first_batch():
    labels_only = DataLoader(TensorDataset(torch.arange(20)), 5)
    with pytest.raises(TypeError, match="The Assistant found no input"):
        fit(AutoAssist(), train=labels_only)
    with pytest.raises(TypeError, match="returned int for"):
        fit(AutoAssist(assistant=lambda x, labels: 3))
    with pytest.raises(ValueError, match="one logit a sample"):
        fit(AutoAssist(assistant=nn.Linear(8, 2)))
    assert not alive()
