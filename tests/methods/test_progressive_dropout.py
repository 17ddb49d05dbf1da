"""DBPD, SMRD and SRD against float64 NumPy written from the paper's rules, in fits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrix_settings import BATCH, EPOCHS, N, Tiny, fit
from newer_methods import Regressor, Watched, probabilities, watched_loader
from torch import nn

from lightning_dataselect import DBPD, SMRD, SRD, Observation
from lightning_dataselect.methods.classification import target_probability
from lightning_dataselect.methods.progressive_dropout import count_below, scheduled_count

CLOSE = 1e-5  # to the threshold, where float32 may say otherwise


@given(st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1, max_size=6), st.data())
def test_probability_of_the_own_class(rows, data):
    classes = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    z = np.asarray(rows, np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    expected = (p / p.sum(1, keepdims=True))[np.arange(len(rows)), classes]
    got = target_probability(torch.tensor(rows), torch.tensor(classes))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    soft = nn.functional.one_hot(torch.tensor(classes), 3) * 0.6 + 0.1
    torch.testing.assert_close(target_probability(torch.tensor(rows), soft), got)


def test_what_cannot_be_predicted_counts_as_not_learnt():
    assert count_below(torch.tensor([math.nan, 0.3, 0.29]), 0.3, fewest=0) == 2
    assert count_below(torch.tensor([0.9, 0.9]), 0.3, fewest=1) == 1


@given(st.integers(1, 10**6), st.floats(0.5, 1), st.integers(0, 60))
def test_schedule_is_the_power_rounded_up(n, decay, step):
    exact = decay**step * n
    count = scheduled_count(n, decay, step)
    assert count == max(math.ceil(exact), 1) or abs(exact - count) < 1e-5


def test_dbpd_trains_on_what_the_rule_says():
    module, selector = Watched(), DBPD(threshold=0.6)
    fit(selector, module, watched_loader())
    assert len(module.steps) == N // BATCH * (EPOCHS - 1)
    sizes = set()
    for step in module.steps:
        p = probabilities(step)
        below = {i for i, x in zip(step.scored, p, strict=True) if x < 0.6}
        near = {i for i, x in zip(step.scored, p, strict=True) if abs(x - 0.6) < CLOSE}
        if len(below) < 2:
            below = {step.scored[at] for at in np.argsort(p)[:2]}
        assert set(step.trained) - near == below - near
        sizes.add(len(step.trained))
    assert len(sizes) > 3
    assert module.whole == [BATCH] * (N // BATCH), "the last epoch is on everything"


def test_smrd_takes_as_many_and_others():
    module = Watched()
    fit(SMRD(threshold=0.6), module, watched_loader())
    others = 0
    for step in module.steps:
        p = probabilities(step)
        if np.abs(p - 0.6).min() > CLOSE:
            assert len(step.trained) == max((p < 0.6).sum(), 2)
        others += set(step.trained) != {step.scored[at] for at in np.argsort(p)[: len(step.trained)]}
    assert others > len(module.steps) / 2


def test_smrd_draws_every_sample_alike():
    selector = SMRD(threshold=0.5)
    selector.run_state.open(selector, 4, world_size=1, epoch=0)
    selector.store["score"][:4] = torch.tensor([0.9, 0.9, 0.0, 0.0])
    seen, counts = Observation(torch.arange(4), torch.zeros(4), None, None, 0), np.zeros(4)
    for seed in range(2000):
        chosen = selector.choose(seen, 2, torch.Generator().manual_seed(seed))
        assert len(chosen) == 2
        counts[chosen] += 1
    np.testing.assert_allclose(counts / 2000, 0.5, atol=0.05)


@pytest.mark.parametrize("method", [DBPD, SMRD])
def test_a_batch_that_is_learnt_is_trained_on_where_it_is_learnt_least(method):
    class Sure(Watched):
        def network(self):
            model = super().network()
            nn.init.zeros_(model[2].weight)
            nn.init.zeros_(model[2].bias)
            return model

    module = Sure()
    fit(method(threshold=1e-3, anneal=0.0), module, watched_loader(), max_epochs=1)
    # of 8 samples a thousandth is none, and there is no BatchNorm
    assert {len(step.trained) for step in module.steps} == {1}


def test_srd_shrinks_and_ends_in_a_revision():
    selector = SRD(decay=0.8, whole_batches=False)
    fit(selector, max_epochs=6)
    assert [r["n_selected"] for r in selector.history] == [math.ceil(0.8**t * N - 1e-9) for t in range(5)] + [N]
    assert [r["n_forward"] for r in selector.history] == [r["n_selected"] for r in selector.history]


def test_srd_falls_from_the_end_of_the_warm_up_on():
    selector = SRD(decay=0.5, warmup_epochs=2, anneal=0.0, whole_batches=False)
    fit(selector, max_epochs=4)
    assert [r["n_selected"] for r in selector.history] == [N, N, N, N // 2]


@pytest.mark.parametrize(
    "method, saves", [(DBPD, {"threshold": 0.35}), (SMRD, {"threshold": 0.35}), (SRD, {"decay": 0.7})]
)
@pytest.mark.parametrize("flags", [{"max_epochs": 6}, {"max_epochs": -1, "max_steps": 36}], ids=str)
def test_under_a_budget_the_revision_is_the_last_epoch_that_it_pays_for(method, saves, flags):
    selector = method(**saves, budget=0.7)
    fit(selector, **flags)
    *before, last = [r["n_trained"] for r in selector.history]
    costs = [(r["n_forward"] + 2 * r["n_backward"]) / 3 for r in selector.history]
    total = 0.7 * 6 * N
    assert sum(costs) == pytest.approx(total, abs=BATCH)
    for epoch, trained in enumerate(before):
        left = total - sum(costs[:epoch])
        assert left > N, "an epoch on everything would have been the last one"
        assert trained < N or epoch == 0
    assert selector.history[-1]["n_forward"] == last, "nothing is scored in the revision"
    assert total - sum(costs[:-1]) <= N + 1e-6
    assert selector.selected.numel() == N


@pytest.mark.parametrize("method", [DBPD, SMRD])
def test_what_an_epoch_will_cost_is_known_from_the_last_one(method):
    class Undecided(Tiny):
        """Gives every class the same probability, of a third."""

        def network(self):
            model = super().network()
            nn.init.zeros_(model[2].weight)
            nn.init.zeros_(model[2].bias)
            return model

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def on_train_epoch_start(self):
            announced.append(self.trainer.max_epochs)

    announced, selector = [], method(threshold=0.4, budget=0.5)
    fit(selector, Undecided(), max_epochs=12)
    # 6 epochs' worth, of which one takes 4 / 3: four leave 2 / 3
    assert announced[1:] == [5] * 4
    assert [(r["n_forward"], r["n_trained"]) for r in selector.history] == [(2 * N, N)] * 4 + [(N * 2 // 3, N * 2 // 3)]
    selector = method(threshold=0.4, budget=0.2)
    fit(selector, Undecided(), max_epochs=12)
    # 2.4: after one at 4 / 3, another one would take it all
    assert [(r["n_forward"], r["n_trained"]) for r in selector.history] == [(2 * N, N), (N, N)]


@pytest.mark.parametrize("method", [DBPD, SMRD, SRD])
def test_revision_is_the_last_epoch_or_the_share_that_is_given(method):
    by_default, given_share, none = method(), method(anneal=0.25), method(anneal=0.0)
    for selector in (by_default, given_share, none):
        assert not selector.in_annealing(10**6), "an endless fit has no last epoch"
        selector.max_epochs = 200
    ends = [[e for e in range(200) if s.in_annealing(e)] for s in (by_default, given_share, none)]
    assert ends == [[199], list(range(150, 200)), []]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DBPD(threshold=0), "threshold=0 is outside \\(0, 1\\]: give the probability"),
        (lambda: SMRD(threshold=1.2), r"threshold=1.2 is outside \(0, 1\]"),
        (lambda: SRD(decay=0), "decay=0 is outside \\(0, 1\\]: give the share"),
        (lambda: SRD(decay=1.5), r"decay=1.5 is outside \(0, 1\]"),
    ],
)
def test_arguments_out_of_range(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_srd_has_no_ratio():
    with pytest.raises(TypeError, match="SRD has no use for prune_ratio=0.3: the number of samples falls by `decay`"):
        SRD(prune_ratio=0.3)


@pytest.mark.parametrize("method", [DBPD, SMRD])
def test_regression_is_an_error_on_the_first_batch(method):
    with pytest.raises(ValueError, match=f"{method.__name__} needs the logits and targets"):
        fit(method(), Regressor())


def test_srd_needs_no_losses():
    class Blind(Tiny):
        def training_step(self, batch, batch_idx):
            return self.model(batch[0]).logsumexp((0, 1))

    selector = SRD(decay=0.5, whole_batches=False)
    fit(selector, Blind())
    assert [r["n_selected"] for r in selector.history] == [48, 24, 12, 48]
