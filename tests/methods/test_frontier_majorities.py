"""Frontier leaves no class to another label, however many of its samples are learnt."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.methods.frontier.majorities import share_let_go
from lightning_dataselect.methods.frontier.passes import begin_pass

classes = st.lists(st.integers(-1, 3), min_size=30, max_size=30)
flags = st.lists(st.booleans(), min_size=30, max_size=30)


@settings(deadline=None, max_examples=80)
@given(labels=classes, predicted=classes, learnt=flags, contradicted=flags, apart=st.sampled_from((1, 2000)))
def test_the_share_is_that_of_the_formula(labels, predicted, learnt, contradicted, apart):
    y, p, known, out = (np.array(values) for values in (labels, predicted, learnt, contradicted))
    is_open = ~known & ~out & (y >= 0) & (p >= 0)
    classes_ = (np.where(values < 0, -1, values * apart) for values in (y, p))
    of = torch.tensor(known).__getitem__
    found = share_let_go(of, *(torch.tensor(values) for values in (out, *classes_)), most=0.9)
    pairs_count = len(found) <= 4096  # of more classes all other labels are one rival
    for c in range(max(y.max(), p.max()) + 1):
        rivals = [int((is_open & (p == c) & (y == d)).sum()) for d in range(4) if d != c]
        n_right, n_learnt = int((is_open & (p == c) & (y == c)).sum()), int((known & (y == c)).sum())
        kept = 3 * (max(rivals) if pairs_count else sum(rivals)) - n_right
        assert float(found[c * apart + 1]) == pytest.approx(min(0.9, max(0.0, 1 - kept / max(n_learnt, 1))), abs=1e-6)


def test_a_pass_leaves_three_times_as_many_right_as_labelled_as_the_next_class():
    g = torch.Generator().manual_seed(0)
    n = 4000
    truth = torch.arange(n) % 4
    is_wrong = (torch.rand(n, generator=g) < 0.2) & (truth < 2)
    labels = torch.where(is_wrong, truth + 1, truth)
    losses = torch.where(is_wrong, 1.2, 0.1)  # a model that expects them loses less than an untrained one
    columns = dict.fromkeys(("score", "previous", "latest"), losses)
    columns |= dict.fromkeys(("plain", "untrained"), torch.full((n,), 1.386))
    columns |= {"label": labels.float(), "predicted": truth.float()}
    columns |= {name: torch.zeros(n) for name in ("group", "visits", "contradicted", "before")}
    u = torch.rand(n, generator=g)
    begun = begin_pass(columns.get, 2, None, planned_passes=9, trial_began=1, draw=lambda purpose: u.__getitem__)
    for c in range(2):
        right, wrong = (int((~begun.out & (truth == c) & which).sum()) for which in (~is_wrong, is_wrong))
        assert right == pytest.approx(3 * wrong, rel=0.15)
    assert begun.out[truth == 3].float().mean() == pytest.approx(0.9, abs=0.03)
