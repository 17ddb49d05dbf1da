"""Class weights change what samples lose, and not what Frontier takes for learnt or contradicted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.methods.frontier.classes import class_priors, class_weights, plain_losses, without_weights
from lightning_dataselect.methods.frontier.passes import begin_pass
from lightning_dataselect.state.selection import Observation

number = st.floats(0.125, 4, width=32)
row = st.tuples(number | st.just(float("nan")), number, st.integers(-1, 3))


@settings(deadline=None, max_examples=80)
@given(rows=st.lists(row, min_size=1, max_size=12))
def test_weights_are_those_of_the_formula(rows):
    losses, plain, labels = (np.array(each) for each in zip(*rows, strict=True))
    known = ~np.isnan(losses)
    expected = np.ones(labels.max() + 2)
    for c in set(labels[known]):
        of_class = known & (labels == c)
        overall = losses[known].sum() / plain[known].sum()
        expected[c + 1] = losses[of_class].sum() / plain[of_class].sum() / overall
    found = class_weights(torch.tensor(losses).float(), torch.tensor(plain).float(), torch.tensor(labels))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-3)  # those that are near 1 are 1
    divided = without_weights(torch.tensor(plain), found, torch.tensor(labels))
    assert divided.tolist() == pytest.approx((plain / found.numpy()[labels + 1]).tolist(), rel=1e-5)


def test_a_class_without_weight_or_without_cross_entropies_is_left_as_it_is():
    labels = torch.tensor([0, 0, 1, 1])
    assert class_weights(torch.tensor([0.0, 0, 1, 1]), torch.ones(4), labels)[:2].tolist() == [1, 1]
    assert class_weights(torch.ones(4), torch.full((4,), torch.nan), labels).tolist() == [1] * 3
    assert class_weights(torch.zeros(4), torch.ones(4), labels).tolist() == [1] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_losses_are_cross_entropies_of_samples_with_a_class(dtype):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    classes = torch.tensor([2, -100, 255, 0])
    seen = Observation(torch.arange(4), torch.ones(4), logits, classes, epoch=0)
    log_p = logits.double().numpy() - np.log(np.exp(logits.double().numpy()).sum(1, keepdims=True))
    assert plain_losses(seen).tolist() == pytest.approx([-log_p[0, 2], np.nan, np.nan, -log_p[3, 0]], nan_ok=True)
    soft = torch.softmax(torch.arange(12.0).reshape(4, 3) % 5, 1)
    seen = Observation(torch.arange(4), torch.ones(4), logits, soft, epoch=0)
    assert plain_losses(seen).tolist() == pytest.approx((-(soft.double().numpy() * log_p).sum(1)).tolist(), rel=1e-5)
    for logits_, classes_ in ((None, None), (logits[:, :1], classes)):
        assert plain_losses(Observation(torch.arange(4), torch.ones(4), logits_, classes_, epoch=0)) is None


@pytest.mark.parametrize("power", [0, 2], ids=["cross entropy", "focal"])
def test_a_pass_leaves_out_the_same_samples_whatever_the_weights_of_their_classes(power):
    g = torch.Generator().manual_seed(0)
    n, untrained = 4000, 1 - torch.rand(4000, generator=g) / 5
    labels = torch.arange(n) % 4
    plain = 1.386 * untrained
    wrong = torch.rand(n, generator=g) < 0.2
    later = [torch.where(wrong, 1.8, 0.8 * torch.rand(n, generator=g)) for _ in range(2)]
    u = torch.rand(n, generator=g)
    weights = torch.tensor([0.3, 0.8, 1.0, 2.5])
    out = []
    for weight in (torch.ones(4), weights):

        def loss(x, weight=weight):
            return weight[labels] * (1 - torch.exp(-x)) ** power * x

        columns = {"score": loss(sum(later) / 2), "previous": loss(later[0]), "latest": loss(later[1])}
        columns |= {"untrained": loss(plain), "plain": plain}
        columns |= dict.fromkeys(("label", "predicted"), labels.float())
        columns |= {name: torch.zeros(n) for name in ("group", "visits", "contradicted", "before")}
        begun = begin_pass(columns.get, 2, None, planned_passes=9, trial_began=0, draw=lambda purpose: u.__getitem__)
        assert begun.decision.learnt and begun.decision.contradicted
        out.append(begun.out)
    differ = (out[0] != out[1]).float().mean()
    assert differ < (1e-6 if power == 0 else 0.02)
    assert out[1][wrong].float().mean() > 0.9


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(-1, 3), min_size=1, max_size=20), untrained=st.floats(0.25, 3, width=32))
def test_priors_are_those_of_the_formula(labels, untrained):
    y = np.array(labels)
    shares = {c: (y == c).sum() / (y >= 0).sum() for c in range(y.max() + 1)}
    expected = [1.0] + [min(1, -np.log(share) / untrained) if share else 1 for share in shares.values()]
    plain = torch.full((len(labels),), untrained)
    plain[0] = torch.nan if len(labels) > 1 else untrained
    assert class_priors(torch.tensor(labels), plain).tolist() == pytest.approx(expected, abs=1e-6)
    assert class_priors(torch.tensor(labels), torch.full_like(plain, torch.nan)).tolist() == [1] * len(expected)


def test_frequent_class_is_learnt_where_more_is_known_than_its_share():
    n = 4000
    labels = (torch.arange(n) % 10 == 0).long()
    known = {"plain": torch.full((n,), 0.69), "untrained": torch.full((n,), 0.69)}
    known |= dict.fromkeys(("label", "predicted"), labels.float())
    left_out = []
    for of_frequent in (-np.log(0.9), -np.log(0.99)):
        losses = torch.where(labels == 1, 0.3, float(of_frequent))
        columns = known | dict.fromkeys(("score", "previous", "latest"), losses)
        columns |= {name: torch.zeros(n) for name in ("group", "visits", "contradicted", "before")}
        begun = begin_pass(
            columns.get, 2, None, planned_passes=9, trial_began=1, draw=lambda purpose: torch.zeros(n).__getitem__
        )
        left_out.append(int(begun.out.sum()))
    assert left_out == [0, 3600]
