"""Frontier: the walk it falls back on, the evidence it asks for, and what it leaves out."""

import dataclasses

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fit, same_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import Frontier
from lightning_dataselect.methods.frontier import (
    Decision,
    Evidence,
    compare_held_back,
    decide,
    find_contradicted,
    in_learnt_classes,
    let_go,
    second_mode,
    weigh_evidence,
)
from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.passes import begin_pass

UNTRAINED = np.log(4)
losses = st.lists(st.floats(0, 5, width=32) | st.just(float("nan")), min_size=12, max_size=12)


@settings(deadline=None, max_examples=60)
@given(
    mean=losses,
    previous=losses,
    last=losses,
    u=st.lists(st.sampled_from((0.0, 0.5, 0.89, 0.91)), min_size=12, max_size=12),
)
def test_evidence_and_what_is_let_go_are_those_of_the_formulas(mean, previous, last, u):
    m, p, x = (np.array(values, dtype=np.float64) for values in (mean, previous, last))
    known = ~(np.isnan(p) | np.isnan(x))
    above = known & (p > UNTRAINED)
    found = weigh_evidence(*(torch.tensor(values) for values in (mean, previous, last)), float(UNTRAINED))
    n = max(known.sum(), 1)
    assert found.learnt_share == pytest.approx((known & (m < 0.25 * UNTRAINED)).sum() / n)
    assert found.low_share == pytest.approx((known & (x < UNTRAINED / 2)).sum() / n)
    assert found.above_share == pytest.approx(above.sum() / n)
    assert found.persistence == pytest.approx((above & (x > UNTRAINED)).sum() / max(above.sum(), 1))
    both = Decision(2, True, True, found)
    expected = ((m < 0.25 * UNTRAINED) & (np.array(u) < 0.9)) | ((p > UNTRAINED) & (x > UNTRAINED))
    mean_, previous_, last_, u_ = (torch.tensor(values) for values in (mean, previous, last, u))
    contradicted = find_contradicted(both, previous_, last_, torch.zeros(12, dtype=torch.bool))
    labels = torch.zeros(12)
    assert (
        let_go(both, mean_, contradicted, u_, torch.full((2,), 0.9), torch.ones(2), labels).tolist()
        == expected.tolist()
    )


@settings(deadline=None, max_examples=60)
@given(last=losses, labels=st.lists(st.integers(-1, 2), min_size=12, max_size=12))
def test_samples_of_classes_that_are_not_learnt_are_not_judged(last, labels):
    x, y = np.array(last), np.array(labels)
    share = {c: np.mean(x[(y == c) & ~np.isnan(x)] > UNTRAINED) for c in set(labels) if (~np.isnan(x[y == c])).any()}
    judged = in_learnt_classes(torch.tensor(last), torch.tensor(labels), float(UNTRAINED))
    assert judged.tolist() == [share.get(c, 0.0) <= 0.5 for c in labels]
    everything = torch.full((12,), 9.0)
    found = weigh_evidence(everything, everything, everything, float(UNTRAINED), judged)
    assert found.above_share == pytest.approx(judged.float().mean().item())
    both = Decision(2, True, True, found)
    before = torch.arange(12) < 3
    assert find_contradicted(both, everything, everything, before, judged).equal(judged)
    few = dataclasses.replace(both, level=1.5)
    losses_ = torch.tensor([1.4, 1.6] * 6) * UNTRAINED
    assert find_contradicted(few, losses_, losses_, before).tolist() == [False, True] * 6
    memorized = dataclasses.replace(both, memorizes=True)
    assert find_contradicted(memorized, everything, everything, before, judged).equal(judged | before)


def second_mode_by_formula(last):
    counts = np.histogram(np.minimum(np.float64(last) / UNTRAINED, 4), bins=32, range=(0, 4))[0].astype(float)
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    found = 1.0
    for u in range(8, 24):
        valley = max(smooth[4 : u + 1].min(), 0.25)
        clear = smooth[u] - valley >= 3 * np.sqrt(3 / 8 * (smooth[u] + valley))
        if clear and smooth[u] * 8 >= 0.03 * len(last):
            found = max(found, smooth[u] / valley)
    return found


