"""The early end of Frontier: when samples are held out, what they are compared with, and what comes of it."""

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fit, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_dataselect import Frontier
from lightning_dataselect.methods.frontier import HeldOut
from lightning_dataselect.methods.frontier.early_stop import NEVER, EarlyStop, Verdict, is_too_late
from lightning_dataselect.methods.frontier.held_out import compare_held_out

N = 4000


def test_changes_are_those_of_the_formulas_sample_by_sample():
    rng = np.random.default_rng(0)
    held, control = (rng.exponential(size=(4, 50)).astype(np.float32) for _ in range(2))
    before, lowest = None, 0
    for k in range(4):
        found, before = compare_held_out(k, float(k), torch.tensor(held[k]), torch.tensor(control[k]), before)
        x, c = held.astype(np.float64), control.astype(np.float64)
        assert (found.loss, found.control_loss) == pytest.approx((x[k].mean(), c[k].mean()))
        if k > 0:
            for difference, name in ((x[k] - x[k - 1], "change"), (c[k] - c[k - 1], "control_change")):
                assert getattr(found, name) == pytest.approx(difference.mean(), rel=1e-5)
                error = getattr(found, name.replace("_change", "") + "_error")
                assert error == pytest.approx(difference.std(ddof=1) / np.sqrt(50), rel=1e-5)
            rise = x[k] - x[lowest]
            assert found.rise == pytest.approx(rise.mean(), rel=1e-5)
            assert found.rise_error == pytest.approx(rise.std(ddof=1) / np.sqrt(50), rel=1e-5)
        lowest = min(range(k + 1), key=lambda j: x[j].mean())


FALLS = {"loss": 1.0, "control_loss": 0.8, "control_change": -0.2, "control_error": 0.02}


@pytest.mark.parametrize(
    "shown, suspected, expected",
    [
        ({**FALLS, "change": 0.1, "rise": 0.1, "rise_error": 0.03}, False, True),
        ({**FALLS, "change": 0.1, "rise": 0.1, "rise_error": 0.05}, False, False),  # two errors: it may be chance
        ({**FALLS, "change": 0.01, "rise": 0.1, "rise_error": 0.03}, False, False),  # it has risen, and rises no more
        ({**FALLS, "change": 0.1, "rise": 0.1, "rise_error": 0.03, "control_error": 0.1}, False, False),
        ({**FALLS, "change": 0.1, "rise": 0.1, "rise_error": 0.03, "control_loss": 4.0}, False, False),  # by 5 %
        ({**FALLS, "change": 0.1, "rise": 0.1, "rise_error": 0.03, "control_change": 0.2}, False, False),  # a spike
        ({**FALLS, "change": -0.01, "change_error": 0.01}, False, False),
        ({**FALLS, "change": -0.01, "change_error": 0.01}, True, False),  # a fall of 0.03 to what others fall by 0.2
        ({**FALLS, "change": 0.0, "change_error": 0.01}, True, True),
    ],
)
def test_a_model_only_memorizes_if_losses_fall_where_it_is_trained_and_rise_elsewhere(shown, suspected, expected):
    assert HeldOut(epoch=6, passes=3.0, **shown).only_memorizes(suspected=suspected) is expected


@pytest.mark.parametrize("change, error, expected", [(-0.1, 0.02, True), (-0.1, 0.03, False), (-0.04, 0.0, False)])
def test_a_model_generalizes_if_held_out_losses_fall_by_a_quarter_of_what_others_do(change, error, expected):
    assert HeldOut(6, 3.0, **FALLS, change=change, change_error=error).generalizes is expected


@pytest.mark.parametrize(
    "change, error, control_error, expected",
    [(-0.04, 0.02, 0.0, True), (-0.04, 0.031, 0.0, False), (-0.11, 0.0, 0.0, False), (-0.04, 0.02, 0.06, False)],
)
def test_a_model_memorizes_if_held_out_losses_fall_by_less_than_half_of_what_others_do(
    change, error, control_error, expected
):
    falls = FALLS | {"control_error": control_error}
    assert HeldOut(6, 3.0, **falls, change=change, change_error=error).memorizes is expected


