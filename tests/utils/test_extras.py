"""A command that lacks a package of an extra says how to install it, and others go on without."""

import importlib.util
import subprocess
import sys

import pytest

from lightning_dataselect.demo import DigitsData
from lightning_dataselect.utils.errors import MissingExtraError

SCRIPT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("pandas", "matplotlib") else find(name, *rest)
import torch
from lightning_dataselect import EL2N, InfoBatch
selector = InfoBatch()
for call in (lambda: selector.export("a.csv"), lambda: selector.plot(), lambda: EL2N(scores=sys.argv[1])):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_a_missing_extra_is_named_with_the_line_to_type(tmp_path):
    (tmp_path / "scores.csv").write_text("index,score\n0,1\n")
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "scores.csv")], capture_output=True, text=True, check=True
    )
    lines = ran.stdout.splitlines()
    assert lines[:2] == ["plot() or export() needs matplotlib, pandas: pip install 'lightning-dataselect[report]'."] * 2
    assert lines[2].startswith("scores=") and lines[2].endswith(
        "needs pandas: pip install 'lightning-dataselect[report]'."
    )


def test_it_is_an_error_of_the_package_and_an_import_error():
    from lightning_dataselect.utils.errors import DataSelectError
    from lightning_dataselect.utils.extras import require_report_extra

    with pytest.raises(DataSelectError, match="compare needs no_such: pip install") as caught:
        require_report_extra("compare", "no_such", "torch")
    assert isinstance(caught.value, ImportError)


def test_the_demo_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"DigitsData needs sklearn: pip install 'lightning-dataselect\[report"):
        DigitsData().setup("fit")
