"""The package's own errors: one base class, and a builtin beside each kind."""

import pickle

import pytest

from lightning_dataselect.utils import errors
from lightning_dataselect.utils.errors import DataSelectError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DataSelectError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_prints_its_message_and_survives_pickling(kind):
    error = kind("prune_ratio='x': give a float.")
    assert str(error) == "prune_ratio='x': give a float."
    assert isinstance(error, DataSelectError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


def test_each_kind_is_caught_as_the_builtin_it_stands_for():
    assert issubclass(errors.InvalidArgumentError, ValueError)
    assert issubclass(errors.UnexpectedArgumentError, TypeError)
    assert issubclass(errors.MissingFileError, FileNotFoundError)
    assert issubclass(errors.MissingOutputError, KeyError)
    assert issubclass(errors.NoFitYetError, RuntimeError)
