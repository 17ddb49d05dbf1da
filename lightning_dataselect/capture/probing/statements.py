"""Read in the source of a step what follows from a question."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Sequence


def changes_something(file: str, line: int) -> bool | None:
    """Tell if a step may compute something else by the answer to a question in a line of a file.

    A check that raises, something that is printed or logged, and what is remembered in an attribute change nothing.

    Returns:
        None if no ``if``, ``while`` or ``assert`` asks there, or nothing shows.
    """
    found = [node for node in _questions_in(file) if _span(node).start <= line < _span(node).stop]
    if not found:
        return None
    return not all(_changes_nothing(node) for node in found)


@functools.lru_cache(maxsize=16)
def _questions_in(file: str) -> Sequence[ast.AST]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):  # a cell of a notebook with a magic command, say
        return ()
    return [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert)]


def _span(node: ast.AST) -> range:
    """Return the lines in which something is asked."""
    assert isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert)
    return range(node.test.lineno, (node.test.end_lineno or node.test.lineno) + 1)


def _changes_nothing(node: ast.AST) -> bool:
    """Tell if a statement leaves the variables of a function as they are, and returns nothing.

    Example:
        >>> source = ["if a: print(b)", "assert a > 1", "if a: raise ValueError", "if a: b = 1", "if a: self.b = 1"]
        >>> [_changes_nothing(ast.parse(line).body[0]) for line in source]
        [True, True, True, False, True]
    """
    if isinstance(node, ast.If | ast.While):
        return all(map(_changes_nothing, (*node.body, *node.orelse)))
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(target, ast.Attribute) for target in targets)
    if isinstance(node, ast.Return):
        return node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
    return isinstance(node, ast.Assert | ast.Raise | ast.Expr | ast.Pass | ast.Continue)
