"""Tell where a text stops being YAML, and what to write there."""

from __future__ import annotations

import yaml


def why_not_yaml(error: yaml.YAMLError) -> str:
    r"""Return the place and the reason in one sentence, without its full stop.

    Args:
        error: As either of PyYAML's loaders raised it; the one in C does not say which character it has found.

    Example:
        >>> try:
        ...     yaml.safe_load("model:\n\tclass_path: my.Model")
        ... except yaml.YAMLError as error:
        ...     why_not_yaml(error)
        'line 2, column 1: a tab cannot stand there, so indent by spaces'
    """
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    problem = error.problem or ""
    if "cannot start any token" not in problem:
        return " ".join(f"{place}: {problem} {error.context or ''}".split())
    if "'\\t'" in problem:
        return f"{place}: a tab cannot stand there, so indent by spaces"
    return f"{place}: {problem}; if it is a tab, indent by spaces, and if it begins a text, put that in quotes"