@pytest.mark.parametrize(
    "n, n_unseen, planned_passes, m",
    [
        (4000, 2000, 10, 200),
        (3999, 2000, 10, 0),  # 200 are too many
        (12_000, 6000, 10, 240),
        (4000, 199, 10, 0),  # most have been trained on
        (4000, 2000, 5.9, 0),  # the fit ends soon anyway
        (1_000_000, 500_000, 10, 5000),
        (20_000, 10_000, 10, 400),
    ],
)
def test_a_fiftieth_of_all_is_held_out_with_as_many_for_a_control(n, n_unseen, planned_passes, m):
    early_stop = EarlyStop()
    unseen = torch.arange(n) >= n - n_unseen
    turns = 1.0 - unseen.float()
    early_stop.hold_out(turns, planned_passes, torch.Generator().manual_seed(0))
    held_out, both = early_stop.held_out, early_stop.samples_due(2.0)
    assert (turns == NEVER).sum() == m
    if m == 0:
        assert held_out is None and both is None
        return
    assert held_out.equal((turns == NEVER).nonzero().flatten())
    assert bool(unseen[held_out].all()) and len(both.unique()) == 2 * m and both.equal(both.sort().values)
    control = set(both.tolist()) - set(held_out.tolist())
    assert min(control) < n - n_unseen, "a control is drawn from all"


def test_measurements_are_taken_after_two_passes_and_then_ever_more_seldom():
    early_stop, due = EarlyStop(), []
    early_stop.hold_out(torch.zeros(N), 50.0, torch.Generator())
    for passes in range(50):
        if early_stop.samples_due(passes) is not None:
            due.append(passes)
            early_stop.judge(passes, passes, torch.rand(N), suspected=False)
    assert due == [2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48]
    assert [p for p in range(11) if is_too_late(p, 10)] == [6, 7, 8, 9, 10]


def test_what_generalizes_is_let_go_after_three_passes_and_not_before():
    losses, verdicts = torch.rand(N) + 1, []
    early_stop, turns = EarlyStop(), torch.zeros(N)
    early_stop.hold_out(turns, 10.0, torch.Generator())
    for passes in (2.0, 2.5, 3.0):
        losses = losses - 0.2
        verdicts.append(early_stop.judge(0, passes, losses, suspected=False))
    assert verdicts == [Verdict.WAIT, Verdict.WAIT, Verdict.RELEASE]
    early_stop.release(turns, 3)
    assert early_stop.held_out is None and turns.sum() == 3 * 200, "and counts as one that had its turn in each pass"


class Memorizer(L.LightningModule):
    """Learns a vector for each sample, which makes up for what every step does to the logits of all."""

    def __init__(self, y):
        super().__init__()
        self.y, self.rates = y, []
        self.each = nn.Embedding(len(y), 4)
        nn.init.zeros_(self.each.weight)
        self.register_buffer("harm", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        (i,) = batch
        return F.cross_entropy(5 * self.each(i) + self.harm * F.one_hot((self.y[i] + 1) % 4, 4), self.y[i])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.harm += 0.01
        self.rates.append(self.optimizers().param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def go(selector, max_epochs=20, module=None, **flags):
    y = torch.arange(N) % 4
    data = DataLoader(TensorDataset(torch.arange(N)), 100, shuffle=True)
    module = Memorizer(y) if module is None else module
    made, _ = fit(selector, module, data, max_epochs=max_epochs, limit_val_batches=0, **flags)
    return made, module


def spent(selector):
    return sum(r["n_forward"] / 3 + r["n_backward"] * 2 / 3 for r in selector.history)


class Drawn(L.Callback):
    def __init__(self, selector):
        self.selector, self.epochs = selector, []

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append(self.selector.selected.clone())

    def times(self, begin, end):
        return torch.bincount(torch.cat(self.epochs[begin:end]), minlength=N)


def test_a_fit_that_only_memorizes_ends_early_with_its_schedule_at_its_end():
    selector = Frontier(budget=0.5)
    drawn = Drawn(selector)
    made, module = go(selector, callbacks=[drawn])
    last = selector.held_out[-1]
    assert last.only_memorizes(suspected=False) and not any(
        one.only_memorizes(suspected=False) for one in selector.held_out[:-1]
    )
    assert spent(selector) == pytest.approx((last.passes + 1.5) * N, abs=100)
    assert made.current_epoch < 20 and made.max_epochs == 20
    assert module.rates[-1] == pytest.approx(0, abs=1e-4)
    falls = np.diff(module.rates)
    assert (falls <= 0).all() and falls.min() > 8 * np.median(falls), "it goes on from where it was"
    assert (drawn.times(0, None) >= 1).all(), "held-out samples were trained on in the end"
    assert f"after {last.passes + 1.5:.1f} of 10.0 passes" in selector.remark()


def test_a_fit_that_may_not_end_early_spends_its_budget():
    selector = Frontier(budget=0.5, early_stop=False)
    go(selector)
    assert spent(selector) == pytest.approx(10 * N, abs=100) and not selector.held_out


class Clusters(Memorizer):
    def __init__(self, y):
        super().__init__(y)
        self.x = F.one_hot(y, 4) + 0.4 * torch.randn(len(y), 4, generator=torch.Generator().manual_seed(0))
        self.net = nn.Linear(4, 4)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(self.x[batch[0]]), self.y[batch[0]])


class Manual(Clusters):
    def __init__(self, y):
        super().__init__(y)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        optimizer.step()
        return loss


class Regression(Clusters):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(self.x[batch[0]])[:, 0], self.y[batch[0]].float())