@pytest.mark.parametrize("n", [60, 1000, 20000])
@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.1, 0.4])
def test_second_mode_is_that_of_the_formula(n, wrong):
    rng = np.random.default_rng(n)
    hard = rng.exponential(0.4 * UNTRAINED, size=n)
    last = np.where(rng.random(n) < wrong, rng.normal(1.6 * UNTRAINED, 0.3, size=n), hard)
    found = second_mode(torch.tensor(last), float(UNTRAINED))
    assert found == pytest.approx(second_mode_by_formula(last))
    if wrong == 0:
        assert found == 1
    if wrong >= 0.1 and n == 20000:
        assert found > 1.1


def test_held_back_ratio_is_that_of_least_squares_on_the_loss_before():
    rng = np.random.default_rng(0)
    group, visits = rng.integers(0, 3, 90), rng.integers(-1, 3, 90)
    before = rng.exponential(size=90)
    last = 0.7 * before + 0.2 * (group == 1) + 0.1 * rng.exponential(size=90)
    last[:4], before[4:8] = np.nan, np.nan
    known = ~(np.isnan(last) | np.isnan(before)) & (group > 0) & (visits >= group)
    held, control = (group == 1)[known], (group == 2)[known]
    x, y = before[known], last[known]
    h, c, slope = np.linalg.lstsq(np.stack([held, control, x - x.mean()], 1).astype(float), y, rcond=None)[0]
    rest = y - slope * (x - x.mean())
    ratio = h / c
    error = np.sqrt(rest[held].var(ddof=1) / held.sum() + ratio**2 * rest[control].var(ddof=1) / control.sum()) / c
    assert compare_held_back(*map(torch.tensor, (last, before, group, visits))) == pytest.approx((ratio, error))


def test_held_back_ratio_needs_two_samples_of_each_group_and_a_loss_above_zero():
    group = torch.tensor([1.0, 1, 2, 2])
    losses = torch.tensor([1.0, 2, 3, 4])
    assert compare_held_back(losses, losses, group, group) != (None, None)
    assert compare_held_back(losses[1:], losses[1:], group[1:], group[1:]) == (None, None)
    assert compare_held_back(losses - 9, losses, group, group) == (None, None)


def test_loss_before_the_trial_makes_it_more_certain():
    rng = np.random.default_rng(1)
    group = torch.tensor(rng.integers(1, 3, 2000))
    before = torch.tensor(rng.exponential(size=2000))
    last = before + 0.1 * torch.tensor(rng.exponential(size=2000))
    _, error = compare_held_back(last, before, group, group)
    _, without = compare_held_back(last, torch.ones(2000), group, group)
    assert error is not None and without is not None and error < without / 5


def evidence(learnt=0.0, low=0.5, above=0.1, persistence=0.0, rise=1.0, ratio=None, error=None):
    return Evidence(2.3, learnt, low, above, persistence, rise, ratio, error)


@pytest.mark.parametrize(
    ("passes", "shown", "decided"),
    [
        (2, evidence(learnt=0.2), (True, False)),
        (2, evidence(learnt=0.19), (False, False)),
        (3, evidence(learnt=0.9), (False, False)),  # by then a model may have memorized
        (3, evidence(learnt=0.2, ratio=1.14, error=0.05), (True, False)),
        (5, evidence(learnt=0.2, ratio=1.16, error=0.05), (False, False)),  # not clear
        (5, evidence(learnt=0.2, ratio=1.0, error=0.2), (False, False)),  # too few to tell
        (5, evidence(learnt=0.19, ratio=1.0, error=0.05), (False, False)),
        (2, evidence(learnt=0.2, ratio=1.22, error=0.05), (True, False)),
        (2, evidence(learnt=0.2, ratio=1.23, error=0.05), (False, False)),  # memorizes
        (2, evidence(persistence=0.5, rise=1.1), (False, True)),
        (4, evidence(persistence=0.5, rise=1.1), (False, True)),
        (5, evidence(persistence=1.0, rise=9.0), (False, False)),  # by then hard samples stay above L, too
        (2, evidence(persistence=0.49, rise=1.1), (False, False)),  # they come down
        (2, evidence(persistence=0.6), (False, True)),  # most of them stay where they are
        (3, evidence(persistence=0.6), (False, False)),  # a second mode may show yet
        (4, evidence(persistence=0.6), (False, True)),
        (3, evidence(persistence=0.6, ratio=1.2, error=0.07), (False, True)),  # the model probably memorizes
        (2, evidence(persistence=0.59, rise=1.09), (False, False)),  # they are only hard
        (2, evidence(persistence=0.9, low=0.49), (False, False)),  # too little is learnt to tell
        (2, evidence(persistence=1.0, rise=1.5, above=0.02), (False, False)),
        (2, evidence(persistence=1.0, rise=1.5, low=0.2), (False, False)),  # nothing is learnt that contradicts
    ],
)
def test_decisions_open_on_evidence_alone(passes, shown, decided):
    made = decide(passes, shown, before=None)
    assert (made.learnt, made.contradicted) == decided


