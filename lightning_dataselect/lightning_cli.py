"""LightningCLI with one more argument, `--select METHOD`."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_dataselect.methods  # noqa: F401  (so that --select finds them by name)
from lightning_dataselect.selector import DataSelector


class SelectCLI(LightningCLI):
    """LightningCLI whose `--select` adds a selector to the Trainer's callbacks."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds `--select`: a method's name, or the path of a class of one's own."""
        parser.add_subclass_arguments(
            DataSelector, "select", fail_untyped=False, required=False, help="The selection method."
        )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Makes the trainer, with the selector among its callbacks."""
        selector = self._get(self.config_init, "select")
        if selector is not None:
            own = self._get(self.config_init, "trainer").callbacks or []
            kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), selector]
        return super().instantiate_trainer(**kwargs)


def run_lightning(argv: Sequence[str] | None) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        argv: The subcommand and its arguments, as LightningCLI takes them; None for the process's own.
    """
    args = None if argv is None else list(argv)
    SelectCLI(args=args, parser_kwargs={"prog": "lightning-dataselect"})
