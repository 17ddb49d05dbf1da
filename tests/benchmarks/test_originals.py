"""The comparison with authors' code: what is taken out of a clone, what is said of it, and the page that shows it."""

import json
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.originals.__main__ import ORIGINALS, main
from benchmarks.originals.agreement import Compared, chances, counts, numbers, samples, tenths
from benchmarks.originals.author_code import definitions, module, run_statements
from benchmarks.originals.reasons import reason
from benchmarks.originals.table import originals_table, reasons_list
from benchmarks.tables import RESULTS, ROOT
from lightning_dataselect.utils.errors import UserInputError

SCRIPT = """
import a_package_that_nobody_has

raise SystemExit("the script was run")

def double(x):
    return factor * x

class Trainer:
    def train(self, samples):
        open("what is not there")
        for x in samples:
            if x > 2:
                kept.append(double(x))
        print("done")
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "theirs.py").write_text(
        "import nobody_has_this\nfrom torch.utils.data.dataloader import _BaseDataLoaderIter\n"
        "import helper_of_theirs\n_BaseDataLoaderIter.__next__ = None\nvalue = helper_of_theirs.value\n"
    )
    (tmp_path / "helper_of_theirs.py").write_text("value = 7\n")
    return tmp_path


def test_definitions_are_run_without_the_script_around_them(clone):
    assert definitions(clone / "script.py", "double", factor=3).double(2) == 6
    with pytest.raises(UserInputError, match="has no 'triple': another version was compared"):
        definitions(clone / "script.py", "double", "triple")
    with pytest.raises(UserInputError, match="is not there: is the folder a clone"):
        definitions(clone / "other.py", "double")


def test_single_statements_are_run_out_of_a_method(clone):
    double = definitions(clone / "script.py", "double", factor=3).double
    space = run_statements(clone / "script.py", "train", "for x in samples", samples=[1, 3, 5], kept=[], double=double)
    assert space["kept"] == [9, 15]
    with pytest.raises(UserInputError, match="has no 'while True'"):
        run_statements(clone / "script.py", "train", "while True")


def test_what_importing_changes_is_undone(clone):
    path, known = list(sys.path), set(sys.modules)
    assert module(clone, "theirs", absent=["nobody_has_this"]).value == 7
    assert sys.path == path and set(sys.modules) == known
    assert [len(batch) for batch in DataLoader(range(4), 2)] == [2, 2]


def test_agreement_is_of_samples_numbers_and_chances():
    assert samples("", [1, 2, 3], torch.tensor([3, 2, 1])).agreement == "the same samples"
    assert samples("", range(1000), range(1, 1000)).agreement == "99.9 % the same"
    assert numbers("", [1.0, -4.0], torch.tensor([1.0, -4.0])).agreement == "the same"
    assert numbers("", [1.0, -4.0], [1.0, -3.0]).agreement == "within 2e-01"
    assert counts("", 1000, 1001) == Compared("", "1,000", "1,001", "differs")
    always = chances(lambda seed: [0, 1 + seed % 2], 3, 10)
    assert always.tolist() == [1.0, 0.5, 0.5]
    order = torch.arange(20.0)
    found = tenths("", order, order / 20, order / 20 + torch.cat([torch.zeros(18), torch.full((2,), 0.01)]))
    assert found == Compared("", "0.025 to 0.925", "0.025 to 0.935", "within 0.010")


def test_what_differs_needs_a_reason():
    for agreement in ("differs", "98.0 % the same", "within 3e-02", "within 0.112"):
        with pytest.raises(KeyError, match="no reason"):
            reason("ies", Compared("mastered", "1", "2", agreement))
    for agreement in ("the same samples", "within 9e-06", "within 0.004", "within 0.06 points", "within chance"):
        assert reason("ies", Compared("mastered", "1", "2", agreement)) is None
    assert reason("infobatch", Compared("samples kept", "1", "2", "differs"))


def test_the_page_has_every_line_compared_and_says_why_where_they_differ():
    study = json.loads((RESULTS / "originals.json").read_text())
    assert list(study["originals"]) == list(ORIGINALS)
    assert {name: (one["repository"], one["methods"]) for name, one in study["originals"].items()} == {
        name: (one.repository, one.methods) for name, one in ORIGINALS.items()
    }
    page = (ROOT / "docs" / "originals.md").read_text()
    assert originals_table(study) in page and reasons_list(study) in page
    for original in study["originals"].values():
        assert original["commit"] in page
        assert {what for _, what, *_ in original["rows"]} == {w for d, w, *_ in original["rows"] if d != "made up"}


def test_results_are_no_larger_than_a_page():
    assert (RESULTS / "originals.json").stat().st_size < 20_000


def test_a_folder_that_is_no_clone_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "name a clone: --infobatch, --seta" in capsys.readouterr().err
    with pytest.raises(UserInputError, match="order_examples_by_forgetting.py is not there"):
        main(["--forgetting", str(tmp_path), "--out", str(tmp_path / "found.json")])
