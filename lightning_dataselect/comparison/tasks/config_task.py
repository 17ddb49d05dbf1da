"""A task that a LightningCLI config describes, and how such a config is read."""

import difflib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.comparison.tasks.trainer_of_run import check, defaults, drop_unasked_callbacks, in_own_folder
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.parsing.broken_yaml import why_not_yaml
from lightning_dataselect.parsing.messages import in_plain_words
from lightning_dataselect.utils.errors import UserInputError

SECTIONS = ("trainer", "model", "data", "optimizer", "lr_scheduler")
DEMOS = ("digits", "fashion_mnist")


class _CLI(LightningCLI):
    """Take the config as a dict, and nothing from the command line."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_object(args)


@dataclass(frozen=True)
class ConfigTask:
    """A LightningCLI config, and how long to train.

    Attributes:
        config: LightningCLI's sections `trainer`, `model`, `data`, `optimizer`, `lr_scheduler`.
        epochs: Of a full run.
        set_aside: The selectors that it trains with, as `--methods` takes them.
    """

    config: dict[str, Any]
    epochs: int
    set_aside: Sequence[str] = ()

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, pl.LightningDataModule | None]:
        """Return fresh trainer, module and datamodule; see `Task.build`."""
        fixed = {"max_epochs": epochs, "max_steps": -1, "fast_dev_run": fast_dev_run}
        trainer = {**defaults(root), **in_own_folder(self.config.get("trainer", {}), root.name), **fixed}
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
            raise UserInputError(f"The config does not fit: {in_plain_words(error)}") from error
        drop_unasked_callbacks(cli.trainer, asked=_asks_for_checkpoints(cli.config.trainer))
        check(cli.trainer, callbacks)
        return cli.trainer, cli.model, cli.datamodule

    def origins(self) -> Iterable[Any]:
        """Return the classes and functions that the config names by their paths."""
        for path in _class_paths({key: self.config.get(key) for key in ("model", "data", "optimizer", "trainer")}):
            module, _, name = path.rpartition(".")
            try:
                yield getattr(import_module(module), name)
            except (ImportError, AttributeError, ValueError):
                continue  # a short name of LightningCLI's, or no path at all

    def described(self) -> dict[str, Any]:
        """Return the config."""
        return self.config


def _class_paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and (key in ("class_path", "model", "data", "optimizer") or "." in value):
                yield value
            else:
                yield from _class_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from [value] if isinstance(value, str) else _class_paths(value)


def load_task(config: str, *, epochs: int | None = None, data_dir: str | None = None) -> ConfigTask:
    """Read a LightningCLI config, or one of the demos by name, without the selector that it trains with.

    Args:
        config: A path to YAML or JSON, or `digits`, or `fashion_mnist`.
        epochs: Of a full run, in place of the config's `trainer.max_epochs`.
        data_dir: Given to the datamodule (or, without one, the module) as `data_dir`.

    Raises:
        UserInputError: If there is no such file, no model in it, or nothing says how many epochs.

    Example:
        >>> load_task("digits", epochs=3).epochs
        3
    """
    text = _read(config)
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserInputError(f"The config {config} is not YAML: {why_not_yaml(error)}.") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("fit"), dict):
        loaded = loaded["fit"]
    if not isinstance(loaded, dict) or not loaded.get("model"):
        raise UserInputError(
            f"The config {config} names no model: it needs the sections of LightningCLI, "
            "with `class_path` and `init_args` under `model` and `data`, and `trainer`."
        )
    chosen = {key: loaded[key] for key in SECTIONS if loaded.get(key)}
    # which selector a run has is for the comparison to say
    selectors = [loaded["select"]] if loaded.get("select") else []
    if isinstance(chosen.get("trainer"), dict) and "callbacks" in chosen["trainer"]:
        callbacks = chosen["trainer"]["callbacks"]
        entries = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        selectors += [entry for entry in entries if _is_selector(_path_of(entry))]
        others = [entry for entry in entries if not _is_selector(_path_of(entry))]
        without = {key: value for key, value in chosen["trainer"].items() if key != "callbacks"}
        chosen["trainer"] = {**without, "callbacks": others} if others else without
    if data_dir is not None:
        chosen = _with_data_dir(chosen, data_dir)
    return ConfigTask(chosen, _epochs(chosen, config, epochs), [_as_method(entry) for entry in selectors])


def _path_of(entry: Any) -> str:
    return str(entry["class_path"] if isinstance(entry, dict) else entry)


def _as_method(entry: Any) -> str:
    """Write a callback of a config as `--methods` takes it.

    Example:
        >>> _as_method({"class_path": "lightning_dataselect.UCB", "init_args": {"prune_ratio": 0.3, "c": 2.0}})
        'UCB(prune_ratio=0.3, c=2.0)'
    """
    path, arguments = _path_of(entry), (entry.get("init_args") or {}) if isinstance(entry, dict) else {}
    name = path.rpartition(".")[2]
    named = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name if name in CATALOG else path}{f'({named})' if named else ''}"


def _is_selector(path: str) -> bool:
    try:
        cls = CATALOG[path].cls if path in CATALOG else pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return False  # a short name of LightningCLI's, or one that the parser refuses
    return isinstance(cls, type) and issubclass(cls, DataSelector)


def _read(config: str) -> str:
    path = Path(config)
    if not path.exists() and config in DEMOS:
        return (files("lightning_dataselect.demo") / f"{config}.yaml").read_text()
    try:
        return path.read_text()
    except OSError as error:
        close = difflib.get_close_matches(config, DEMOS, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise UserInputError(
            f"{config} cannot be read ({error.strerror}): give a LightningCLI config, a script (train.py), or a demo:"
            f" {', '.join(DEMOS)}.{meant}"
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
        raise UserInputError(
            f"How many epochs is a full run? {name} and --epochs say {chosen}: "
            "give --epochs N, or trainer.max_epochs in the config, at least 1."
        )
    return int(chosen)


def _asks_for_checkpoints(trainer: Any) -> bool:
    """Return whether a parsed config names a callback that saves; the Trainer adds one of its own where it does not."""
    entries = trainer.callbacks or []
    paths = [entry.class_path for entry in (entries if isinstance(entries, list) else [entries])]
    return any(issubclass(pkgutil.resolve_name(path), Checkpoint) for path in paths)
