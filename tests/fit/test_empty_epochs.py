"""A stream that yields nothing is said to, and ends a fit that only steps would end."""

import pytest
from helpers import trainer

from lightning_dataselect.fit.empty_epochs import EmptyEpochs


def test_fit_that_only_steps_would_end_is_ended_and_the_trainer_gets_its_limit_back():
    made = trainer(max_epochs=-1, max_steps=5)
    empty = EmptyEpochs(made)
    with pytest.warns(UserWarning, match="no batch in epoch 2, so the fit ends before it has taken its steps"):
        empty.follow(3)
    assert made.fit_loop.max_epochs == 3
    empty.give_back()
    assert made.fit_loop.max_epochs == -1


def test_fit_that_epochs_end_is_warned_once_and_goes_on(recwarn):
    made = trainer(max_epochs=9)
    empty = EmptyEpochs(made)
    empty.follow(3)
    empty.follow(4)
    assert [str(warning.message)[:47] for warning in recwarn] == ["The stream has yielded no batch in epoch 2. A g"]
    empty.give_back()
    assert made.fit_loop.max_epochs == 9
