"""The task that is compared on: any LightningCLI config, built afresh for every run."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.compare.errors import UserError
from lightning_dataselect.parsing.messages import in_plain_words

SECTIONS = ("trainer", "model", "data", "optimizer", "lr_scheduler")
DEMOS = ("digits", "fashion_mnist")


class _CLI(LightningCLI):
    """Takes its config as a dict, and nothing from the command line."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_object(args)


@dataclass(frozen=True)
class Task:
    """A config, and how long to train.

    Attributes:
        config: LightningCLI's sections `trainer`, `model`, `data`, `optimizer`, `lr_scheduler`.
        epochs: Of a full run.
    """

    config: dict[str, Any]
    epochs: int

    def build(
        self,
        *,
        seed: int,
        epochs: int,
        callbacks: Sequence[pl.Callback],
        root: Path,
        fast_dev_run: int = 0,
    ) -> tuple[pl.Trainer, pl.LightningModule, pl.LightningDataModule | None]:
        """Fresh trainer, module and datamodule; seeds every global random generator.

        Args:
            seed: Given to `seed_everything` before anything is made.
            epochs: Becomes `max_epochs`, so that a schedule fits to it.
            callbacks: Added to the config's own.
            root: Where the run may write, unless the config names a place.
            fast_dev_run: Batches of a rehearsal, or 0 for a true run.

        Raises:
            UserError: If the config does not fit together.
        """
        fixed = {"max_epochs": epochs, "max_steps": -1, "fast_dev_run": fast_dev_run}
        defaults = {"logger": False, "default_root_dir": str(root)}
        trainer = {**defaults, **self.config.get("trainer", {}), **fixed}
        try:
            cli = _CLI(
                # parsing writes into what it is given
                args=deepcopy({**self.config, "trainer": trainer, "seed_everything": seed}),
                run=False,
                save_config_callback=None,
                parser_kwargs={"exit_on_error": False},
                trainer_defaults={"callbacks": list(callbacks)},
            )
        except ArgumentError as error:
            raise UserError(f"The config does not fit: {in_plain_words(error)}") from error
        own = cli.config_init.trainer.callbacks or []
        _keep_quiet(cli.trainer, own if isinstance(own, list) else [own])
        _check(cli.trainer, callbacks)
        return cli.trainer, cli.model, cli.datamodule


def load_task(config: str, *, epochs: int | None = None, data_dir: str | None = None) -> Task:
    """Reads a LightningCLI config, or one of the demos by name.

    Args:
        config: A path to YAML or JSON, or `digits`, or `fashion_mnist`.
        epochs: Of a full run, in place of the config's `trainer.max_epochs`.
        data_dir: Given to the datamodule (or, without one, the module) as `data_dir`.

    Raises:
        UserError: If there is no such file, no model in it, or nothing says how many epochs.

    Example:
        >>> load_task("digits", epochs=3).epochs
        3
    """
    text = _read(config)
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"The config {config} is not YAML: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("fit"), dict):
        loaded = loaded["fit"]
    if not isinstance(loaded, dict) or not loaded.get("model"):
        raise UserError(
            f"The config {config} names no model: it needs the sections of LightningCLI, "
            "with `class_path` and `init_args` under `model` and `data`, and `trainer`."
        )
    chosen = {key: loaded[key] for key in SECTIONS if loaded.get(key)}
    if data_dir is not None:
        chosen = _with_data_dir(chosen, data_dir)
    return Task(chosen, _epochs(chosen, config, epochs))


def _read(config: str) -> str:
    path = Path(config)
    if not path.exists() and config in DEMOS:
        return (files("lightning_dataselect.demo") / f"{config}.yaml").read_text()
    try:
        return path.read_text()
    except OSError as error:
        raise UserError(
            f"--config {config} cannot be read ({error.strerror}): "
            f"give a LightningCLI config, or one of {', '.join(DEMOS)}."
        ) from error


def _with_data_dir(config: dict[str, Any], data_dir: str) -> dict[str, Any]:
    section = "data" if "data" in config else "model"
    entry = config[section]
    entry = {"class_path": entry} if isinstance(entry, str) else entry
    arguments = {**(entry.get("init_args") or {}), "data_dir": data_dir}
    return {**config, section: {**entry, "init_args": arguments}}


def _epochs(config: dict[str, Any], name: str, epochs: int | None) -> int:
    chosen = epochs if epochs is not None else config.get("trainer", {}).get("max_epochs")
    if chosen is None or chosen < 1:
        raise UserError(
            f"How many epochs is a full run? {name} and --epochs say {chosen}: "
            "give --epochs N, or trainer.max_epochs in the config, at least 1."
        )
    return int(chosen)


def _keep_quiet(trainer: pl.Trainer, own: list[pl.Callback]) -> None:
    """Takes out what would draw over the comparison's own progress, or save what nobody asked."""
    unwanted: tuple[type, ...] = (ProgressBar, ModelSummary)
    if not any(isinstance(callback, Checkpoint) for callback in own):
        unwanted = (*unwanted, Checkpoint)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, unwanted)]


def _check(trainer: pl.Trainer, ours: Sequence[pl.Callback]) -> None:
    if trainer.world_size > 1:
        raise UserError(
            f"The config asks for {trainer.world_size} processes; compare runs each method in this "
            "one: set trainer.devices to 1."
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, DataSelector) and callback not in ours:
            raise UserError(
                f"The config has a {type(callback).__name__} among its callbacks: take it out and name it in --methods."
            )
