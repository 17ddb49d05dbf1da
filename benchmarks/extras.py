"""What the text studies need beyond the package: the extra `benchmarks`."""

import importlib.util

from lightning_dataselect.utils.errors import UserInputError


def need(*modules: str) -> None:
    """Say at once, and how to mend it, if a module is not installed.

    Raises:
        UserInputError: Naming all that are missing.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserInputError(
            f"{', '.join(missing)}: not installed. pip install '.[benchmarks]' brings it; --quick does without."
        )
