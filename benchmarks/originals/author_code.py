"""Definitions out of a clone of an author's repository, without running the script around them."""

import ast
import contextlib
import functools
import importlib
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from torch.utils.data import dataloader

from lightning_dataselect.utils.errors import UserInputError


def commit(clone: Path) -> str:
    """Return the short commit that a clone is at."""
    said = subprocess.run(["git", "-C", str(clone), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True)
    if said.returncode != 0:
        raise UserInputError(f"{clone} is no clone of a repository: {said.stderr.strip()}")
    return said.stdout.strip()


def module(clone: Path, name: str, absent: Sequence[str] = ()) -> ModuleType:
    """Import a module of a clone, and undo what that does to the interpreter.

    Args:
        clone: Folder that is put on the path meanwhile.
        name: Of the module.
        absent: Modules that it imports and does not need for what is compared; they are replaced.
    """
    known, path, advance = dict(sys.modules), list(sys.path), dataloader._BaseDataLoaderIter.__next__
    sys.path.insert(0, str(clone))
    sys.modules.update({each: MagicMock() for each in absent})
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path
        for each in sys.modules.keys() - known.keys():
            if each in absent or _is_of(sys.modules[each], clone):
                del sys.modules[each]
        dataloader._BaseDataLoaderIter.__next__ = advance  # type: ignore[method-assign]


def _is_of(loaded: ModuleType, clone: Path) -> bool:
    file = getattr(loaded, "__file__", None)
    return isinstance(file, str) and Path(file).resolve().is_relative_to(clone.resolve())


def definitions(script: Path, *names: str, **known: Any) -> SimpleNamespace:
    """Return functions and classes of a script by running their definitions alone.

    Args:
        script: The file.
        names: Of the functions and classes.
        known: The global names that they use.
    """
    body = [node for node in _tree(script).body if getattr(node, "name", None) in names]
    _all_found(names, [getattr(node, "name", "") for node in body], script)
    space = {"__name__": script.stem, **known}
    exec(compile(ast.Module(body, []), str(script), "exec"), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def run_statements(script: Path, function: str, *begins: str, **known: Any) -> dict[str, Any]:
    """Run single statements out of a function of a script, in the order given, and return all names afterwards.

    Args:
        script: The file.
        function: Whose body holds them, at any depth.
        begins: How each begins, as `ast.unparse` writes it; of several the first is run.
        known: The names that they use.
    """
    body = next(node for node in ast.walk(_tree(script)) if getattr(node, "name", None) == function)
    written = [(ast.unparse(node), node) for node in ast.walk(body) if isinstance(node, ast.stmt)]
    found = [next((node for text, node in written if text.startswith(begin)), None) for begin in begins]
    _all_found(begins, [begin for begin, node in zip(begins, found, strict=True) if node is not None], script)
    statements = [node for node in found if node is not None]
    space = dict(known)
    exec(compile(ast.Module(statements, []), str(script), "exec"), space)
    return space


@functools.cache
def _tree(script: Path) -> ast.Module:
    if not script.exists():
        raise UserInputError(f"{script} is not there: is the folder a clone of the repository that its flag names?")
    return ast.parse(script.read_text())


def _all_found(wanted: Sequence[str], found: Sequence[str], script: Path) -> None:
    if missing := [each for each in wanted if each not in found]:
        raise UserInputError(f"{script} has no {', '.join(map(repr, missing))}: another version was compared.")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what the authors' code prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
