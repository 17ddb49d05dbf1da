"""Every share that a class takes: the interval that is printed is the one that is checked."""

import dataclasses
import math
import re

import numpy as np
import pytest

from lightning_dataselect import list_methods
from lightning_dataselect.methods.parts import SAMPLERS, SCORES
from lightning_dataselect.numerics.ratio_schedule import RatioSchedule
from lightning_dataselect.utils.arguments import accepted_arguments

OTHERS = {RatioSchedule: {"start": 0.5, "end": 0.5}}
CLASSES = [
    *(method.cls for method in list_methods()),
    *(part.cls for parts in (SCORES, SAMPLERS) for part in parts.values()),
    *OTHERS,
]
PRINTED = re.compile(r"is outside ([\[(])0, 1([\])])")


def refusal(cls, name, value):
    """Return the answer to a value of an argument; empty if it is taken."""
    try:
        cls(**{**OTHERS.get(cls, {}), name: value})
    except Exception as error:
        return f"{error}"
    return ""


def shares():
    for cls in CLASSES:
        names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else accepted_arguments(cls)
        for name in names:
            if found := PRINTED.search(refusal(cls, name, 50)):
                yield cls, name, found[1] == "[", found[2] == "]"


SHARES = list(shares())


def test_the_shares_are_found():
    found = {(cls.__name__, name) for cls, name, *_ in SHARES}
    assert found >= {
        ("ESWP", "batch_ratio"),
        ("InfoBatch", "prune_ratio"),
        ("DBPD", "threshold"),
        ("DBPD", "score_scale"),
        ("SRD", "decay"),
        ("SRD", "anneal"),
        ("AutoAssist", "base_prob"),
        ("TDDSScore", "decay"),
        ("Stratified", "cutoff"),
        ("Frontier", "budget"),
        ("RatioSchedule", "end"),
    }


@pytest.mark.parametrize(
    ("cls", "name", "takes_zero", "takes_one"), SHARES, ids=[f"{cls.__name__}-{name}" for cls, name, *_ in SHARES]
)
def test_the_interval_that_is_printed_is_the_one_that_is_checked(cls, name, takes_zero, takes_one):
    said = refusal(cls, name, 50)
    for value, taken in {0: takes_zero, 1: takes_one, 1 + 1e-9: False, -1e-9: False, math.nan: False}.items():
        answer = refusal(cls, name, value)
        if taken:  # though it may not go together with the other defaults
            assert "is outside" not in answer, value
        else:
            assert PRINTED.search(answer)[0] == PRINTED.search(said)[0], value
            assert answer.startswith(f"{name}={value!r} is outside"), value
    assert "is outside" not in refusal(cls, name, np.float32(0.5))
