"""Tell a config, a demo and a script apart in `compare FILE`, and say what a script that is not a task lacks."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

from lightning_dataselect.comparison.tasks.config_task import load_task
from lightning_dataselect.comparison.tasks.made_task import MadeTask
from lightning_dataselect.comparison.tasks.task import Task
from lightning_dataselect.utils.errors import UserInputError, one_line

_MAKERS = ("make_module", "make_data")


def task_of(name: str, *, epochs: int | None, data_dir: str | None) -> Task:
    """Return the task that a file stands for.

    Args:
        name: A LightningCLI config, the name of a demo, or a script with `make_module` and `make_data`.
        epochs: Of a full run; a script needs it.
        data_dir: For a config, see `load_task`.

    Raises:
        UserInputError: If it is none of these; the message says what to write.
    """
    if not name.endswith(".py"):
        return load_task(name, epochs=epochs, data_dir=data_dir)
    path = Path(name)
    try:
        tree = ast.parse(path.read_text())
    except (OSError, SyntaxError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserInputError(
            f"{name} cannot be read ({reason}): give a script that runs with `python {name}` and defines"
            " make_module() and make_data(), or a LightningCLI config."
        ) from error
    calls = {_called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "LightningCLI" in calls and not functions.issuperset(_MAKERS):
        raise UserInputError(
            f"{name} is a LightningCLI script, whose config is the task: write it with `python {name} fit"
            f" --print_config > exp.yaml` and your own arguments, then `lightning-dataselect compare exp.yaml`."
        )
    if not functions.issuperset(_MAKERS):
        raise UserInputError(_what_to_write(name, tree))
    if _trains_when_imported(tree):
        raise UserInputError(f"{name} trains as soon as it is imported: put that under `if __name__ == '__main__':`.")
    if epochs is None or epochs < 1:
        raise UserInputError(f"How many epochs is a full run? {name} needs --epochs N, at least 1.")
    if data_dir is not None:
        raise UserInputError(
            f"--data-dir goes to the datamodule of a config: let make_data in {name} say where its data are."
        )
    module = _imported(path)
    return MadeTask(module.make_module, module.make_data, getattr(module, "TRAINER", {}), epochs)


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def _what_to_write(name: str, tree: ast.Module) -> str:
    module = _subclass(tree, "LightningModule") or "MyModule"
    data = _subclass(tree, "LightningDataModule")
    made = f"def make_data(): return {data or 'MyDataModule'}(...)" + ("" if data else " (or its loaders)")
    if data and _subclass(tree, "LightningModule"):
        stem = Path(name).stem
        return (
            f"{name} is no config, and makes no task, but holds all that a config needs: write one with"
            f" `lightning-dataselect init --model {stem}.{module} --data {stem}.{data}`, then"
            f" `lightning-dataselect compare exp.yaml`. Or let it have `def make_module(): return {module}(...)` and"
            f" `{made}`, and take `lightning-dataselect compare {name} --epochs 30`."
        )
    return (
        f"{name} is no config, and makes no task: let it have `def make_module(): return {module}(...)` and `{made}`,"
        f" and take `lightning-dataselect compare {name} --epochs 30`; or call, in Python,"
        " `lightning_dataselect.compare(make_module, make_data, max_epochs=30)`."
    )


def _subclass(tree: ast.Module, base: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {getattr(each, "id", getattr(each, "attr", "")) for each in node.bases}
            if base in bases:
                return node.name
    return None


def _trains_when_imported(tree: ast.Module) -> bool:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        if any(_called(call) in ("fit", "compare") for call in ast.walk(node) if isinstance(call, ast.Call)):
            return True
    return False


def _imported(path: Path) -> Any:
    """The script as a module of its own name, found by the processes of --jobs, too."""
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserInputError(f"{path} cannot be imported: {one_line(error)}") from error
    return module
