"""Tell what jsonargparse found wrong as one plain sentence."""

from __future__ import annotations

import pkgutil
import re
import sys
from collections.abc import Iterator

import lightning.pytorch as pl
import torch
import yaml

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.registry import check_spelling
from lightning_dataselect.parsing.broken_yaml import why_not_yaml
from lightning_dataselect.utils.arguments import accepted_arguments, did_you_mean, hint_at_argument
from lightning_dataselect.utils.errors import UnknownMethodError

_KEY = re.compile(r'Parser key "([^"]+)"|--(\S+\.help):')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_SUBCLASS = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
_NO_OPTION = re.compile(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)")
_NO_SUCH_OPTION = re.compile(r"nrecognized arguments: (--[^\s=]+)|does not accept option '([^']+)'")
_NO_OPTION_AT_ALL = re.compile(r"nrecognized arguments: ([^\s-]\S*)")
_MISSING = re.compile(r"arguments are required: (?:(?:fit|validate|test|predict)\.)?(.+)")
_OPTIONS = [
    *(f"--{name}" for name in ("config", "model", "data", "trainer", "select", "optimizer", "lr_scheduler")),
    *("--ckpt_path", "--seed_everything", "--print_config", "--help"),
    *(f"--trainer.{name}" for name in accepted_arguments(pl.Trainer)),
]
_UNION = re.compile(r"Subtypes: \[(.+)\]")
_PLAIN_TYPE = re.compile(r"Expected a <class '(\w+)'>")
_SHORT_NAMES: dict[str, list[str]] = {
    "--trainer.callbacks": [*CATALOG, *pl.callbacks.__all__],
    "--optimizer": [cls.__name__ for cls in torch.optim.Optimizer.__subclasses__()],
    "--lr_scheduler": [cls.__name__ for cls in torch.optim.lr_scheduler.LRScheduler.__subclasses__()],
}
_BASES = ("DataSelector", "LightningModule", "LightningDataModule", "Callback")
_BOILERPLATE = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")


def in_plain_words(error: Exception) -> str:
    """Return one sentence for what jsonargparse reports over a screen.

    A type hint may be a union, and the report then tells of every member why it does not fit. What was meant is the
    first: the chain of causes leads there, past the arguments on the way.

    Args:
        error: As the parser raised it.

    Example:
        >>> in_plain_words(ValueError("Expected a <class 'int'>. Got value: x"))
        'expected int, got x.'
    """
    chain = list(causes(error))
    if broken := next((link for link in chain if isinstance(link, yaml.YAMLError)), None):
        return f"--config is not YAML: {why_not_yaml(broken)}."
    keys, class_path = [], ""
    for link in chain:
        first = str(link).strip().split("\n")[0]
        found, problem = _KEY.match(first), _CLASS.match(first)
        key = found and (found[1] or found[2])
        if key and key not in keys:
            keys.append(key)
        class_path = problem[1] if problem else class_path
    argument = "--" + ".".join(keys) if keys else ""
    root = str(chain[-1] if keys else chain[0])
    text = _shortened(_with_every_type(root, chain))
    if stray := _NO_SUCH_OPTION.search(root):
        option = stray[1] or f"--{stray[2]}"
        return f"There is no option {option}.{did_you_mean(option, _OPTIONS)}"
    if stray := _NO_OPTION_AT_ALL.search(root):
        return f"{stray[1]} stands alone, without an option. If it is a config, give --config {stray[1]}."
    if missing := _MISSING.search(root):
        way_out = " Give --config exp.yaml, or --model my.Model --data my.Data." if missing[1] == "model" else ""
        names = [f"{argument}.{name}" if argument else f"--{name}" for name in missing[1].split(", ")]
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing.{way_out}"
    if root.startswith("Unexpected config"):
        return "--config: a config holds sections such as model, data, trainer and select, but this one does not."
    if unknown := _NO_CLASS.search(root):
        return _no_class(argument, unknown[1])
    if other := _NO_SUBCLASS.search(root):
        return f"{argument}: {other[1]} is no subclass of {other[2]}."
    if (option := _NO_OPTION.search(root)) and option[1] == "class_path":
        return f"{argument}: what a class takes stands under its init_args, indented, not beside its class_path."
    if option and class_path.rpartition(".")[2] in _BASES:
        return f"{argument}: name the class under class_path, and what it takes under init_args."
    if option and class_path:
        return _no_argument(class_path, option[1], keys)
    if class_path and isinstance(chain[-1], ImportError | AttributeError):
        hint = _nearest_in_module(class_path)
        if hint and hint in text:  # a module's own words
            text, hint = text.removesuffix("."), ""
        return f"{argument}: {class_path} cannot be imported: {text}{hint}"
    return f"{argument}: {text}" if argument and argument[2:] not in text else text.removeprefix("argument ")


def causes(error: BaseException | None) -> Iterator[Exception]:
    """Yield an error and those that it was raised from, the outermost first."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__


def _with_every_type(root: str, chain: list[Exception]) -> str:
    """Name every type of a union such as int | float in the report on its first one."""
    unions = [found[1] for link in chain if (found := _UNION.search(str(link)))]
    if not unions or not (expected := _PLAIN_TYPE.match(root)):
        return root
    names = [name for name in re.findall(r"<class '(\w+)'>", unions[-1]) if name != "NoneType"]
    return root.replace(expected[0], f"Expected a {' or '.join(names)}") if expected[1] in names else root


def _shortened(report: str) -> str:
    """Cut a report down to one sentence, without the types that were not meant."""
    lines = [line.strip() for line in report.splitlines()]
    text = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(_BOILERPLATE))
    text = re.sub(r"Expected an? (?:<class '([^']+)'>|typing\.)?", lambda found: f"expected {found[1] or ''}", text)
    text = re.sub(r"Literal\[(.+?)\]", r"one of \1", text).replace(". Got value:", ", got")
    return text if text.endswith(".") else f"{text}."


def _no_class(argument: str, name: str) -> str:
    if argument in ("--select", "--select.help"):
        try:
            check_spelling(argument, name)
        except UnknownMethodError as error:
            return str(error)
    hint = did_you_mean(name, _SHORT_NAMES.get(argument, ()), n=2)
    return f"{argument}: {name!r} names no class.{hint} A class of your own goes by its import path, as in my.{name}."


def _no_argument(class_path: str, option: str, keys: list[str]) -> str:
    cls = pkgutil.resolve_name(class_path)  # the parser has imported it already
    hint = hint_at_argument(cls, option)
    name = cls.__name__
    return f"{name} takes no argument {option!r}.{hint} --{keys[0]}.help {name} lists them."


def _nearest_in_module(class_path: str) -> str:
    module, _, name = class_path.rpartition(".")
    return did_you_mean(name, dir(sys.modules.get(module)) if module in sys.modules else ())
