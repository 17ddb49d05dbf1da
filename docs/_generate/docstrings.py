"""Griffe extension: docstrings as the site renders them."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


_ERRORS = "lightning_dataselect.utils.errors."


class SiteDocstrings(griffe.Extension):
    """Turns Sphinx's cross-references into plain code, and `Example:` into the section of doctests that it is.

    Each kind of error gets a link to its entry in the troubleshooting; a test holds that there is one for each.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was just loaded."""
        if obj.docstring:
            text = _EXAMPLE.sub(r"\1Examples:", _ROLE.sub(r"`\1`", obj.docstring.value))
            if obj.is_class and obj.path.startswith(_ERRORS) and obj.name != "DataSelectError":
                first, _, rest = text.partition("\n")
                text = f"{first} [What to do about it](faq.md#{obj.name.lower()}).\n{rest}"
            obj.docstring.value = text
