"""List the arguments that a class takes, find the one that a misspelt name means, and read calls written as text."""

from __future__ import annotations

import ast
import difflib
import inspect
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from lightning_dataselect.utils.errors import InvalidArgumentError, UnexpectedArgumentError

_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 80
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def accepted_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Find the arguments that a constructor takes, up the base classes as long as they are handed on by ``**kwargs``.

    Args:
        cls: A callback's class. Arguments in its set ``unused`` are left out where a base class takes them.

    Returns:
        Each with its default, by name, those of the class itself first.

    Example:
        >>> class Base:
        ...     def __init__(self, *, seed=0, balance=None): ...
        >>> class Method(Base):
        ...     unused = {"balance"}
        ...     def __init__(self, *, alpha=0.5, **common): ...
        >>> list(accepted_arguments(Method))
        ['alpha', 'seed']
    """
    unused: Set[str] = getattr(cls, "unused", frozenset())
    accepted: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind in _NAMED and (base is cls or parameter.name not in unused):
                accepted.setdefault(parameter.name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return accepted


def call_text(cls: type, args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Write down the call of a constructor with every argument that it takes, given or by default.

    Example:
        >>> class Method:
        ...     def __init__(self, *shares, seed=0, mode="fresh"): ...
        >>> call_text(Method, (0.5, 0.25), {"mode": "walk"})
        "Method(0.5, 0.25, seed=0, mode='walk')"
    """
    accepted = accepted_arguments(cls)
    values = {name: p.default for name, p in accepted.items() if p.default is not p.empty} | dict(kwargs)
    named = [f"{name}={_text(values[name])}" for name in dict.fromkeys([*accepted, *kwargs]) if name in values]
    return f"{cls.__name__}({', '.join([*map(_text, args), *named])})"


def _text(value: object) -> str:
    shape = getattr(value, "shape", None)  # numbers by the million are no text
    return _SHORT.repr(value) if shape is None else f"<{type(value).__name__} of shape {tuple(shape)}>"


def nearest(name: str, known: Iterable[str], n: int = 1) -> list[str]:
    """Return the names of ``known`` that were probably meant by ``name``, the nearest first, at most ``n``.

    Example:
        >>> nearest("infobach", ["InfoBatch", "UCB"]), nearest("zzz", ["InfoBatch", "UCB"])
        (['InfoBatch'], [])
    """
    folded = {candidate.lower(): candidate for candidate in known}
    return [folded[key] for key in difflib.get_close_matches(name.lower(), folded, n)]


def did_you_mean(name: str, known: Iterable[str], n: int = 1) -> str:
    """Return the question that follows a message about an unknown ``name``; empty if no name of ``known`` is near.

    Example:
        >>> did_you_mean("prune_ration", ["seed", "prune_ratio"])
        ' Did you mean prune_ratio?'
    """
    close = nearest(name, known, n)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def refuse_unknown(cls: type, unknown: Iterable[str]) -> None:
    """Refuse keyword arguments that no constructor of a class has taken.

    Args:
        cls: The class that was called.
        unknown: Names of the arguments that are left over.

    Raises:
        UnexpectedArgumentError: If there are any; the message names the class and the nearest right argument.

    Example:
        >>> from lightning_dataselect import InfoBatch
        >>> InfoBatch(prune_ration=0.5)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnexpectedArgumentError: InfoBatch takes no argument 'prune_ration'. Did ...
    """
    for name in unknown:
        known = list(accepted_arguments(cls))
        raise UnexpectedArgumentError(
            f"{cls.__name__} takes no argument {name!r}.{_which_share(did_you_mean(name, known))} It takes"
            f" {', '.join(known)}."
        )


def _which_share(hint: str) -> str:
    """Say what prune_ratio is a share of: other packages take the share that is kept."""
    return hint.replace("prune_ratio?", "prune_ratio, the share that is dropped?")


def refuse_unnamed(cls: type, args: Sequence[object]) -> None:
    """Refuse arguments without a name, where a constructor takes none.

    Args:
        cls: The class that is called.
        args: The arguments that were given by position.

    Raises:
        UnexpectedArgumentError: If there are any; the message writes out the call with the argument named.

    Example:
        >>> from lightning_dataselect import InfoBatch
        >>> InfoBatch(0.5)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnexpectedArgumentError: InfoBatch takes its arguments by name: write ...
    """
    by_place = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    if not args or any(p.kind in by_place for p in inspect.signature(cls).parameters.values()):
        return
    known = list(accepted_arguments(cls))
    raise UnexpectedArgumentError(
        f"{cls.__name__} takes its arguments by name: write {cls.__name__}({known[0]}={_text(args[0])}), if that is"
        f" what is meant. It takes {', '.join(known)}."
    )


def read_call(argument: str, text: str) -> tuple[str, dict[str, Any]]:
    """Read a name and its arguments.

    Args:
        argument: Name of the argument that holds the text, for messages.
        text: Such as ``"uniform"`` or ``"stratified(cutoff=0.3)"``.

    Raises:
        InvalidArgumentError: If it is no name, and no call with plain values by name.

    Example:
        >>> read_call("sampler", "stratified(cutoff=0.3)")
        ('stratified', {'cutoff': 0.3})
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return call.id, {}
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            return call.func.id, {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        pass
    raise InvalidArgumentError(
        f"{argument}={text!r} cannot be read: give a name, or a name with plain values by name in brackets, as in"
        " 'stratified(cutoff=0.3)'."
    )
