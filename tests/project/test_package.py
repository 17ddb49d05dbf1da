"""A package index shows links that lead somewhere, URLs from one setting, one version."""

import importlib.util
import re
import runpy

import pytest
import yaml

import lightning_dataselect
from benchmarks.tables import ROOT
from lightning_dataselect import list_methods

REPOSITORY = "https://github.com/OWNER/NAME"


@pytest.fixture(scope="module")
def hook():
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, which the `test` extra brings")
    return runpy.run_path(str(ROOT / "hatch_build.py"))


def test_links_of_the_readme_lead_into_the_repository(hook):
    text = hook["absolute_links"]((ROOT / "README.md").read_text(), REPOSITORY)
    assert f"({REPOSITORY}/raw/main/benchmarks/results/recommended.png)" in text
    assert f"({REPOSITORY}/blob/main/docs/choosing.md)" in text
    assert re.findall(r"\]\((?!https?:|#)", text) == []


def test_without_an_address_links_become_text(hook):
    assert hook["absolute_links"]("![a](b.png) [c](d.md) [e](https://f)", "") == " c [e](https://f)"
    assert hook["project_urls"]("") == {}
    assert hook["project_urls"](REPOSITORY)["Source"] == REPOSITORY


def test_the_version_is_the_same_everywhere():
    version = lightning_dataselect.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_paper_can_be_cited():
    cited = {reference["url"] for reference in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]}
    assert {method.url for method in list_methods() if "arxiv.org" in method.url} == cited


def test_the_release_workflow_looks_for_what_is_there():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    steps = " ".join(step.get("run", "") for step in workflow["jobs"]["build"]["steps"])
    assert "lightning_dataselect/utils/version.py" in steps and "CHANGELOG.md" in steps
    assert re.search(
        r'^__version__ = "[^"]+"$', (ROOT / "lightning_dataselect" / "utils" / "version.py").read_text(), re.MULTILINE
    )
    assert re.search(r'^repository = "[^"]*"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
