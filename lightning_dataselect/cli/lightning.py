"""LightningCLI with one more argument, `--select METHOD`."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ActionConfigFile, ArgumentError, DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_dataselect.methods  # noqa: F401  (so that --select finds them by name)
from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.cli.messages import in_plain_words, is_refusal, selector_error
from lightning_dataselect.comparison.errors import UserError

_SELECT_HELP = (
    "The selection method: a name of `lightning-dataselect list`, or the import path of a class of your own. What it"
    " takes: `--select.help METHOD`."
)


class SelectCLI(LightningCLI):
    """LightningCLI whose `--select` adds a selector to the Trainer's callbacks.

    Raises:
        UserError: If the method, one of its arguments, or anything else on the command line is wrong.
    """

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Makes a parser as Lightning does, whose ``parser_class`` is newer than its 2.5.0."""
        parser = _Parser(**{"dump_header": [f"lightning.pytorch=={pl.__version__}"], **kwargs})
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="Configuration file, in JSON or YAML.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `--select`: a method's name, or the path of a class of one's own."""
        parser.add_subclass_arguments(DataSelector, "select", fail_untyped=False, required=False, help=_SELECT_HELP)

    def instantiate_classes(self) -> None:
        """Makes trainer, module, datamodule and selector; what a selector refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except Exception as error:
            refusal = selector_error(error)
            if refusal is None:
                raise
            raise UserError(str(refusal)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Makes the trainer, with the selector among its callbacks."""
        own = self._get(self.config_init, "trainer").callbacks or []
        callbacks = [*(own if isinstance(own, list) else [own])]
        selector = self._get(self.config_init, "select")
        if type(selector) in (DataSelector, BatchSelector):
            raise UserError(f"--select names no method, but {type(selector).__name__}: give one, as in --select UCB.")
        if selector is not None:
            callbacks.append(selector)
        names = [type(callback).__name__ for callback in callbacks if isinstance(callback, DataSelector)]
        if len(names) > 1:
            raise UserError(
                f"There are {len(names)} selectors ({', '.join(names)}) in --select and --trainer.callbacks, but only"
                " one can decide which samples an epoch trains on: keep one of them."
            )
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)


class MethodHelp(DefaultHelpFormatter):
    """Help of a method's arguments as one reads it: without markup, and without every subclass of a tensor."""

    def add_argument(self, action: Action) -> None:
        """Adds an argument, unless it is the help of a class that an argument might be given."""
        if not (_of_method(action) and action.dest.endswith(".help")):
            super().add_argument(action)

    def start_section(self, heading: str | None) -> None:
        """Begins the arguments of a class, under the first line of its docstring."""
        super().start_section(heading and _without_markup(heading))

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        return _without_markup(re.sub(r", known subclasses: [^)]*", "", text)) if _of_method(action) else text


def _without_markup(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`|`+([^`]+)`+", lambda found: found[1] or found[2], text)


def _of_method(action: Action) -> bool:
    return action.dest.startswith("select.") and action.dest != "select.help"


class _Parser(LightningArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": MethodHelp, **kwargs})


def run_lightning(argv: Sequence[str] | None) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        argv: The subcommand and its arguments, as LightningCLI takes them; None for the process's own.

    Raises:
        UserError: If they are wrong, or a selector refuses what it finds in the fit.
    """
    args = None if argv is None else list(argv)
    try:
        SelectCLI(args=args, parser_kwargs={"prog": "lightning-dataselect", "exit_on_error": False})
    except ArgumentError as error:
        raise UserError(in_plain_words(error)) from error
    except Exception as error:
        if not is_refusal(error):
            raise
        raise UserError(" ".join(str(error.args[0]).split())) from error
