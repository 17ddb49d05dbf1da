"""Find selection methods by name; none is imported before its class is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import UnknownMethodError

if TYPE_CHECKING:
    from lightning_dataselect.callbacks.selector import DataSelector


def list_methods() -> list[MethodInfo]:
    """Return every selection method, by name.

    Example:
        >>> [method.year for method in list_methods() if method.name == "InfoBatch"]
        [2024]
    """
    return list(CATALOG.values())


def load_methods() -> list[type[DataSelector]]:
    """Import every method and return the classes; jsonargparse finds by a short name what has been imported."""
    return [method.cls for method in list_methods()]


def get(name: str) -> MethodInfo:
    """Return the method called ``name``, in any spelling of upper and lower case.

    Args:
        name: Name of the class, such as ``"InfoBatch"``.

    Raises:
        UnknownMethodError: If there is none; the message names the nearest ones.

    Example:
        >>> get("infobatch").cls.__name__
        'InfoBatch'
    """
    known = {key.lower(): info for key, info in CATALOG.items()}
    if name.lower() in known:
        return known[name.lower()]
    raise UnknownMethodError(
        f"There is no method {name!r}.{did_you_mean(name, CATALOG, n=3)} The methods are {', '.join(CATALOG)}."
    )


def check_spelling(argument: str, name: str) -> None:
    """Refuse a name on the command line that is no method's, or is spelt in other letters, upper or lower case.

    Args:
        argument: The option that it was given to.
        name: The name.

    Raises:
        UnknownMethodError: If there is no such method, or its name is spelt otherwise.

    Example:
        >>> check_spelling("--select", "ucb")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UnknownMethodError: --select ucb: the method is spelt UCB.
    """
    try:
        found = get(name).name
    except UnknownMethodError as error:
        raise UnknownMethodError(
            f"{argument}: {error} A class of your own goes by its import path, as in my.{name}."
        ) from None
    if found != name:
        raise UnknownMethodError(f"{argument} {name}: the method is spelt {found}.")
