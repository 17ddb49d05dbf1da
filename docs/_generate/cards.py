"""A card for each method, on one template: facts from its class, results of the studies, advice from cards.yaml."""

import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe
import jinja2
import yaml
from docstrings import SiteDocstrings
from mkdocs.exceptions import PluginError
from pictures import kept_share

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from lightning_dataselect.methods.catalog import CATALOG  # noqa: E402  (imports no torch)

PACKAGE = "lightning_dataselect"
# What a study calls a method that is not called by the name of its class.
ALIASES = {"RandomPruning": ("random", "random_rescaled")}
# The study that holds one method against another at the same budget, and the two.
PAIRED = ("frontier", ("Frontier", "FewerEpochs"))
# The study that the pictures show.
SHOWN = ("images", "fashion_mnist")


def method_names() -> list[str]:
    """Return the names of all methods, in alphabetical order."""
    return sorted(CATALOG, key=str.lower)


def card(name: str) -> str:
    """Return the page of a method, in Markdown."""
    if name not in _advice():
        raise PluginError(f"docs/_generate/cards.yaml has no entry for {name}.")
    cls = _classes()[name]
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined).from_string(
        (HERE / "card.md.j2").read_text()
    )
    return template.render(
        name=name,
        advice=_advice()[name],
        info=CATALOG[name],
        arguments=list(_arguments(cls)),
        base="BatchSelector" if "BatchSelector" in _bases(cls) else "DataSelector",
        notes=cls.module.docstring.value,
        rows=list(_rows(name)),
        n_paired=_paired_tasks(name),
        picture=_picture(name),
        import_path=f"{PACKAGE}.{name}",
    )


@functools.cache
def _advice() -> dict[str, dict[str, str]]:
    cards: dict[str, dict[str, str]] = yaml.safe_load((HERE / "cards.yaml").read_text())
    return cards


@functools.cache
def _classes() -> dict[str, griffe.Class]:
    """Return every class of the package's methods by name, read without importing anything."""
    loader = griffe.GriffeLoader(
        search_paths=[str(ROOT)], docstring_parser="google", extensions=griffe.load_extensions(SiteDocstrings)
    )
    package = loader.load(PACKAGE)
    loader.resolve_aliases()

    def walk(module: griffe.Module) -> Iterator[griffe.Class]:
        for member in module.members.values():
            if isinstance(member, griffe.Class):
                yield member
            elif isinstance(member, griffe.Module):
                yield from walk(member)

    return {cls.name: cls for cls in walk(package)}


def _bases(cls: griffe.Class) -> list[str]:
    return [base.name for base in cls.mro()]


def _arguments(cls: griffe.Class) -> Iterator[dict[str, str]]:
    """Yield the arguments that a class documents, with the defaults of its signature or of that of a base."""
    signatures = [base["__init__"].parameters for base in (cls, *cls.mro()) if "__init__" in base.members]
    for section in cls.docstring.parse("google", warnings=False):
        if section.kind is not griffe.DocstringSectionKind.parameters:
            continue
        for argument in section.value:
            if argument.name.startswith("*"):
                continue
            found = [each[argument.name] for each in signatures if argument.name in each]
            yield {
                "name": argument.name,
                "default": str(found[0].default),
                "type": str(found[0].annotation).replace("|", "\\|"),
                "text": _cell(argument.description),
            }


def _rows(name: str) -> Iterator[dict[str, str]]:
    """Yield what the studies have measured of a method, part by part."""
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        for part_name, part in json.loads(path.read_text()).get("parts", {}).items():
            full = next((row for row in part["rows"] if row["label"] == "full"), None)
            for row in part["rows"]:
                if full is None or not _is_of(row["label"], name):
                    continue
                digits = 2 if part["percent"] else 3
                value, of_full = _spread(row["value"], digits), _spread(full["value"], digits)
                verdict = f" **{row['verdict']}**" if row.get("verdict") else ""
                forward, backward = (row[key] / full[key] for key in ("n_forward", "n_backward"))
                yield {
                    "study": f"[{_study(part['title'])}](../results.md#{path.stem}-{part_name})",
                    "label": row["label"].removeprefix(name).strip("()") or "defaults",
                    "value": f"{part['metric']} {value} ({of_full})",
                    "against": f"{_spread(row['vs_short'], digits, '+')}{verdict}",
                    "time": "" if row.get("vs_time") is None else _spread(row["vs_time"], digits, "+"),
                    "cost": f"{forward:.2f} / {backward:.2f}",
                    "seconds": "" if "time" not in row else f"{row['time']:.2f}",
                    "seeds": str(part["seeds"]),
                }


def _paired_tasks(name: str) -> int:
    """Return on how many tasks a method was held against another at the same budget, 0 for any but these two."""
    study, methods = PAIRED
    return len(json.loads((ROOT / "benchmarks" / "results" / f"{study}.json").read_text())["rows"]) * (name in methods)


def _study(title: str) -> str:
    """Return the data of a study, and how many of its labels are wrong where it is about that."""
    data, *others = title.split(", ")
    flipped = [each for each in others if "flipped" in each]
    return ", ".join([data, *flipped])


def _is_of(label: str, name: str) -> bool:
    return label.split("(")[0] in (name, *ALIASES.get(name, ()))


def _spread(spread: dict[str, float], digits: int, sign: str = "") -> str:
    text = f"{spread['mean']:{sign}.{digits}f}"
    return text if spread["std"] is None else f"{text} ± {spread['std']:.{digits}f}"


def _picture(name: str) -> str:
    """Return the share that a method kept in each epoch, of the study that is shown or else on digits, as SVG."""
    study, part = SHOWN
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{study}.json").read_text())["parts"][part]["rows"]
    names = (name, *ALIASES.get(name, ())[:1])  # the second of an alias differs in its loss alone
    shares = {row["label"]: row["kept"] for row in rows if row["label"].split("(")[0] in names}
    if shares:
        return kept_share(shares, "Fashion-MNIST, 8 epochs, mean over seeds", n_epochs=8)
    kept = json.loads((ROOT / "benchmarks" / "results" / "kept.json").read_text())
    shares = {label: shares for label, shares in kept["kept"].items() if label.split("(")[0] == name}
    return kept_share(shares, f"Scikit-learn's {kept['task']}", n_epochs=kept["epochs"])


def _cell(text: str) -> str:
    """Return a paragraph that fits a cell of a table."""
    return re.sub(r"\s+", " ", inspect.cleandoc(text)).replace("|", "\\|")
