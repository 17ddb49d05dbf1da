"""`lightning-dataselect list`: the methods, the scores and the samplers, a line each."""

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from rich.table import Table

from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.methods.parts import SAMPLERS, SCORES, PartInfo
from lightning_dataselect.methods.registry import list_methods


def tables() -> list[Table]:
    """Return one table of the methods, one of the scores and one of the samplers."""
    methods = [(each.name, str(each.year), each.kind, each.needs, each.drops) for each in list_methods()]
    parts = [
        [(each.name, each.what, each.arguments, each.needs, each.source) for each in known.values()]
        for known in (SCORES, SAMPLERS)
    ]
    return [
        _table(("method", "year", "kind", "needs", "drops"), methods),
        _table(("score", "higher for", "takes", "needs", "source"), parts[0]),
        _table(("sampler", "keeps", "takes", "needs besides", "source"), parts[1]),
    ]


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(header_style="bold", pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, no_wrap=place == 0 or title == "year")
    for row in rows:
        table.add_row(*row)
    return table


def methods_json() -> str:
    """Return all that is known of each method, score and sampler, as JSON."""
    known: dict[str, Iterable[MethodInfo | PartInfo]] = {
        "methods": list_methods(),
        "scores": SCORES.values(),
        "samplers": SAMPLERS.values(),
    }
    facts = {name: [_facts(each) for each in infos] for name, infos in known.items()}
    return json.dumps(facts, indent=1, ensure_ascii=False)


def _facts(info: MethodInfo | PartInfo) -> dict[str, Any]:
    return {field.name: getattr(info, field.name) for field in fields(info)}
