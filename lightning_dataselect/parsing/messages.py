"""Tell what jsonargparse found wrong as one plain sentence."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator

from lightning_dataselect.methods.registry import get
from lightning_dataselect.utils.arguments import accepted_arguments, did_you_mean
from lightning_dataselect.utils.errors import UnknownMethodError

_KEY = re.compile(r'Parser key "([^"]+)"|--(\S+\.help):')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_SUBCLASS = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
_NO_OPTION = re.compile(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)")
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
    text = _shortened(root)
    if unknown := _NO_CLASS.search(root):
        return _no_class(argument, unknown[1])
    if other := _NO_SUBCLASS.search(root):
        return f"{argument}: {other[1]} is no subclass of {other[2]}."
    if (option := _NO_OPTION.search(root)) and class_path:
        return _no_argument(class_path, option[1], keys)
    if class_path and isinstance(chain[-1], ImportError | AttributeError):
        return f"{argument}: {class_path} cannot be imported: {text}"
    return f"{argument}: {text}" if argument and argument[2:] not in text else text


def causes(error: BaseException | None) -> Iterator[Exception]:
    """Yield an error and those that it was raised from, the outermost first."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__


def _shortened(report: str) -> str:
    """A report without what it says of the types that were not meant, as one sentence."""
    lines = [line.strip() for line in report.splitlines()]
    text = " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(_BOILERPLATE))
    text = re.sub(r"Expected an? (?:<class '([^']+)'>|typing\.)?", lambda found: f"expected {found[1] or ''}", text)
    text = re.sub(r"Literal\[(.+?)\]", r"one of \1", text).replace(". Got value:", ", got")
    return text if text.endswith(".") else f"{text}."


def _no_class(argument: str, name: str) -> str:
    if argument not in ("--select", "--trainer.callbacks", "--select.help"):
        return f"{argument}: {name!r} names no class: give its import path, as in my_package.{name}."
    try:
        found = get(name).name
    except UnknownMethodError as error:
        return str(error)
    return f"{argument} {name}: the method is spelt {found}."


def _no_argument(class_path: str, option: str, keys: list[str]) -> str:
    cls = pkgutil.resolve_name(class_path)  # the parser has imported it already
    hint = did_you_mean(option, accepted_arguments(cls))
    name = cls.__name__
    return f"{name} takes no argument {option!r}.{hint} The command's --{keys[0]}.help {name} tells which there are."
