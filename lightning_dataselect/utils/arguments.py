"""List the arguments that a class takes, find the one that a misspelt name means, and read calls written as text."""

from __future__ import annotations

import ast
import difflib
import inspect
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Number
from typing import Any

from lightning_dataselect.utils.errors import InvalidArgumentError, UnexpectedArgumentError
from lightning_dataselect.utils.other_words import OTHER_WORDS, SHARE, WHAT_IT_SAYS

_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 80
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def accepted_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Find the arguments that a constructor takes, up the base classes as long as they are handed on by ``**kwargs``.

    Args:
        cls: A callback's class. Arguments in its set ``unused`` are left out where a base class takes them, and those
            that its ``without_effect`` names are left out.

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
    idle = arguments_without_effect(cls)
    return {name: parameter for name, parameter in _declared_arguments(cls).items() if name not in idle}


def _declared_arguments(cls: type) -> dict[str, inspect.Parameter]:
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


def arguments_without_effect(cls: type) -> Mapping[str, str]:
    """Return why arguments that a constructor takes have no effect for a class, by name.

    Example:
        >>> from lightning_dataselect import UCB
        >>> list(arguments_without_effect(UCB))
        ['logged_loss', 'history_size']
    """
    named: Mapping[str, str] = getattr(cls, "without_effect", dict)()
    return {name: why for name, why in named.items() if name not in getattr(cls, "unused", ())}


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
    told = dict.fromkeys([*accepted, *(name for name in kwargs if name not in arguments_without_effect(cls))])
    named = [f"{name}={short_text(values[name])}" for name in told if name in values]
    return f"{cls.__name__}({', '.join([*map(short_text, args), *named])})"


def short_text(value: object) -> str:
    """Return the repr of a value on one line, or what stands for it where that would be long.

    Example:
        >>> short_text(0.5), short_text([0] * 9)
        ('0.5', '[0, 0, 0, 0, 0, 0, ...]')
    """
    shape = getattr(value, "shape", ())  # numbers by the million are no text
    if shape != ():
        return f"<{type(value).__name__} of shape {tuple(shape)}>"
    text = _SHORT.repr(value)
    return text if "\n" not in text else f"{type(value).__name__}(...)"  # as of a module, layer by layer


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


def hint_at_argument(cls: type, name: str) -> str:
    """Return what to say of an argument that a class does not take: which of its own is meant.

    Args:
        cls: The class. In ``other_words`` it may say what its arguments are called elsewhere, as `OTHER_WORDS` does for
            all classes.
        name: Of the argument.

    Returns:
        A sentence with a space before it; empty where none is near.

    Example:
        >>> from lightning_dataselect import DBPD, SeTa
        >>> hint_at_argument(SeTa, "num_group"), hint_at_argument(DBPD, "ratio")
        (' Did you mean n_groups?', ' Did you mean threshold, by which DBPD chooses?')
        >>> hint_at_argument(SeTa, "epochs")
        ' How long a fit is the Trainer says: Trainer(max_epochs=...).'
    """
    if why := arguments_without_effect(cls).get(name):
        return f" It would change nothing, as {why}"
    accepted = accepted_arguments(cls)
    meant = _in_other_words(cls, name.lower().replace("-", "_"), accepted)
    if meant.endswith("."):
        return f" {meant}"
    meant = meant or ", ".join(nearest(name, accepted))
    return f" Did you mean {_explained(meant)}?" if meant else ""


def _in_other_words(cls: type, word: str, accepted: Mapping[str, object]) -> str:
    for words in (*(vars(base).get("other_words", {}) for base in cls.__mro__), OTHER_WORDS):
        meant = str(words.get(word, ""))
        if meant == SHARE:
            shares = dict.fromkeys(("batch_ratio", "prune_ratio", getattr(cls, "chosen_by", "")))
            means = f"by which {cls.__name__} chooses"
            meant = ", or ".join(f"{name}, {WHAT_IT_SAYS.get(name, means)}" for name in shares if name in accepted)
        if meant.endswith(".") or meant.partition(",")[0] in accepted:
            return meant
    return ""


def _explained(argument: str) -> str:
    return f"{argument}, {WHAT_IT_SAYS[argument]}" if argument in WHAT_IT_SAYS else argument


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
            f"{cls.__name__} takes no argument {name!r}.{hint_at_argument(cls, name)} It takes {', '.join(known)}."
        )


def refuse_without_effect(cls: type, given: Mapping[str, object]) -> None:
    """Refuse keyword arguments that a class takes, but that cannot change anything for it.

    A value that equals the default is let pass: tools that read the constructor, as LightningCLI does, hand on all of
    the defaults.

    Args:
        cls: The class that is called; its ``without_effect`` says which arguments these are, and why.
        given: The arguments that were given by name.

    Raises:
        UnexpectedArgumentError: If there is one; the message says why it has no effect.

    Example:
        >>> from lightning_dataselect import UCB
        >>> UCB(logged_loss="weighted")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnexpectedArgumentError: UCB has no use for logged_loss='weighted': it ...
    """
    idle = arguments_without_effect(cls)
    if not (names := sorted(idle.keys() & given.keys())):
        return
    declared = _declared_arguments(cls)
    for name in names:
        value, default = given[name], declared[name].default
        if not (isinstance(value, Number | str | None) and value == default):
            raise UnexpectedArgumentError(f"{cls.__name__} has no use for {name}={short_text(value)}: {idle[name]}")


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
    constructor = next(vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    _, *parameters = inspect.signature(constructor).parameters.values()
    if not args or any(parameter.kind in by_place for parameter in parameters):
        return
    known = list(accepted_arguments(cls))
    if all(isinstance(value, Number | str) for value in args):
        named = ", ".join(f"{name}={short_text(value)}" for name, value in zip(known, args, strict=False))
        hint = f": write {cls.__name__}({named}), if that is what is meant"
    else:
        hint = ", and no model or data, which are those of trainer.fit"
    raise UnexpectedArgumentError(f"{cls.__name__} takes its arguments by name{hint}. It takes {', '.join(known)}.")


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
