"""The documentation: every code block marked as runnable runs, every page's claims about files and errors hold."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.tables import ROOT
from lightning_dataselect import list_methods
from lightning_dataselect.utils import errors

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"<!-- (run|file: (?P<file>\S+)) -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
RUNNABLE = [path for path in PAGES if "<!-- run -->" in path.read_text()]


def blocks(page: Path) -> Iterator[tuple[str | None, str, str]]:
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    assert len(found) == len(re.findall(r"<!-- (?:run|file: )", text)), "a mark without its code block"
    yield from ((match["file"], match["language"], match["code"]) for match in found)


@pytest.mark.docs
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_code_blocks_run(page, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = ["import warnings", "warnings.simplefilter('ignore')"]
    commands = []
    for file, language, code in blocks(page):
        if file is not None:
            (tmp_path / file).write_text(code)
        elif language == "python":
            script.append(code)
        else:
            commands.append(code.replace("lightning-dataselect", f"{sys.executable} -m lightning_dataselect"))
    (tmp_path / "page.py").write_text("\n".join(script))
    for command in [f"{sys.executable} page.py", *commands]:
        ran = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-3000:]


def test_there_are_pages_that_run():
    assert {"get-started", "write-your-own", "capture", "data-insight"} <= {page.stem for page in RUNNABLE}


def test_every_method_has_a_card_and_nothing_else_has():
    cards = yaml.safe_load((ROOT / "docs" / "_generate" / "cards.yaml").read_text())
    assert sorted(cards) == sorted(method.name for method in list_methods())
    assert {tuple(sorted(card)) for card in cards.values()} == {("avoid", "call", "cost", "fails", "use", "what")}


def test_every_example_of_a_card_is_valid():
    cards = yaml.safe_load((ROOT / "docs" / "_generate" / "cards.yaml").read_text())
    methods = {method.name: method.cls for method in list_methods()}
    for name, card in cards.items():
        if "holdout.pt" not in card["call"]:
            eval(f"method({card['call']})", {"method": methods[name]})


def test_every_kind_of_error_has_an_entry_in_the_faq():
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and name != "DataSelectError"}
    told = set(re.findall(r"^### (\w+Error)$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE))
    assert kinds == told
