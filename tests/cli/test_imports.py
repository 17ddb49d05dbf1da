"""The package and its command answer without torch and Lightning, where the answer needs neither."""

import pickle
import subprocess
import sys

import pytest

import lightning_dataselect
from lightning_dataselect import methods
from lightning_dataselect.methods.catalog import CATALOG

HEAVY = {"torch", "lightning", "lightning_fabric", "numpy", "pandas", "matplotlib", "jsonargparse"}
LIGHT = {
    "--version": 0,
    "--help": 0,
    "compare --help": 0,
    "init --help": 0,
    "init --model my.Model": 2,
    "init --model Model --data my.Data": 2,
    "list": 0,
    "list --json": 0,
    "fitt": 2,
    "--verison": 2,
    "compare --seds 3": 2,
    "compare --seeds x": 2,
    "compare --methods full,InfoBach": 2,
    "compare exp.yaml --methods full(2)": 2,
    "fit --select UBC": 2,
    "fit --select.help UBC": 2,
}
"""Command lines, and the exit code of each."""


def loaded_by(code):
    """The heavy modules that a fresh process has imported after ``code``, and how that ended."""
    report = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, timeout=280)
    return HEAVY & set(done.stderr.split()), done


@pytest.mark.parametrize("arguments", LIGHT)
def test_the_command_answers_without_torch(arguments):
    heavy, done = loaded_by(f"from lightning_dataselect.cli.main import main; sys.exit(main({arguments.split()}))")
    assert (heavy, done.returncode) == (set(), LIGHT[arguments]), done.stderr[:2000]


def test_the_package_is_imported_without_torch():
    heavy, done = loaded_by("import lightning_dataselect as d; d.list_methods(); d.DataSelectError; dir(d)")
    assert (heavy, done.returncode) == (set(), 0)


def test_every_public_name_is_there():
    assert set(lightning_dataselect.__all__) <= set(dir(lightning_dataselect))
    everything = {}
    exec("from lightning_dataselect import *", everything)
    for name in lightning_dataselect.__all__:
        assert everything[name] is getattr(lightning_dataselect, name)
    with pytest.raises(AttributeError, match="module 'lightning_dataselect' has no attribute 'InfoBach'"):
        _ = lightning_dataselect.InfoBach
    with pytest.raises(ImportError, match="cannot import name 'InfoBach'"):
        exec("from lightning_dataselect.methods import InfoBach")


def test_the_catalog_lists_what_the_methods_room_exports():
    assert set(methods.__all__) == set(CATALOG) <= set(dir(methods))
    assert list(CATALOG) == sorted(CATALOG, key=str.lower)
    for name, info in CATALOG.items():
        cls = getattr(methods, name)
        assert cls is info.cls is getattr(lightning_dataselect, name) and cls.info is info
        assert type(pickle.loads(pickle.dumps(cls()))) is cls