def after(passes, shown, *before, planned_passes=10):
    """Decide on a pass, after decisions on the passes before by other evidence."""
    decision = None
    for n, one in enumerate((*before, shown), start=passes - len(before)):
        decision = decide(n, one, before=decision, planned_passes=planned_passes)
    return decision


STAYS = {"learnt": 0.5, "low": 0.6, "above": 0.15, "persistence": 0.8}


@pytest.mark.parametrize(
    ("memory", "contradicted"),
    [((1.24, 0.1), True), ((1.22, 0.1), False)],  # 2 (r - 1) less its standard error is above and below 1/4
)
def test_what_stays_above_is_contradicted_while_a_model_probably_memorizes(memory, contradicted):
    checked = evidence(**STAYS, ratio=memory[0], error=memory[1])
    assert after(4, evidence(**STAYS)).contradicted
    made = after(5, checked, evidence(**STAYS))
    assert (made.contradicted, made.learnt, made.memorizes) == (contradicted, False, False)


def test_where_classes_overlap_what_is_learnt_stays_in_and_the_rest_comes_back():
    early = after(4, evidence(**STAYS), evidence(**STAYS), evidence(**STAYS))
    assert early.contradicted and not early.learnt
    late = after(5, evidence(**STAYS), evidence(**STAYS), evidence(**STAYS), evidence(**STAYS))
    assert not late.contradicted and not late.learnt
    few = {**STAYS, "above": 0.09}
    assert after(5, evidence(**few), evidence(**few), evidence(**few), evidence(**few)).learnt
    gathered = {**STAYS, "rise": 1.1}
    generalizes = evidence(**STAYS, ratio=1.0, error=0.05)
    flipped = after(5, generalizes, evidence(**STAYS), evidence(**gathered), evidence(**STAYS))
    assert flipped.contradicted and flipped.learnt
    assert not after(5, generalizes, evidence(**STAYS), evidence(**STAYS), evidence(**STAYS)).learnt
    again = decide(7, evidence(**STAYS, ratio=1.5, error=0.05), before=late)
    assert again.contradicted and again.memorizes


@pytest.mark.parametrize(("persistence", "learnt"), [(0.49, True), (0.5, False)])
def test_while_many_labels_may_be_wrong_learnt_samples_stay_in(persistence, learnt):
    assert decide(2, evidence(learnt=0.3, above=0.15, persistence=persistence), before=None).learnt == learnt


def test_labels_that_are_not_suspected_may_be_wrong_though_the_model_probably_memorizes():
    few = evidence(learnt=0.5, above=0.1, persistence=0.3)
    checked = {"learnt": 0.5, "ratio": 1.15, "error": 0.02}
    assert after(3, evidence(above=0.15, persistence=0.4, **checked), few).learnt
    assert not after(3, evidence(above=0.15, persistence=0.55, **checked), few).learnt


@pytest.mark.parametrize(
    ("planned_passes", "rise", "contradicted"), [(6, 1.0, True), (5.9, 1.0, False), (3, 1.1, True)]
)
def test_what_cannot_be_checked_before_the_budget_ends_stays_in(planned_passes, rise, contradicted):
    assert after(2, evidence(**STAYS, rise=rise), planned_passes=planned_passes).contradicted == contradicted


def test_a_decision_stays():
    opened = decide(2, evidence(learnt=0.5, persistence=0.9, rise=1.5), before=None)
    later = decide(7, evidence(), before=opened)
    assert later.learnt and later.contradicted