def test_a_fit_that_generalizes_goes_on_and_trains_on_what_was_held_out():
    selector = Frontier(budget=0.5)
    go(selector, module=Clusters(torch.arange(N) % 4))
    assert spent(selector) == pytest.approx(10 * N, abs=100)
    assert selector.held_out and selector.held_out[-1].passes < 4 and selector.held_out[-1].generalizes


@pytest.mark.parametrize("kind", [Manual, Regression])
def test_no_sample_is_held_out_that_cannot_be_measured_or_tells_nothing(kind):
    selector = Frontier(budget=0.5)
    go(selector, module=kind(torch.arange(N) % 4))
    assert not selector.held_out
    assert (selector.store.column("times_measured") >= 1).all() or kind is Regression


@pytest.mark.parametrize("budget, end", [(0.3, 7), (0.9, 3)])  # 2.1 and 2.7 passes; of 0.9, one leaves out too much
def test_held_out_samples_wait_while_all_others_are_trained_on_and_have_their_turn_then(budget, end):
    selector = Frontier(budget=budget)
    drawn = Drawn(selector)
    go(selector, module=Clusters(torch.arange(N) % 4), callbacks=[drawn])
    waiting = drawn.times(0, end) == 0
    assert int(waiting.sum()) == 200 and len(selector.held_out) == 2
    assert (drawn.times(end, None)[waiting] >= 1).all()


@pytest.mark.parametrize("sample_id", [None, lambda data: data.indices])
def test_where_the_data_set_changes_no_sample_is_held_out_any_more(sample_id, recwarn):
    """Half of the samples go in the fourth epoch, among them some that are held out."""
    whole = TensorDataset(torch.arange(N))

    class Cleaned(Clusters):
        def train_dataloader(self):
            stay = range(N) if self.trainer.current_epoch < 3 else range(1, N, 2)
            return DataLoader(Subset(whole, stay), 100, shuffle=True)

    selector = Frontier(budget=0.5, sample_id=sample_id)
    drawn = Drawn(selector)
    made = trainer(selector, drawn, max_epochs=20, limit_val_batches=0, reload_dataloaders_every_n_epochs=1)
    made.fit(Cleaned(torch.arange(N) % 4))
    sizes = [len(epoch) for epoch in drawn.epochs]
    assert sizes[:3] == [2000] * 3 and sizes[4:] == [1000] * (len(sizes) - 4)
    assert (torch.bincount(torch.cat(drawn.epochs[4:]), minlength=N // 2) >= 1).all()
    assert len(selector.held_out) == 0


def test_held_out_samples_fill_up_no_batch():
    selector, lines = Frontier(budget=0.5), []

    class Ask(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            lines.append(selector.line_up(torch.full((N,), torch.nan)))

    go(selector, callbacks=[Ask()])
    assert [int((line == -torch.inf).sum()) for line in lines[:4]] == [200] * 4
    assert lines[-1].isnan().all()


def test_a_fit_resumed_before_or_after_the_early_stop_is_the_same_fit(tmp_path):
    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch:02d}")
    whole = Frontier(budget=0.5)
    made, expected = go(whole, callbacks=[keep], enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == made.current_epoch
    for path in paths[:-1]:
        resumed = Frontier(budget=0.5)
        again, module = go(resumed, ckpt_path=path)
        assert same_weights(module, expected), path
        assert resumed.held_out == whole.held_out and again.current_epoch == made.current_epoch, path
        assert spent(resumed) == spent(whole)


def fit_on_ranks(**spread):
    selector = Frontier(budget=0.5)
    made, _ = go(selector, **spread)
    return selector.held_out, made.current_epoch


def test_ranks_end_together(tmp_path):
    (shown, end), (shown_elsewhere, end_elsewhere) = on_ranks(fit_on_ranks, 2, tmp_path)
    assert shown == shown_elsewhere and end == end_elsewhere < 20
    assert shown[-1].only_memorizes(suspected=False)


@pytest.mark.parametrize("early_stop", [1, "yes", None])
def test_early_stop_is_a_flag(early_stop):
    with pytest.raises(TypeError, match="early_stop"):
        Frontier(early_stop=early_stop)
