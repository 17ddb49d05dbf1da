"""A budget on a stream: the fit ends after a share of the batches of its plan, with its schedules at their end."""

import pytest
import torch
from helpers import ByHand, Net, fit, same_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks
from resume_helpers import SaveAt
from streams import Keyed, Stream, stream
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import BatchSelector, EvolvedSampling, FewerEpochs, SelectiveBackprop
from lightning_dataselect.callbacks.within_batches import WithinBatches

N_BATCHES = 12  # of 8 samples


class First(WithinBatches, BatchSelector):
    """Trains on the first samples of a batch."""

    def choose(self, seen, k, generator):
        return torch.arange(k)


class Sized(Stream):
    def __len__(self):
        return self.n


def linear(calls, interval="step"):
    """From 0.1 to 0 in so many calls."""

    def schedule(optimizer, trainer):
        made = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=calls)
        return {"scheduler": made, "interval": interval}

    return schedule


def rate(made):
    return made.optimizers[0].param_groups[0]["lr"]


SIZED = {"unknown": Stream, "known": Sized}
of_each_length = pytest.mark.parametrize("data", SIZED.values(), ids=SIZED)


@of_each_length
@pytest.mark.parametrize(
    ("budget", "flags", "planned", "expected"),
    [
        (0.5, {"max_epochs": 4}, 48, 24),
        (0.4, {"max_epochs": 4}, 48, 19),
        (0.25, {"max_epochs": 4}, 48, 12),
        (1.0, {"max_epochs": 2}, 24, 24),
        (0.5, {"max_epochs": -1, "max_steps": 30}, 30, 15),
        (0.1, {"max_epochs": -1, "max_steps": 30}, 30, 3),
        (0.5, {"max_epochs": 2, "max_steps": 30}, 24, 12),
        (0.5, {"max_epochs": 8, "max_steps": 30}, 30, 15),
        (0.3, {"max_epochs": 4, "limit_train_batches": 5}, 20, 6),
        (0.1, {"max_epochs": 4, "limit_train_batches": 5}, 20, 2),
    ],
    ids=str,
)
def test_the_fit_and_its_schedule_end_with_the_budget(data, budget, flags, planned, expected):
    selector, net = FewerEpochs(budget=budget), Net(linear(planned))
    made, _ = fit(selector, net, DataLoader(data(), 8), **flags)
    assert len(net.steps) == made.global_step == expected
    assert sum(record["n_trained"] for record in selector.history) == 8 * expected
    shares = torch.tensor([step.lr for step in net.steps]) / 0.1
    torch.testing.assert_close(shares, 1 - torch.arange(expected) / expected, atol=1.01 / planned, rtol=0)
    assert rate(made) == pytest.approx(0, abs=1e-9)
    assert net.steps[-1].is_last and net.validated[-1][1] == expected
    assert sum(record["done"] for record in selector.history) == pytest.approx(
        expected / flags.get("limit_train_batches", N_BATCHES)
        if data is Sized or "limit_train_batches" in flags or expected >= N_BATCHES
        else 1.0
    )


@of_each_length
def test_schedules_by_epochs_come_to_their_end(data):
    net = Net(linear(4, "epoch"))
    made, _ = fit(FewerEpochs(budget=0.5), net, DataLoader(data(), 8), max_epochs=4)
    assert [step.lr for step in net.steps[::12]] == pytest.approx([0.1, 0.05]) and rate(made) == pytest.approx(0)


@of_each_length
def test_accumulated_gradients_are_not_lost_where_the_budget_ends(data):
    net, plain = Net(linear(8)), Net(linear(8))
    made, _ = fit(FewerEpochs(budget=7 / 24), net, DataLoader(data(), 8), accumulate_grad_batches=3, max_steps=8)
    assert len(net.steps) == 7 and made.global_step == 3 and rate(made) == pytest.approx(0.1 * (1 - 7 / 8), abs=0.013)
    fit(None, plain, DataLoader(data(), 8), accumulate_grad_batches=3, limit_train_batches=7, max_epochs=1)
    assert made.global_step == 3 and len(plain.steps) == 7


def test_a_budget_that_ends_before_anybody_knows_how_long_an_epoch_is():
    net = Net()
    with pytest.raises(ValueError, match=r"FewerEpochs\(budget=0.2\) ends within the first of max_epochs=4.*max_steps"):
        fit(FewerEpochs(budget=0.2), net, stream())
    assert net.steps == []
    fit(FewerEpochs(budget=0.2), net, DataLoader(Sized(), 8))
    assert len(net.steps) == 10


def test_a_stream_that_can_be_read_once_ends_the_fit():
    batches = list(stream())
    with pytest.warns(UserWarning, match="has yielded no batch in epoch 1, so the fit ends before the budget of Fewer"):
        made, net = fit(FewerEpochs(budget=0.5), Net(), iter(batches), max_epochs=8)
    assert len(net.steps) == 12 and made.current_epoch == 2


@pytest.mark.parametrize("flags", [{"max_epochs": 6}, {"max_epochs": -1, "max_steps": 72}], ids=str)
def test_what_scoring_costs_counts(flags):
    """Half of each batch trained on, and all of it scored: 5/6 of a batch."""
    selector, net = EvolvedSampling(batch_ratio=0.5, anneal=0.0, budget=0.5), Net(linear(72))
    made, _ = fit(selector, net, stream(), **flags)
    cost = sum(record["n_forward"] + 2 * record["n_backward"] for record in selector.history) / 3
    assert cost == pytest.approx(0.5 * 6 * 96, abs=8) and rate(made) == pytest.approx(0, abs=1e-9)


