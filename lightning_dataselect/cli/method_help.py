"""A method's arguments on the command line: only those that have an effect, with help that suits a terminal."""

from __future__ import annotations

import re
from argparse import Action
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from lightning_dataselect.utils.arguments import arguments_without_effect


class MethodHelp(DefaultHelpFormatter):
    """Print the arguments of a method without markup, and without every subclass of a tensor."""

    def add_argument(self, action: Action) -> None:
        """Add an argument, unless it is the help of a class that an argument might be given."""
        if not (_of_method(action) and action.dest.endswith(".help")):
            super().add_argument(action)

    def start_section(self, heading: str | None) -> None:
        """Begin the arguments of a class, under the first line of its docstring."""
        super().start_section(heading and _without_markup(heading))

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        return _without_markup(re.sub(r", known subclasses: [^)]*", "", text)) if _of_method(action) else text


def _without_markup(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`|`+([^`]+)`+", lambda found: found[1] or found[2], text)


def _of_method(action: Action) -> bool:
    return action.dest.startswith("select.") and action.dest != "select.help"


class HelpfulParser(LightningArgumentParser):
    """Parse as LightningCLI does, but for arguments without effect, and print that help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": MethodHelp, **kwargs})

    def add_class_arguments(self, theclass: Any, *args: Any, skip: Any = None, **kwargs: Any) -> list[str]:
        """Add the arguments of a class, of a selector without those that cannot change anything."""
        idle = set(arguments_without_effect(theclass)) if isinstance(theclass, type) else set()
        return super().add_class_arguments(theclass, *args, skip={*(skip or ()), *idle}, **kwargs)
