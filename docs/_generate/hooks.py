"""MkDocs hooks: add the pages that are made from the code, the results and the files at the top of the repository."""

import json
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from cards import card, method_names  # noqa: E402

# Files from outside docs/, and the page that each becomes.
BORROWED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "results.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the address of the repository from pyproject.toml, and list the cards and notebooks in the navigation."""
    setting = re.search(r'^repository = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert setting is not None
    config.repo_url = setting[1] or None
    for section in config.nav:
        if "Methods" in section:
            section["Methods"] += [{name: f"methods/{name}.md"} for name in method_names()]
        if "Notebooks" in section:
            section["Notebooks"] = [{_title(path): f"notebooks/{path.name}"} for path in _notebooks()]
    return config


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add cards, notebooks, plots and the borrowed pages."""
    for name in method_names():
        files.append(File.generated(config, f"methods/{name}.md", content=card(name)))
    for source, target in BORROWED.items():
        files.append(File.generated(config, target, content=_without_outer_links((ROOT / source).read_text())))
    for path in [*_notebooks(), *(ROOT / "benchmarks" / "results").glob("*.png")]:
        files.append(File(str(path.relative_to(ROOT)), str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _notebooks() -> list[Path]:
    first = ROOT / "notebooks" / "quickstart.ipynb"
    return sorted(first.parent.glob("*.ipynb"), key=lambda path: (path != first, path.name))


def _title(path: Path) -> str:
    """Return the first heading of a notebook."""
    first = json.loads(path.read_text())["cells"][0]["source"]
    return "".join(first).splitlines()[0].removeprefix("# ")


def _without_outer_links(text: str) -> str:
    """Links to files of the repository, which the site does not have, as their text alone."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)
