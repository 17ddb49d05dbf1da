"""The documentation: every code block marked as runnable runs, every page's claims about files and errors hold."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.tables import ROOT
from lightning_dataselect import list_methods
from lightning_dataselect.cli.main import main
from lightning_dataselect.utils import errors

pytestmark = pytest.mark.docs
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"<!-- (run|file: (?P<file>\S+)) -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
RUNNABLE = [path for path in PAGES if "<!-- run -->" in path.read_text()]


def blocks(page: Path) -> Iterator[tuple[str | None, str, str]]:
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    assert len(found) == len(re.findall(r"<!-- (?:run|file: )", text)), "a mark without its code block"
    yield from ((match["file"], match["language"], match["code"]) for match in found)


# In this process, which has imported torch and Lightning already.
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore")
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    found = list(blocks(page))
    for file, _, code in found:
        if file is not None:
            Path(file).write_text(code)
    for file, language, code in found:
        if file is None and language == "python":
            exec(compile(code, f"{page.name}, a code block", "exec"), namespace)
        elif file is None:
            program, *arguments = shlex.split(code)
            assert program == "lightning-dataselect" and main(arguments) == 0


def test_the_site_is_built_strictly_and_not_quietly():
    """With `--quiet` MkDocs counts no warnings, so that `--strict` fails on none."""
    builds = [line for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line]
    assert builds and all("--strict" in line and "--quiet" not in line and "-q" not in line.split() for line in builds)


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


def test_every_card_has_a_picture_of_what_its_method_keeps():
    results = ROOT / "benchmarks" / "results"
    study = json.loads((results / "images.json").read_text())["parts"]["fashion_mnist"]["rows"]
    drawn = {row["label"].split("(")[0] for row in study if row["kept"]}
    drawn |= {label.split("(")[0] for label in json.loads((results / "kept.json").read_text())["kept"]}
    names = {"RandomPruning": "random"}
    assert [m.name for m in list_methods() if names.get(m.name, m.name) not in drawn] == []


def test_every_kind_of_error_has_an_entry_in_the_faq():
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and name != "DataSelectError"}
    told = set(re.findall(r"^### (\w+Error)$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE))
    assert kinds == told


def test_compatibility_names_tests_that_there_are():
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+)(\*?)`", (ROOT / "docs" / "compatibility.md").read_text())
    assert len(named) > 10
    missing = [name for name, star in named if not (any(f.startswith(name) for f in files) if star else name in files)]
    assert missing == []
