"""Read in the source of a step what may follow from a question, or from a number that is taken out of torch."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Collection, Sequence
from typing import TypeAlias

Question: TypeAlias = ast.If | ast.IfExp | ast.While | ast.Assert


@functools.lru_cache(maxsize=256)
def changes_something(file: str, line: int) -> bool | None:
    """Tell if a step may compute something else by the answer to a question in a line of a file.

    A check that raises, something that is printed or logged, and what is remembered in an attribute change nothing.

    Returns:
        None if no ``if``, ``while`` or ``assert`` asks there, or nothing shows.
    """
    asked = [node for node in _questions(file) if line in _lines(node.test)]
    return any(not _changes_nothing(node) for node in asked) if asked else None


@functools.lru_cache(maxsize=256)
def may_decide(file: str, line: int) -> bool | None:
    """Tell if a step may compute something else by a number that it takes out of torch in a line of a file.

    So it may if it asks a question of it there, or of a variable that it makes of it in the same function.

    Returns:
        None if there is no source.
    """
    changes = changes_something(file, line)
    if changes is not None or not _nodes(file):
        return changes
    around = [node for node in _functions(file) if line in _lines(node)]
    own = _lines(max(around, key=lambda node: node.lineno)) if around else range(0)
    assignments = [node for node in _assignments(file) if node.lineno in own]
    made = {name for node in assignments if line in _lines(node) for name in _names(node, ast.Store)}
    while more := {n for node in assignments if made & _names(node, ast.Load) for n in _names(node, ast.Store)} - made:
        made |= more
    questions = [node for node in _questions(file) if node.test.lineno in own and made & _names(node.test, ast.Load)]
    return any(not _changes_nothing(node) for node in questions)


@functools.lru_cache(maxsize=16)
def _nodes(file: str) -> Collection[ast.AST]:
    try:
        return list(ast.walk(ast.parse("".join(linecache.getlines(file)))))[1:]
    except (SyntaxError, ValueError):  # a cell of a notebook with a magic command, say
        return ()


def _questions(file: str) -> Sequence[Question]:
    return [node for node in _nodes(file) if isinstance(node, Question)]


def _assignments(file: str) -> Sequence[ast.stmt | ast.expr]:
    assigning = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr
    return [node for node in _nodes(file) if isinstance(node, assigning)]


def _functions(file: str) -> Sequence[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    return [node for node in _nodes(file) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]


def _lines(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _names(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """Return the variables, and the names of attributes, that are written or read in a part of the source."""
    parts = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)]
    return {part.id if isinstance(part, ast.Name) else part.attr for part in parts if isinstance(part.ctx, context)}


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
