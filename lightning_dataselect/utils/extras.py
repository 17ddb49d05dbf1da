"""Packages that only some parts of this one need."""

import importlib.util

from lightning_dataselect.utils.errors import MissingExtraError


def require_report_extra(user: str, *packages: str) -> None:
    """Refuse to go on without packages of the `report` extra, with the line that installs them.

    Args:
        user: What needs them, as it is called by its user.
        packages: Names that are imported.

    Raises:
        MissingExtraError: If one of them is not installed.

    Example:
        >>> require_report_extra("plot()", "no_such_package")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.MissingExtraError: plot() needs no_such_package: pip install ...
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{user} needs {', '.join(missing)}: pip install 'lightning-dataselect[report]'.")
