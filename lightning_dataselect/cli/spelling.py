"""Refuse a misspelt command or method at once: importing torch and Lightning would take seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_dataselect.methods.registry import check_spelling
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import UserInputError

_OPTIONS = ("-h", "--help", "--version")
_SELECT = ("--select", "--select.help")


def refuse_misspelt(argv: Sequence[str], commands: Sequence[str]) -> None:
    """Refuse a command or option that there is not, and a method that ``--select`` cannot mean.

    Args:
        argv: The command line.
        commands: Names of the commands.

    Raises:
        UserInputError: If the first argument is no command and no option of the program itself.
        UnknownMethodError: If ``--select`` is given a name without a dot that is no method.

    Example:
        >>> refuse_misspelt(["fitt"], ["compare", "fit"])
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.UserInputError: There is no command 'fitt'. Did you mean fit? The commands ...
    """
    if not argv or argv[0] in _OPTIONS:
        return
    if argv[0].startswith("-"):
        raise UserInputError(f"There is no option {argv[0]}.{did_you_mean(argv[0], _OPTIONS)}")
    if argv[0] not in commands:
        raise UserInputError(
            f"There is no command {argv[0]!r}.{did_you_mean(argv[0], commands)} The commands are {', '.join(commands)}."
        )
    for option, name in _given(argv):
        if option in _SELECT and name.isidentifier() and name not in ("null", "DataSelector", "BatchSelector"):
            check_spelling(option, name)


def _given(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with the value that it is given."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        yield option, value if equals else following
