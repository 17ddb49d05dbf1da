"""The page's table of what `benchmarks.originals` found, and the reasons below it."""

from collections.abc import Mapping
from typing import Any

from benchmarks.originals.agreement import Compared
from benchmarks.originals.reasons import reason

MADE_UP = "made up"


def originals_table(study: Mapping[str, Any]) -> str:
    """Return a row for each thing compared, with the numbers of Fashion-MNIST where there are any."""
    lines = ["| method | compared | theirs | ours | | on made-up numbers |", "|---" * 6 + "|"]
    for original in study["originals"].values():
        where = f"[{original['repository']}](https://github.com/{original['repository']}) {original['commit']}"
        name = f"**{original['methods']}**, {where}"
        made_up = {what: agreement for data, what, _, _, agreement in original["rows"] if data == MADE_UP}
        for data, what, theirs, ours, agreement in original["rows"]:
            if data != MADE_UP:
                lines.append(f"| {name} | {what} | {theirs} | {ours} | {agreement} | {made_up.get(what, '')} |")
                name = ""
    return "\n".join(lines)


def reasons_list(study: Mapping[str, Any]) -> str:
    """Return why the two differ, for each line in which they do."""
    lines: dict[str, list[str]] = {}
    for name, original in study["originals"].items():
        for _, *one in original["rows"]:
            if why := reason(name, Compared(*one)):
                said = lines.setdefault(f"**{original['methods']}**, {{}}: {why}", [])
                said += [one[0]] if one[0] not in said else []
    return "\n".join(f"- {line.format('; '.join(whats))}" for line, whats in lines.items())
