"""Which methods there are: collects the classes of `lightning_dataselect.methods`."""

import difflib
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from lightning_dataselect import methods
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.utils.errors import UnknownMethodError


@dataclass(frozen=True, kw_only=True)
class MethodEntry(MethodInfo):
    """The facts of a method, its name and its class.

    Attributes:
        name: Name of the class.
        cls: The callback.
    """

    name: str
    cls: type[DataSelector]


def list_methods() -> list[MethodEntry]:
    """Every selection method, by name.

    Example:
        >>> [method.year for method in list_methods() if method.name == "InfoBatch"]
        [2024]
    """
    classes = [getattr(methods, name) for name in sorted(methods.__all__, key=str.lower)]
    return [MethodEntry(name=cls.__name__, cls=cls, **asdict(cls.info)) for cls in classes]


def get(name: str) -> MethodEntry:
    """The method called ``name``, in any spelling of upper and lower case.

    Args:
        name: Name of the class, such as ``"InfoBatch"``.

    Raises:
        ValueError: If there is none; the message names the nearest ones.

    Example:
        >>> get("infobatch").cls.__name__
        'InfoBatch'
    """
    known = {method.name.lower(): method for method in list_methods()}
    if name.lower() in known:
        return known[name.lower()]
    close = [known[key].name for key in difflib.get_close_matches(name.lower(), known)]
    names = ", ".join(method.name for method in known.values())
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise UnknownMethodError(f"There is no method {name!r}. {hint}The methods are {names}.")


def accepted_arguments(cls: type[DataSelector]) -> Iterator[str]:
    """Names of the arguments that a constructor takes, up the bases while they go on as ``**kwargs``.

    Args:
        cls: A callback's class.

    Example:
        >>> "alpha" in accepted_arguments(get("UCB").cls), "seed" in accepted_arguments(get("UCB").cls)
        (True, True)
    """
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        taken = (p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
        yield from taken if base is cls else (name for name in taken if name not in cls.unused)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
