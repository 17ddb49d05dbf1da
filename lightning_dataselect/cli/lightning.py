"""LightningCLI with one more argument, `--select METHOD`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ActionConfigFile, ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.cli.method_help import HelpfulParser
from lightning_dataselect.methods.registry import load_methods
from lightning_dataselect.parsing.messages import causes, in_plain_words
from lightning_dataselect.utils.errors import DataSelectError, UserInputError, one_line

_SELECT_HELP = (
    "The selection method: a name of `lightning-dataselect list`, or the import path of a class of your own. What it"
    " takes: `--select.help METHOD`."
)

_SAVED_BY = "# lightning.pytorch=="
_NO_PATHS = ("best", "last", "hpc", "registry")


class SelectCLI(LightningCLI):
    """Run LightningCLI with `--select`, which adds a selector to the Trainer's callbacks.

    Raises:
        UserInputError: If the method, one of its arguments, or anything else on the command line is wrong.
    """

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser as Lightning does, whose ``parser_class`` is newer than its 2.5.0."""
        load_methods()  # before the Trainer's arguments: older parsers look then for the callbacks that there are
        parser = HelpfulParser(**{"dump_header": [f"{_SAVED_BY[2:]}{pl.__version__}"], **kwargs})
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="Configuration file, in JSON or YAML.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--select`: a method's name, or the path of a class of one's own."""
        parser.add_subclass_arguments(DataSelector, "select", fail_untyped=False, required=False, help=_SELECT_HELP)

    def before_instantiate_classes(self) -> None:
        """Refuse what the parser accepts but Lightning would fail on later."""
        section, checkpoint = self._get(self.config, "trainer"), self._get(self.config, "ckpt_path")
        if not isinstance(section, Namespace):
            raise UserInputError(f"--trainer: give its arguments by name, as in max_epochs: 3, not {section}.")
        if checkpoint and checkpoint not in _NO_PATHS and ":" not in checkpoint and not Path(checkpoint).exists():
            raise UserInputError(f"--ckpt_path {checkpoint}: there is no such file.")

    def instantiate_classes(self) -> None:
        """Make trainer, module, datamodule and selector."""
        try:
            super().instantiate_classes()
        except Exception as error:
            # jsonargparse wraps what a constructor raised in a report on every type that the argument might have had
            for link in causes(error):
                if isinstance(link, DataSelectError):
                    raise link from None
            raise
        has_no_loader = type(self.model).train_dataloader is pl.LightningModule.train_dataloader
        if self.subcommand == "fit" and self.datamodule is None and has_no_loader:
            raise UserInputError(
                f"--data is missing, and {type(self.model).__name__} has no train_dataloader of its own. Give --data"
                " my.Data, or the section data in the config."
            )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer, with the selector among its callbacks."""
        own = self._get(self.config_init, "trainer").callbacks or []
        callbacks = [*(own if isinstance(own, list) else [own])]
        selector = self._get(self.config_init, "select")
        if type(selector) in (DataSelector, BatchSelector):
            raise UserInputError(
                "--select: no method is named. Name one before its arguments, as in --select UCB --select.seed 1."
            )
        if selector is not None:
            callbacks.append(selector)
        names = [type(callback).__name__ for callback in callbacks if isinstance(callback, DataSelector)]
        if len(names) > 1:
            raise UserInputError(
                f"There are {len(names)} selectors ({', '.join(names)}) in --select and --trainer.callbacks, but only"
                " one can decide which samples an epoch trains on: keep one of them. --trainer.callbacks=null leaves"
                " out those of the config."
            )
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise UserInputError(f"--trainer: {one_line(error).partition(': ')[2]}") from error


class _SaveConfig(SaveConfigCallback):
    """Replace the config of an earlier run where no logger gives each run a folder; refuse to in any other file."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = str(trainer.log_dir)  # on all ranks, which agree on it
        self.overwrite = not trainer.loggers and _is_saved(Path(folder) / self.config_filename)
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            if self.config_filename not in str(error):
                raise
            what = "the {} of an earlier run" if trainer.loggers else "a {} that no run has saved there"
            raise UserInputError(
                f"{folder} holds {what.format(self.config_filename)}, where that of this run would be saved: move it,"
                " or give --trainer.default_root_dir another folder."
            ) from error


def _is_saved(path: Path) -> bool:
    """Return whether a file is the config of a run, which begins with the version of Lightning."""
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(_SAVED_BY)


def run_lightning(argv: Sequence[str] | None) -> None:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        argv: The subcommand and its arguments, as LightningCLI takes them; None for the process's own.

    Raises:
        UserInputError: If they are wrong, or a selector refuses what it finds in the fit.
    """
    args = None if argv is None else list(argv)
    try:
        SelectCLI(
            args=args,
            parser_kwargs={"prog": "lightning-dataselect", "exit_on_error": False},
            save_config_callback=_SaveConfig,
        )
    except ArgumentError as error:
        raise UserInputError(in_plain_words(error)) from error
