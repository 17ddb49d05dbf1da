"""Choosing from groups, and by masks, part by part: as the plain forms do that take many bytes a sample."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.methods.frontier.evidence import in_learnt_classes, second_mode
from lightning_dataselect.methods.orderdp import order_subset
from lightning_dataselect.methods.samplers.base import choose_unknown_first
from lightning_dataselect.methods.samplers.beta import beta_weights
from lightning_dataselect.methods.samplers.by_order import Highest, Window
from lightning_dataselect.methods.seta import seta
from lightning_dataselect.numerics import parts
from lightning_dataselect.numerics.groups import top_of_groups
from lightning_dataselect.numerics.masks import marked, mask_of, positions, spread, taken
from lightning_dataselect.numerics.sampling import top_k, uniform_subset

NAN = float("nan")


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[7, 2**20], ids=["many parts", "one part"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", request.param)


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**31 - 1) | st.integers(0, 3)), min_size=1, max_size=80),
    shares=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    size=st.sampled_from([7, 2**20]),
)
def test_each_group_gives_its_highest_keys(rows, shares, size):
    groups, keys = (np.array(column) for column in zip(*rows, strict=True))
    sizes = np.bincount(groups, minlength=5)
    budgets = np.floor(sizes * np.array(shares)).astype(int)
    expected = np.zeros(len(rows), bool)
    for group, budget in enumerate(budgets):
        members = np.flatnonzero(groups == group)
        expected[members[np.argsort(-keys[members], kind="stable")[:budget]]] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_CHUNK", size)
        of_sample = torch.from_numpy(groups)
        found = top_of_groups(torch.from_numpy(keys).int(), lambda part: of_sample[part], torch.from_numpy(budgets))
    assert found.numpy().tolist() == expected.tolist()


def test_many_samples_in_few_groups(chunk):
    g, n = gen(1), 5000
    groups, keys = torch.randint(3, (n,), generator=g), torch.empty(n, dtype=torch.int32).random_(generator=g)
    budgets = torch.tensor([0, 700, int((groups == 2).sum())])
    found = top_of_groups(keys, lambda part: groups[part], budgets)
    assert torch.bincount(groups[found], minlength=3).tolist() == budgets.tolist()
    of_second = groups == 1
    assert keys[found & of_second].min() > keys[~found & of_second].max()


def test_masks_are_as_an_index_would_have_them(chunk):
    g = gen(2)
    mask, values = torch.rand(50, generator=g) < 0.4, torch.rand(50, generator=g)
    chosen = torch.rand(int(mask.sum()), generator=g) < 0.5
    assert torch.equal(taken(values, mask), values[mask])
    assert torch.equal(spread(chosen, mask).nonzero(), mask.nonzero()[chosen])
    assert torch.equal(positions(mask), mask.nonzero().squeeze(1))
    assert torch.equal(marked(50, lambda part: values[part] > 0.5), values > 0.5)
    assert torch.equal(mask_of(50, mask.nonzero().squeeze(1).int()), mask)


# ---- the forms that methods had before, an index of int64 each


def losses(n=60, unknown=()):
    found = torch.randint(12, (n,), generator=gen(3)).float()  # many are equal
    found[list(unknown)] = NAN
    return found


@pytest.mark.parametrize(("drawn", "kept"), [(45, 36), (60, 20), (30, 30)])
def test_orderdp_takes_the_highest_of_what_it_draws(chunk, drawn, kept):
    x, g = losses(unknown=[4, 9]), gen()
    subset = uniform_subset(60, drawn, g)
    assert torch.equal(order_subset(x, drawn, kept, gen()), subset[top_k(x[subset], kept, g)])


@pytest.mark.parametrize("n_unknown", [0, 5, 58])
def test_seta_draws_what_was_never_measured_first(chunk, n_unknown):
    x = losses(unknown=range(n_unknown))
    drawn = top_k(torch.where(x.isfinite(), 0.0, torch.inf), 42, gen())
    assert torch.equal(seta(x, 0.3, 5, 1.0, 0, gen()), drawn)


@pytest.mark.parametrize("sampler", [Highest(), Window(0.2)], ids=str)
@pytest.mark.parametrize("k", [2, 30])
def test_samplers_take_samples_without_a_score_first(chunk, sampler, k):
    x, g = losses(unknown=[4, 9, 40]), gen()
    known, unknown = (~x.isnan()).nonzero().squeeze(1), x.isnan().nonzero().squeeze(1)
    if k < len(unknown):
        expected = unknown[uniform_subset(3, k, g)]
    else:
        expected = torch.cat([unknown, known[sampler.choose(x[known], k - 3, g, x.new_zeros)]]).sort().values
    assert torch.equal(choose_unknown_first(sampler, x, k, gen(), x.new_zeros).sort().values, expected)


def test_beta_weights_are_those_of_one_part(chunk):
    g = gen(5)
    scores, means = torch.rand(60, generator=g), torch.rand(60, generator=g)
    means[7] = NAN
    known = means.double().nan_to_num(0.5).clamp(1e-6, 1 - 1e-6)
    mu = float(means.double().nan_to_num(0.5)[scores.topk(10).indices].mean())
    b = 15 * (1 - mu) * (1 - 0.5**4)
    log_density = (15 - b) * known.log() + (b - 1) * (1 - known).log()
    expected = (log_density - log_density.max()).exp() * scores
    torch.testing.assert_close(beta_weights(scores, means, 0.5, 4.0, 15.0)(slice(None)), expected, rtol=1e-12, atol=0)


def test_frontier_counts_classes_and_modes_in_parts(chunk, monkeypatch):
    g = gen(6)
    last, labels = 3 * torch.rand(200, generator=g), torch.randint(-1, 6, (200,), generator=g)
    last[labels == 2] += 2
    last[5] = NAN
    known = ~last.isnan()
    shares = {c: float((last[known & (labels == c)] > 2).double().mean()) for c in range(-1, 6)}
    expected = [shares[c] <= 0.5 for c in labels.tolist()]
    assert in_learnt_classes(last, labels.int(), 2.0).tolist() == expected and not all(expected)
    two_modes = torch.cat([last.fmod(1.0), 4 + last[:80].fmod(0.5)])
    counted = ~two_modes.isnan() & (torch.arange(280) % 5 > 0)
    found = second_mode(two_modes, 2.0, counted)
    monkeypatch.setattr(parts, "_CHUNK", 1000)
    assert found == second_mode(two_modes[counted], 2.0) > 1.5
