from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_dataselect.schedule import full_epoch_calls


def calls_of_lightning(n_batches, accumulate, frequency):
    """Calls after each batch of an epoch, by the rule that Lightning's loop follows."""
    made, counts = 0, [0]
    for done in range(1, n_batches + 1):
        optimizer_steps = done % accumulate == 0 or done == n_batches
        made += optimizer_steps and done % frequency == 0
        counts.append(made)
    return counts


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4))
def test_counts_the_calls_of_an_unpruned_epoch(full, accumulate, frequency):
    counted = [full_epoch_calls(b, full, accumulate, frequency) for b in range(full + 1)]
    assert counted == calls_of_lightning(full, accumulate, frequency)