@pytest.mark.parametrize(("above", "level"), [(0.1, 1.0), (0.09, 1.5)])
def test_where_few_are_above_the_surest_are_taken_from_then_on(above, level):
    opened = decide(2, evidence(persistence=0.9, above=above), before=None)
    assert (opened.contradicted, opened.level) == (True, level)
    assert decide(4, evidence(persistence=0.9, above=0.3), before=opened).level == level
    assert decide(7, evidence(above=0.01), before=opened).level == level


def test_once_a_model_memorizes_learnt_samples_stay_in():
    opened = decide(2, evidence(learnt=0.5, persistence=0.9, rise=1.5), before=None)
    found = decide(5, evidence(learnt=0.5, ratio=1.33, error=0.1), before=opened)
    assert (found.learnt, found.contradicted, found.memorizes) == (False, True, True)
    later = decide(7, evidence(learnt=0.9, ratio=1.0, error=0.05), before=found)
    assert not later.learnt


def held_out(change, passes=3.0):
    return HeldOut(6, passes, 0.6, 0.3, change=change, change_error=0.01, control_change=-0.2, control_error=0.01)


@pytest.mark.parametrize(("change", "learnt"), [(-0.15, True), (-0.07, False)])
def test_samples_that_are_held_out_tell_whether_learnt_ones_stay_in(change, learnt):
    first = decide(2, evidence(learnt=0.5), before=None, holds_out=True)
    assert not first.learnt, "what is held out tells soon"
    then = decide(4, evidence(learnt=0.5), before=first, held_out=held_out(change))
    assert (then.learnt, then.memorizes) == (learnt, not learnt)
    later = decide(5, evidence(learnt=0.5, ratio=1.0, error=0.05), before=then, held_out=held_out(change))
    assert (later.learnt, later.memorizes) == (learnt, not learnt), "a model that memorizes is not found to generalize"


def test_a_measurement_of_held_out_samples_counts_for_the_pass_that_follows_it():
    measured = held_out(-0.15)
    few = decide(4, evidence(learnt=0.19), before=None, held_out=measured)
    assert not decide(5, evidence(learnt=0.5), before=few, held_out=measured).learnt
    assert decide(5, evidence(learnt=0.5), before=few, held_out=held_out(-0.15, passes=4.0)).learnt


def test_what_passes_memorize_adds_up():
    ratios, errors = np.array([1.02, 0.99, 1.05, 1.04, 1.06, 1.05]), np.array([0.05, 0.04, 0.03, 0.02, 0.02, 0.02])
    decision = None
    for n, (ratio, error) in enumerate(zip(ratios, errors, strict=True), start=1):
        decision = decide(2 * n + 1, evidence(learnt=0.9, ratio=ratio, error=error), before=decision)
        memory, spread = 2 * (ratios[:n] - 1).sum(), 2 * np.sqrt((errors[:n] ** 2).sum())
        assert (decision.memory, decision.memory_error) == pytest.approx((memory, spread))
        between = decide(2 * n + 2, evidence(learnt=0.9), before=decision)
        assert (between.memory, between.memory_error) == (decision.memory, decision.memory_error)
        assert decision.memorizes == (memory - 2 * spread > 0.25) and decision.learnt != decision.memorizes
    assert not decision.memorizes
    further = decide(15, evidence(learnt=0.9, ratio=1.08, error=0.01), before=decision)
    assert further.memorizes and not further.learnt


class Drawn(L.Callback):
    def __init__(self, selector):
        self.selector, self.epochs = selector, []

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append(self.selector.selected.tolist())


class Classifier(L.LightningModule):
    """Tells four clusters apart; a learning rate of 0 leaves it untrained."""

    def __init__(self, lr=0.05):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net, self.lr = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), lr

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def clusters(n=400, flipped=0.0, spread=0.35):
    g = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 4
    x = spread * torch.randn(n, 8, generator=g)
    x[torch.arange(n), y] += 2
    wrong = torch.rand(n, generator=g) < flipped
    given = torch.where(wrong, (y + torch.randint(1, 4, (n,), generator=g)) % 4, y)
    return DataLoader(TensorDataset(x, given), 20, shuffle=True), wrong


