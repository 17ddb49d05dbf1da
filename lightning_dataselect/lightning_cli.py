"""LightningCLI with one more argument, `--select METHOD`."""

from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_dataselect.methods  # noqa: F401  (so that --select finds them by name)
from lightning_dataselect.selector import DataSelector


class SelectCLI(LightningCLI):
    """LightningCLI whose `--select` adds a selector to the Trainer's callbacks."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `--select`: a method's name, or the path of a class of one's own."""
        parser.add_lightning_class_args(DataSelector, "select", subclass_mode=True, required=False)
        parser.set_defaults({"select": None})


def run_lightning(argv: Sequence[str]) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        argv: The subcommand and its arguments, as LightningCLI takes them.
    """
    SelectCLI(args=list(argv), parser_kwargs={"prog": "lightning-dataselect"})
