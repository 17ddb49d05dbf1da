"""Find selection methods by name, without importing any."""

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import UnknownMethodError


def list_methods() -> list[MethodInfo]:
    """Return every selection method, by name.

    Example:
        >>> [method.year for method in list_methods() if method.name == "InfoBatch"]
        [2024]
    """
    return list(CATALOG.values())


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
