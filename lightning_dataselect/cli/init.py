"""`lightning-dataselect init`: write a config for a module and a datamodule that can be imported."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_dataselect.utils.arguments import accepted_arguments, did_you_mean
from lightning_dataselect.utils.errors import UserInputError, one_line

_BASES = {"model": "LightningModule", "data": "LightningDataModule"}


def write_config(arguments: argparse.Namespace) -> None:
    """Write the config, and print what to do with it.

    Args:
        arguments: As the command line's parser gives them.

    Raises:
        UserInputError: If a class cannot be imported or is none of Lightning's, if nothing says what to train on, or
            the file cannot be written.
    """
    out = Path(arguments.out)
    _check(arguments, out)
    paths = _paths(arguments)
    classes = {section: _imported(section, path) for section, path in paths.items()}
    if "data" not in paths and not _has_loader(classes["model"]):
        raise UserInputError(
            f"--data is missing, and {paths['model']} has no train_dataloader of its own. Give the import path of a"
            " LightningDataModule, as in --data my.Data."
        )
    sections = [section_text(section, paths[section], cls) for section, cls in classes.items()]
    try:
        out.write_text("".join(sections) + f"trainer:\n  max_epochs: {arguments.max_epochs}\n", encoding="utf-8")
    except OSError as error:
        raise UserInputError(f"--out {out} cannot be written: {error.strerror}.") from error
    print(f"{out} is written.")
    if missing := [f"{section}.{name}" for section, cls in classes.items() for name in _without_default(cls)]:
        print(f"Fill in what has no default: {', '.join(missing)}.")
    print(f"Train:    lightning-dataselect fit --config {out} --select InfoBatch")
    print(f"Compare:  lightning-dataselect compare {out}")


def section_text(section: str, path: str, cls: type) -> str:
    """Return a section of the config, as YAML: the class and its arguments with their defaults.

    Defaults that YAML has no word for, such as a function, are left to the class.

    Args:
        section: Its name.
        path: Import path of the class.
        cls: The class.

    Example:
        >>> class Model:
        ...     def __init__(self, n_features: int, lr: float = 1e-3, act=print): ...
        >>> print(section_text("model", "my.Model", Model), end="")
        model:
          class_path: my.Model
          init_args:
            n_features:  # required: int
            lr: 0.001
    """
    lines = [f"    {line}" for line in _argument_lines(cls)]
    head = [f"{section}:", f"  class_path: {path}", *(["  init_args:"] if lines else [])]
    return "\n".join([*head, *lines]) + "\n"


def _argument_lines(cls: type) -> Iterator[str]:
    import yaml

    for name, parameter in accepted_arguments(cls).items():
        if parameter.default is not parameter.empty:
            try:
                yield from yaml.safe_dump({name: parameter.default}).splitlines()
            except yaml.representer.RepresenterError:
                continue
        elif parameter.annotation is parameter.empty:
            yield f"{name}:  # required"
        else:
            yield f"{name}:  # required: {inspect.formatannotation(parameter.annotation).strip(chr(39))}"


def _paths(arguments: argparse.Namespace) -> dict[str, str]:
    return {section: path for section in _BASES if (path := getattr(arguments, section)) is not None}


def _has_loader(model: type) -> bool:
    import lightning.pytorch as pl

    return getattr(model, "train_dataloader", None) is not pl.LightningModule.train_dataloader


def _without_default(cls: type) -> list[str]:
    return [name for name, parameter in accepted_arguments(cls).items() if parameter.default is parameter.empty]


def _check(arguments: argparse.Namespace, out: Path) -> None:
    """Refuse what can be told before the user's classes, and torch with them, are imported."""
    for section, path in _paths(arguments).items():
        if "." not in path or not all(part.isidentifier() for part in path.split(".")):
            raise UserInputError(f"--{section} {path}: give the import path of a class, as in my.{section.title()}.")
    if arguments.max_epochs < 1:
        raise UserInputError(f"--max-epochs {arguments.max_epochs} is too small: give at least 1.")
    if out.is_dir():
        raise UserInputError(f"--out {out} is a folder: give a file.")
    if out.exists() and not arguments.force:
        raise UserInputError(f"{out} exists: give --force to overwrite it, or another file with --out.")


def _imported(section: str, path: str) -> type:
    module_path, _, name = path.rpartition(".")
    try:
        module = import_module(module_path)
    except Exception as error:
        reason = str(error) if isinstance(error, ImportError) else one_line(error)
        raise UserInputError(f"--{section} {path} cannot be imported: {reason.rstrip('.')}.") from error
    import lightning.pytorch as pl

    base = getattr(pl, _BASES[section])
    cls: Any = getattr(module, name, None)
    if cls is None:
        fitting = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise UserInputError(f"--{section} {path}: {module_path} has no {name}.{did_you_mean(name, fitting)}")
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UserInputError(f"--{section} {path} is no subclass of lightning's {base.__name__}.")
    return cls