def train(selector, module, data, max_epochs, **flags):
    drawn = Drawn(selector)
    fit(selector, module, data, callbacks=[drawn], max_epochs=max_epochs, limit_val_batches=0, **flags)
    return [torch.tensor(epoch) for epoch in drawn.epochs]


class Regressor(Classifier):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.net(batch[0])[:, 0], batch[1].float())


@pytest.mark.parametrize("budget", [0.25, 0.3, 0.5, 0.85])
def test_where_nothing_can_be_told_every_sample_has_its_turn_before_any_comes_again(budget):
    class Constant(Classifier):
        def training_step(self, batch, batch_idx):
            return F.mse_loss(0 * self.net(batch[0])[:, 0], batch[1] + 1.0)  # too few losses are low

    data, _ = clusters()
    epochs = train(Frontier(budget=budget, whole_batches=False), Constant(lr=0.0), data, 8)
    assert [len(epoch) for epoch in epochs] == [round(budget * 400)] * 8
    times = torch.bincount(torch.cat(epochs), minlength=400)
    assert int(times.max() - times.min()) <= 1


def test_a_set_too_small_for_its_budget_is_refused_in_the_words_of_the_budget():
    data = TensorDataset(torch.zeros(1, 8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"budget=0.5 leaves 0 of 1 samples: .* Give at least 1\.$"):
        fit(Frontier(budget=0.5), train=DataLoader(data), max_epochs=2)


def test_samples_that_fill_up_a_batch_have_had_their_turn():
    data, _ = clusters(n=390)
    selector = Frontier(budget=0.5)
    epochs = train(selector, Regressor(lr=0.0), data, 8)
    assert {len(epoch) for epoch in epochs[:-1]} == {200}
    times = torch.bincount(torch.cat(epochs[:-1]), minlength=390)
    assert int(times.max() - times.min()) <= 1


def test_learnt_samples_are_left_out_of_nine_in_ten_passes_once_two_are_done():
    data, _ = clusters()
    selector = Frontier(budget=0.5)
    epochs = train(selector, Classifier(), data, 12)
    first, *later = selector.decisions
    assert (first.passes, first.epoch, first.learnt, first.contradicted) == (2, 3, True, False)
    assert first.evidence.untrained_loss == pytest.approx(UNTRAINED, rel=0.5)
    assert [len(epoch) for epoch in epochs] == [200] * 12
    assert first.n_left_out == pytest.approx(0.9 * 0.8 * 400 * first.evidence.learnt_share, rel=0.1)
    assert later and all(decision.learnt for decision in later)


class Memorizer(Classifier):
    """Has a weight for each sample, and no other."""

    def __init__(self, lr=0.3):
        super().__init__(lr)
        self.net = nn.Embedding(400, 4)
        nn.init.zeros_(self.net.weight)


def test_model_that_memorizes_is_told_by_the_samples_held_back():
    data = DataLoader(TensorDataset(torch.arange(400), torch.arange(400) % 4), 20, shuffle=True)
    selector = Frontier(budget=0.5)
    epochs = train(selector, Memorizer(), data, 14)
    told = next(decision for decision in selector.decisions if decision.evidence.held_back_ratio is not None)
    assert told.passes == 3 and told.memorizes and not told.learnt
    assert selector.decisions[-1].evidence.learnt_share > 0.2 and not selector.decisions[-1].learnt
    assert torch.bincount(torch.cat(epochs), minlength=400).float().std() > 0.3, "samples were held back"


def test_model_that_generalizes_may_leave_out_what_it_learns_late():
    data, _ = clusters(n=1200)
    selector = Frontier(budget=0.5)
    train(selector, Classifier(lr=0.0007), data, 28)
    early, later = selector.decisions[0], selector.decisions[-1]
    assert early.evidence.learnt_share < 0.2 and not early.learnt and later.learnt and not later.memorizes


def test_wrong_labels_are_left_out_and_right_ones_are_not():
    data, wrong = clusters(flipped=0.3)
    selector = Frontier(budget=0.6)
    epochs = train(selector, Classifier(lr=0.02), data, 12)
    assert selector.decisions[-1].contradicted
    times = torch.bincount(torch.cat(epochs[6:]), minlength=400).float()
    assert times[wrong].mean() < 0.4 * times[~wrong].mean()
    found = selector.store["contradicted"][:400] > 0
    assert found[wrong].float().mean() > 0.8 and not found[~wrong].float().mean() > 0.05


@pytest.mark.parametrize("memorizes", [False, True])
def test_what_is_found_stays_out_where_its_loss_falls_since_the_model_memorizes(memorizes):
    low = torch.full((40,), 0.5)
    columns = {name: low.clone() for name in ("score", "previous", "latest", "untrained")}
    columns |= {name: torch.zeros(40) for name in ("group", "visits", "contradicted", "label", "predicted")}
    columns["untrained"][:] = 1.4
    columns["plain"] = columns["untrained"]
    columns["contradicted"][:10] = 1
    columns["previous"][5:12] = columns["latest"][5:12] = 3.0
    before = Decision(4, False, True, evidence(), memorizes=memorizes, suspected=True, gathered=True)
    begun = begin_pass(
        columns.get,
        5,
        before,
        planned_passes=9,
        trial_began=4,
        draw=lambda purpose: torch.zeros(40).__getitem__,
    )
    assert begun.out.nonzero().squeeze(1).tolist() == list(range(0 if memorizes else 5, 12))
    assert begun.contradicted.equal(begun.out) and begun.decision.n_contradicted == int(begun.out.sum())


def test_a_class_that_is_not_learnt_is_not_taken_for_wrong_labels():
    data, _ = clusters(n=1200)
    x, y = data.dataset.tensors
    late = torch.arange(1200) % 40 == 3
    y[(y == 3) & ~late] = 2
    x[late] = x[torch.arange(1200) % 4 == 0][: int(late.sum())]  # a class of a fortieth, which looks like another
    selector = Frontier(budget=0.6)
    train(selector, Classifier(lr=0.02), data, 12)
    assert selector.losses[late].mean() > UNTRAINED
    assert not any(decision.contradicted for decision in selector.decisions)


def test_steps_without_classes_are_read_for_three_batches_and_no_more(tmp_path, monkeypatch):
    from lightning.pytorch.callbacks import ModelCheckpoint

    said = []
    monkeypatch.setattr("lightning_dataselect.methods.frontier.callback.rank_zero_info", said.append)

    def go(ckpt_path=None, **flags):
        selector, module = Frontier(budget=0.5), Regressor()
        data, _ = clusters()
        made, _ = fit(selector, module, data, max_epochs=8, ckpt_path=ckpt_path, limit_val_batches=0, **flags)
        assert "dataselect/train_loss" not in made.callback_metrics, "three batches are no epoch"
        return selector, module

    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    whole, expected = go(callbacks=[keep], enable_checkpointing=True)
    assert whole.losses.isfinite().sum() == 3 * 20 and whole.decisions == []
    assert len(said) == 1 and "the steps show no class logits" in said.pop()
    assert all(record["n_selected"] == 200 for record in whole.history)
    resumed, module = go(sorted(tmp_path.glob("*.ckpt"))[1])
    assert resumed.losses.isfinite().sum() == 3 * 20 and not said
    assert same_weights(module, expected)


def fit_a_regression(**spread):
    selector = Frontier(budget=0.5)
    fit(selector, Regressor(), clusters()[0], max_epochs=4, limit_val_batches=0, **spread)
    return selector.store.column("times_measured"), [record["n_trained"] for record in selector.history]


def test_ranks_stop_reading_together_when_the_first_epoch_ends(tmp_path):
    for times_measured, n_trained in on_ranks(fit_a_regression, 2, tmp_path):
        assert int(times_measured.sum()) == n_trained[0] and sum(n_trained) == 4 * n_trained[0]


def test_a_fit_that_is_joined_midway_is_not_read_after_its_first_pass(tmp_path):
    data, _ = clusters()
    made, _ = fit(None, Classifier(), data, max_epochs=2, limit_val_batches=0)
    made.save_checkpoint(tmp_path / "before.ckpt")
    selector = Frontier(budget=0.5)
    fit(selector, Classifier(), data, max_epochs=10, ckpt_path=tmp_path / "before.ckpt", limit_val_batches=0)
    assert selector.first_epoch == 2 and selector.decisions == []
    assert int(selector.store.column("times_measured").sum()) < sum(record["n_trained"] for record in selector.history)


def test_nothing_is_read_or_left_out_once_the_model_memorizes_and_no_label_is_suspected():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(240, 8, generator=g), torch.randint(4, (240,), generator=g)
    data = DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True)
    selector, n_read = Frontier(budget=0.5), []

    class Counting(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            n_read.append(int(selector.store.column("times_measured").sum()))

    fit(selector, Classifier(lr=0.01), data, max_epochs=60, callbacks=[Counting()], limit_val_batches=0)
    final = [decision for decision in selector.decisions if decision.is_final]
    assert len(final) == 1 and final[0] is selector.decisions[-1] and final[0].memorizes
    assert n_read[final[0].epoch - 1] == n_read[-1] < len(n_read) * 120


@pytest.mark.parametrize(
    ("passes", "memorizes", "suspected", "final"),
    [(4, True, False, True), (3, True, False, False), (9, True, True, False), (9, False, False, False)],
)
def test_a_decision_is_final_when_no_later_one_can_leave_anything_out(passes, memorizes, suspected, final):
    made = Decision(passes, False, False, evidence(), memorizes=memorizes, suspected=suspected)
    assert made.is_final == final
    shown = evidence(learnt=0.9, persistence=0.5, rise=9.0, ratio=1.0, error=0.05)
    later = decide(passes + 1, shown, before=made)
    assert (later.learnt or later.contradicted) == (not final)


@pytest.mark.parametrize(
    ("decided", "said"),
    [
        ([], "; all samples in turn, as losses gave no reason to leave any out"),
        (
            [(2, False, False), (3, True, False), (4, True, False)],
            "; all samples in turn, but for learnt ones after 3 epochs",
        ),
        (
            [(2, False, True), (3, True, True)],
            "; all samples in turn, but for learnt ones after 3 epochs and contradicted ones after 2 epochs",
        ),
    ],
)
def test_the_line_that_ends_a_fit_says_what_was_left_out_and_since_when(decided, said):
    selector = Frontier()
    for epoch, learnt, contradicted in decided:
        selector.decisions.append(Decision(epoch, learnt, contradicted, Evidence(2.3, 0.3, 0.5, 0.1, 0.6), epoch=epoch))
    assert selector.remark() == said


@pytest.mark.parametrize(("memorizes", "suspected"), [(True, True), (True, False), (False, True)])
def test_the_line_that_ends_a_fit_advises_a_smaller_budget_where_wrong_labels_are_learnt_by_heart(memorizes, suspected):
    selector = Frontier()
    shown = Evidence(2.3, 0.3, 0.5, 0.1, 0.6)
    selector.decisions.append(Decision(5, False, True, shown, memorizes=memorizes, suspected=suspected, epoch=4))
    assert ("a smaller budget may well end higher" in selector.remark()) == (memorizes and suspected)


def test_a_fit_resumed_within_a_pass_ends_in_the_same_weights(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def go(ckpt_path=None, **flags):
        selector, module = Frontier(budget=0.3), Classifier(lr=0.02)
        data, _ = clusters(flipped=0.3)
        fit(selector, module, data, max_epochs=12, ckpt_path=ckpt_path, limit_val_batches=0, **flags)
        return selector, module

    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    whole, expected = go(callbacks=[keep], enable_checkpointing=True)
    assert whole.decisions
    for path in sorted(tmp_path.glob("*.ckpt"))[1::3]:
        resumed, module = go(path)
        assert same_weights(module, expected) and resumed.decisions == whole.decisions, path


@pytest.mark.parametrize("budget", [0, 1.5, -0.1, float("nan")])
def test_a_budget_of_nothing_or_more_than_all_is_refused(budget):
    with pytest.raises(ValueError, match=f"budget={budget}"):
        Frontier(budget=budget)


@pytest.mark.parametrize("given", [{"prune_ratio": 0.3}, {"every_n_epochs": 2}, {"balance": "class"}])
def test_arguments_without_a_meaning_are_refused(given):
    with pytest.raises(
        TypeError, match=f"Frontier has no use for {next(iter(given))}=.*`budget` says how much it spends"
    ):
        Frontier(**given)
