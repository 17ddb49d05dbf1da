"""Hashes of everything a run depends on: a finished run is reused only if all of them still match.

Code counts by what it does: the syntax trees of the user's own files, without comments, docstrings, and calls of
`compare` itself, so that a script that asks for another seed need not train everything again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import json
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_dataselect.utils.version import __version__

N_ITEMS = 8


def digest(value: Any) -> str:
    """Return a short hash of settings; anything that is no JSON enters by its `repr`.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> str:
    """Return the versions of the packages that a run's numbers depend on."""
    return f"torch {torch.__version__}, lightning {pl.__version__}, {__version__}"


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return what differs between two fingerprints, in words.

    Example:
        >>> changes({"data": "a", "code of net.py": "b"}, {"data": "c", "code of net.py": "b"})
        ['data']
    """
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


# ---- code ------------------------------------------------------------------------------------------------------------


def code(origins: Iterable[Any]) -> dict[str, str]:
    """Return a hash for each of the user's own files that `origins` come from or import, however indirectly.

    Args:
        origins: Classes, functions, partial functions and modules. What is defined in no file, as in a notebook,
            enters by its bytecode.
    """
    files: dict[Path, str] = {}
    hashes: dict[str, str] = {}
    for origin in origins:
        origin, values = _unwrapped(origin)
        if values:
            name = f"arguments of {getattr(origin, '__qualname__', origin)}"
            hashes[name] = digest([hashes.get(name), values])
        path = _own_file(sys.modules.get(getattr(origin, "__module__", None) or ""))
        if path is not None:
            _follow(path, files)
        elif _is_homeless(origin):
            hashes[f"code of {origin.__qualname__}"] = digest(sorted(_bytecode(origin, set())))
    # two files of one name in different folders must not hide each other
    for path, hashed in sorted(files.items()):
        name = f"code of {path.name}"
        hashes[name] = digest([hashes[name], hashed]) if name in hashes else hashed
    return hashes


def _unwrapped(origin: Any) -> tuple[Any, list[str]]:
    """The function or class behind partial functions and methods, and the plain values that are bound to it."""
    values: list[str] = []
    while isinstance(origin, partial):
        values += [repr((origin.args, sorted(origin.keywords.items())))]
        origin = origin.func
    if isinstance(origin, types.MethodType):
        origin = origin.__func__
    for cell in getattr(origin, "__closure__", None) or ():
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if isinstance(held, str | int | float | bool | tuple | list | dict | None):
            values.append(repr(held))
    return origin, values


def _own_file(module: types.ModuleType | None) -> Path | None:
    """The file of a module that the user has written; None for a library's, and for this package's."""
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    # also those of another environment, as one that is layered on it sees them
    is_installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    is_library = is_installed or any(path.is_relative_to(folder) for folder in _library_folders())
    return None if is_library or not path.is_file() else path


def _library_folders() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], *site.getsitepackages()]
    own = [Path(__file__).parents[2]]
    return [Path(folder).resolve() for folder in [*folders, site.getusersitepackages()]] + own


def _follow(path: Path, files: dict[Path, str]) -> None:
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        try:
            tree = ast.parse(path.read_text())
        except (OSError, SyntaxError, ValueError):
            continue
        files[path] = digest(ast.dump(_Meaning().visit(tree)))
        for name in _imported(tree, _package_of(path)):
            found = sys.modules.get(name)
            file = _own_file(found) if found is not None else _file_of(name)
            if file is not None:
                waiting.append(file)


def _file_of(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return _own_file(types.SimpleNamespace(__file__=spec.origin)) if spec and spec.origin else None  # type: ignore[arg-type]


def _package_of(path: Path) -> str:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return getattr(module, "__package__", None) or ""
    return ""


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            try:
                base = importlib.util.resolve_name(relative, package) if node.level else relative
            except ImportError:
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class _Meaning(ast.NodeTransformer):
    """Leave out what cannot change a run: docstrings, and calls of `compare`."""

    def _without_docstring(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _without_docstring

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        return ast.Constant(None) if name == "compare" else self.generic_visit(node)


def _is_homeless(origin: Any) -> bool:
    module = sys.modules.get(getattr(origin, "__module__", None) or "")
    return getattr(module, "__name__", None) == "__main__" and isinstance(origin, type | types.FunctionType)


def _bytecode(origin: Any, seen: set[int]) -> Iterator[str]:
    if id(origin) in seen:
        return
    seen.add(id(origin))
    if isinstance(origin, type):
        for name, value in vars(origin).items():
            value = inspect.unwrap(getattr(value, "__func__", value)) if callable(value) else value
            if isinstance(value, types.FunctionType):
                yield from (f"{name}: {text}" for text in _bytecode(value, seen))
        for base in origin.__bases__:
            if _is_homeless(base):
                yield from _bytecode(base, seen)
    elif isinstance(origin, types.FunctionType):
        yield from _of_code(origin.__code__)
        yield repr((origin.__defaults__, origin.__kwdefaults__))
        for name in origin.__code__.co_names:
            used = origin.__globals__.get(name)
            if _is_homeless(used):
                yield from _bytecode(used, seen)
            elif isinstance(used, str | int | float | bool):
                yield f"{name} = {used!r}"


def _of_code(compiled: types.CodeType) -> Iterator[str]:
    yield repr((compiled.co_code, compiled.co_names))
    for constant in compiled.co_consts:
        yield from _of_code(constant) if isinstance(constant, types.CodeType) else [repr(constant)]


# ---- data ------------------------------------------------------------------------------------------------------------


def data(loaders: Any) -> str:
    """Return a hash of the length and of a few items of each data set that `loaders` read.

    An item that is another one each time, under the same seed, counts by its shape alone.

    Args:
        loaders: A DataLoader, or lists and dicts of some.
    """
    return digest([_of_dataset(getattr(loader, "dataset", None)) for loader in flat(loaders)])


def flat(loaders: Any) -> list[Any]:
    """Return the loaders of a list, a dict, or a single one."""
    if isinstance(loaders, Mapping):
        return [loader for inner in loaders.values() for loader in flat(inner)]
    if isinstance(loaders, Sequence):
        return [loader for inner in loaders for loader in flat(inner)]
    return [] if loaders is None else [loaders]


def _of_dataset(dataset: Any) -> Any:
    try:
        n = len(dataset)
    except TypeError:
        return type(dataset).__name__
    chosen = sorted({round(i * (n - 1) / max(1, N_ITEMS - 1)) for i in range(N_ITEMS)}) if n else []
    return [n, [_of_item(dataset, i) for i in chosen]]


def _of_item(dataset: Any, index: int) -> str:
    found = []
    for _ in range(2):
        with isolate_rng():
            pl.seed_everything(index, verbose=False)
            try:
                item = dataset[index]
            except Exception as error:  # a data set that is read otherwise, as by __getitems__ alone
                return type(error).__name__
        found.append(item)
    first, second = (digest(_content(item)) for item in found)
    return first if first == second else digest(_shape(found[0]))


def _content(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _content(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_content(inner) for inner in value]
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if hasattr(value, "tobytes") and hasattr(value, "size"):  # an array, or a PIL image
        array = np.asarray(value)
        return [str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
    return repr(value) if isinstance(value, str | bytes | int | float | bool | None) else type(value).__name__


def _shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _shape(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_shape(inner) for inner in value]
    return [type(value).__name__, tuple(getattr(value, "shape", ()))]
