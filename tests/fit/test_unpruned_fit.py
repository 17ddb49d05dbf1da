from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_dataselect.fit.unpruned_fit import UnprunedFit


def accumulation(fit, epoch):
    return fit.accumulate[max(first for first in fit.accumulate if first <= epoch)]


def simulated(fit, frequency):
    """Scheduler calls after each batch of the unpruned fit, by the rule that Lightning's loop follows."""
    made, steps, calls = 0, 0, [0]
    for epoch in range(fit.max_epochs):
        for done in range(1, fit.full_batches + 1):
            if done % accumulation(fit, epoch) == 0 or done == fit.full_batches:
                steps += 1
                made += done % frequency == 0
            calls.append(made)
            if steps == fit.max_steps:
                return calls
    return calls


fits = st.builds(
    UnprunedFit,
    full_batches=st.integers(1, 12),
    max_epochs=st.integers(1, 4),
    accumulate=st.builds(
        lambda n, later: {**later, 0: n}, st.integers(1, 5), st.dictionaries(st.integers(1, 5), st.integers(1, 5))
    ),
    max_steps=st.one_of(st.just(-1), st.integers(1, 60)),
)


@settings(max_examples=300)
@given(fits, st.integers(1, 4))
def test_counts_the_calls_of_lightning(fit, frequency):
    expected = simulated(fit, frequency)
    assert [fit.calls(batch, frequency) for batch in range(len(expected))] == expected


@settings(max_examples=300)
@given(fits, st.lists(st.integers(1, 12), min_size=4, max_size=4))
def test_a_pruned_fit_goes_forward_and_ends_where_the_unpruned_one_does(fit, lengths):
    last, steps, before = len(simulated(fit, 1)) - 1, 0, 0
    for epoch in range(fit.max_epochs):
        n_batches = min(lengths[epoch], fit.full_batches)
        for done in range(1, n_batches + 1):
            steps += done % accumulation(fit, epoch) == 0 or done == n_batches
            now = fit.position(epoch, done, n_batches, steps)
            assert before <= now <= last
            before = now
            if steps == fit.max_steps:
                assert now == last
                return
    assert before == last


@settings(max_examples=200)
@given(fits, st.integers(1, 4))
def test_an_unpruned_fit_makes_each_call_at_its_own_batch(fit, frequency):
    steps = 0
    for batch, expected in enumerate(simulated(fit, frequency)[1:]):
        epoch, within = divmod(batch, fit.full_batches)
        stepped = (within + 1) % accumulation(fit, epoch) == 0 or within + 1 == fit.full_batches
        steps += stepped
        position = fit.position(epoch, within + 1, fit.full_batches, steps)
        if stepped:
            assert fit.calls(position, frequency) == expected


def test_half_an_epoch_is_half_an_epoch_whatever_its_length():
    fit = UnprunedFit(full_batches=40, max_epochs=3)
    assert [fit.position(1, n // 2, n, 0) for n in (2, 10, 40)] == [60, 60, 60]


def test_max_steps_squeezes_the_schedule():
    fit = UnprunedFit(full_batches=10, max_epochs=4, max_steps=20)
    assert fit.position(epoch=1, batches_done=5, n_batches=5, steps=10) == 10
    assert fit.position(epoch=1, batches_done=8, n_batches=8, steps=16) == 16
    assert fit.position(epoch=3, batches_done=1, n_batches=1, steps=4) == 20