def test_annealing_is_that_of_the_budget():
    """An epoch whole, and two at 5/6, are more than half of the four that there is compute for."""
    selector = First(batch_ratio=0.5, anneal=0.5, budget=0.5)
    fit(selector, Net(), stream(), max_epochs=8)
    assert [record["n_backward"] for record in selector.history] == [96, 48, 48, 96, 32]
    assert [record["done"] for record in selector.history] == pytest.approx([1, 1, 1, 1, 1 / 3])


def test_limits_are_given_back():
    made, _ = fit(FewerEpochs(budget=0.5), Net(), stream(), max_epochs=4)
    assert (made.max_epochs, made.max_steps) == (4, -1)
    made, _ = fit(FewerEpochs(budget=0.5), Net(), stream(), max_epochs=-1, max_steps=20)
    assert (made.max_epochs, made.max_steps) == (-1, 20)


def facts(selector):
    return [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]


@of_each_length
def test_resumes_at_the_end_of_an_epoch(data, tmp_path):
    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True)
    selector, net = FewerEpochs(budget=0.45), Net(linear(72))
    made, _ = fit(selector, net, DataLoader(data(), 8), max_epochs=6, callbacks=[saving], enable_checkpointing=True)
    assert len(net.steps) == 32
    for epoch in (0, 1):
        again, resumed = FewerEpochs(budget=0.45), Net(linear(72), seed=9)
        later, _ = fit(again, resumed, DataLoader(data(), 8), max_epochs=6, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert same_weights(resumed, net) and facts(again) == facts(selector) and rate(later) == rate(made), epoch


@pytest.mark.parametrize("flags", [{}, {"limit_train_batches": 10}], ids=str)
def test_resumes_within_an_epoch(flags, tmp_path):
    def go(net, **more):
        selector, data = FewerEpochs(budget=0.45), StatefulDataLoader(Sized(), 8)
        made, _ = fit(selector, net, data, max_epochs=6, **flags, **more)
        return facts(selector), rate(made)

    path = tmp_path / "within.ckpt"
    net, resumed = Net(linear(72)), Net(linear(72), seed=9)
    expected = go(net, callbacks=[SaveAt(path, 1, 4)])
    assert go(resumed, ckpt_path=path) == expected and same_weights(resumed, net)


def on_one_rank(**spread):
    selector, net = SelectiveBackprop(budget=0.4, sample_id="id"), Keyed(linear(36))
    made, _ = fit(selector, net, stream(keyed=True, world_size=2), max_epochs=6, **spread)
    return facts(selector), len(net.steps), rate(made), [t.tolist() for t in net.state_dict().values()]


def test_two_ranks_come_to_the_same_end(tmp_path):
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks")
    assert first == second
    counts, _, lr, _ = first
    cost = sum(record["n_forward"] + 2 * record["n_backward"] for record in counts) / 3
    assert cost == pytest.approx(0.4 * 6 * 96, rel=0.1) and lr == pytest.approx(0, abs=1e-9)


def test_resumes_where_steps_end_the_plan(tmp_path):
    def go(net, **more):
        selector = FewerEpochs(budget=0.5)
        made, _ = fit(selector, net, stream(), max_epochs=-1, max_steps=60, **more)
        return facts(selector), rate(made)

    saving = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}", save_on_train_epoch_end=True)
    net, resumed = Net(linear(60)), Net(linear(60), seed=9)
    expected = go(net, callbacks=[saving], enable_checkpointing=True)
    assert go(resumed, ckpt_path=tmp_path / "epoch=1.ckpt") == expected and same_weights(resumed, net)
    assert len(net.steps) == 30 and len(resumed.steps) == 6


def test_a_lightning_that_names_the_last_batch_otherwise_is_refused(monkeypatch):
    monkeypatch.setattr(
        "lightning_dataselect.trainer.last_batch.missing", lambda target, path: path.endswith("fetcher")
    )
    net = Net()
    with pytest.raises(RuntimeError, match="has no fit_loop._data_fetcher, without which no epoch of a stream can be"):
        fit(FewerEpochs(budget=0.5), net, stream())
    assert net.steps == [] and "training_step" not in vars(net)


class Manual(ByHand, Net):
    """Steps its optimizer and its scheduler itself."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.lr_schedulers().step()


def test_what_a_module_steps_itself_ends_with_the_budget_where_lengths_are_known():
    net = Manual(linear(48))
    made, _ = fit(FewerEpochs(budget=0.5), net, DataLoader(Sized(), 8), max_epochs=4)
    assert len(net.steps) == 24 and rate(made) == pytest.approx(0, abs=1e-9)
    net = Manual(linear(48))
    with pytest.warns(UserWarning, match="FewerEpochs ends the fit with its budget, but under manual optim.*__len__"):
        made, _ = fit(FewerEpochs(budget=0.5), net, stream(), max_epochs=4)
    assert len(net.steps) == 24 and rate(made) == pytest.approx(0.05)
