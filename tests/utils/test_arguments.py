"""Accepted arguments of a class, and the nearest one to a name that it does not take."""

import re

import pytest

import lightning_dataselect
from lightning_dataselect import DataSelector, list_methods
from lightning_dataselect.utils.arguments import accepted_arguments
from lightning_dataselect.utils.errors import UnexpectedArgumentError

METHODS = {method.name: method.cls for method in list_methods()}


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_keyword_names_the_class_and_the_nearest_argument(name):
    arguments = list(accepted_arguments(METHODS[name]))
    with pytest.raises(UnexpectedArgumentError) as caught:
        METHODS[name](warmup_epoch=1)
    hint = "Did you mean warmup_epochs? " if "warmup_epochs" in arguments else ""
    assert str(caught.value) == f"{name} takes no argument 'warmup_epoch'. {hint}It takes {', '.join(arguments)}."
    with pytest.raises(TypeError, match=f"{name} takes no argument 'colour'. It takes"):
        METHODS[name](colour=1)


@pytest.mark.parametrize("name", METHODS)
def test_an_argument_without_a_name_is_answered_with_the_call_to_write(name):
    first = next(iter(accepted_arguments(METHODS[name])))
    with pytest.raises(
        UnexpectedArgumentError, match=re.escape(f"write {name}({first}=0.5), if that is what is meant")
    ):
        METHODS[name](0.5)


def test_a_method_of_ones_own_may_take_arguments_by_place():
    class Mine(DataSelector):
        def __init__(self, share, **common):
            super().__init__(prune_ratio=share, **common)

    assert Mine(0.25).prune_ratio == 0.25


def test_a_method_of_ones_own_is_named_too():
    class Mine(DataSelector):
        def __init__(self, *, temperature=1.0, **common):
            super().__init__(**common)

    with pytest.raises(UnexpectedArgumentError, match=r"Mine takes no argument 'sed'. Did you mean seed\? It takes"):
        Mine(sed=1)


def test_every_argument_that_is_listed_is_taken():
    for cls in METHODS.values():
        assert "unknown" not in accepted_arguments(cls) and "seed" in accepted_arguments(cls)
    assert lightning_dataselect.UCB(**dict.fromkeys(("seed", "warmup_epochs"), 1)).seed == 1
