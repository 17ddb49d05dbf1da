"""Griffe extension: docstrings as the site renders them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class SiteDocstrings(griffe.Extension):
    """Turns Sphinx's cross-references into plain code, and `Example:` into the section of doctests that it is."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was just loaded."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", _ROLE.sub(r"`\1`", obj.docstring.value))
