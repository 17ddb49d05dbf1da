"""The packages that the text studies need beyond this one: the extra `benchmarks`."""

import importlib.util

from lightning_dataselect.utils.errors import UserInputError


def need(*modules: str) -> None:
    """Raise an error that names what to install, if a module is missing.

    Raises:
        UserInputError: Naming all that are missing.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserInputError(
            f"{', '.join(missing)}: not installed. pip install '.[benchmarks]' brings it; --quick does without."
        )
