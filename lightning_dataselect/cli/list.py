"""`lightning-dataselect list`: the methods, a line each."""

import json
from dataclasses import fields

from rich.table import Table

from lightning_dataselect.methods.registry import list_methods


def methods_table() -> Table:
    """Return name, year, kind, what each needs of a sample, and what it drops."""
    table = Table(header_style="bold", pad_edge=False)
    for title in ("method", "year", "kind", "needs", "drops"):
        table.add_column(title, no_wrap=title in ("method", "year"))
    for method in list_methods():
        table.add_row(method.name, str(method.year), method.kind, method.needs, method.drops)
    return table


def methods_json() -> str:
    """Return all that is known of each method, as JSON."""
    known = [
        {field.name: getattr(method, field.name) for field in fields(method) if field.name != "cls"}
        for method in list_methods()
    ]
    return json.dumps(known, indent=1, ensure_ascii=False)
