"""The task that is compared on: a LightningCLI config, or functions that make its parts; built afresh for every run."""

import difflib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.parsing.messages import in_plain_words
from lightning_dataselect.utils.errors import UserInputError

SECTIONS = ("trainer", "model", "data", "optimizer", "lr_scheduler")
DEMOS = ("digits", "fashion_mnist")


class Task(Protocol):
    """Requirements of a comparison on a task."""

    @property
    def epochs(self) -> int:
        """Epochs of a full run."""

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, Any]:
        """Return fresh trainer, module and data, after seeding every global random generator.

        Args:
            seed: Given to `seed_everything` before anything is made.
            epochs: Becomes `max_epochs`, so that a schedule fits to it.
            callbacks: Added to the task's own.
            root: Where the run may write, unless the task names a place.
            fast_dev_run: Batches of a rehearsal, or 0 for a true run.

        Raises:
            UserInputError: If the task does not fit together.
        """

    def origins(self) -> Iterable[Any]:
        """Return the classes and functions that it is made of, whose source a run depends on."""

    def described(self) -> dict[str, Any]:
        """Return its settings, as the report shows them and as a run depends on them."""


class _CLI(LightningCLI):
    """Takes its config as a dict, and nothing from the command line."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_object(args)


@dataclass(frozen=True)
class ConfigTask:
    """A LightningCLI config, and how long to train.

    Attributes:
        config: LightningCLI's sections `trainer`, `model`, `data`, `optimizer`, `lr_scheduler`.
        epochs: Of a full run.
    """

    config: dict[str, Any]
    epochs: int

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, pl.LightningDataModule | None]:
        """Return fresh trainer, module and datamodule; see `Task.build`."""
        fixed = {"max_epochs": epochs, "max_steps": -1, "fast_dev_run": fast_dev_run}
        trainer = {**_defaults(root), **in_own_folder(self.config.get("trainer", {}), root.name), **fixed}
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
        _keep_quiet(cli.trainer, asked=_asks_for_checkpoints(cli.config.trainer))
        _check(cli.trainer, callbacks)
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


@dataclass(frozen=True)
class MadeTask:
    """A module and data that the user's own functions make, and how long to train.

    Attributes:
        make_module: Returns a fresh LightningModule.
        make_data: Returns a fresh LightningDataModule, a train loader, or a pair of train and validation loaders.
        trainer: Arguments of the Trainer.
        epochs: Of a full run.
    """

    make_module: Callable[[], pl.LightningModule]
    make_data: Callable[[], Any]
    trainer: Mapping[str, Any]
    epochs: int

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, Any]:
        """Return fresh trainer, module and data; see `Task.build`."""
        pl.seed_everything(seed, verbose=False)
        own = self.trainer.get("callbacks") or []
        own = deepcopy(list(own) if isinstance(own, list | tuple) else [own])
        fixed = {"max_epochs": epochs, "max_steps": -1, "fast_dev_run": fast_dev_run}
        arguments = {**_defaults(root), **self.trainer, **fixed, "callbacks": [*own, *callbacks]}
        arguments["logger"] = loggers_of_run(arguments["logger"], root.name)
        for callback in own:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
                callback.dirpath = str(Path(callback.dirpath) / root.name)
        module = self.make_module()
        if not hasattr(module, "training_step"):
            raise UserInputError(f"make_module() returned a {type(module).__name__}: let it return a LightningModule.")
        try:
            trainer = _trainer_class(module)(**arguments)
        except TypeError as error:
            raise UserInputError(f"trainer={dict(self.trainer)}: {error}") from error
        _keep_quiet(trainer, asked=any(isinstance(callback, Checkpoint) for callback in own))
        _check(trainer, callbacks)
        return trainer, module, self.make_data()

    def origins(self) -> Iterable[Any]:
        """Return the two functions; what they name lies in their files, or is imported there."""
        own = self.trainer.get("callbacks") or []
        callbacks = own if isinstance(own, list | tuple) else [own]
        return [self.make_module, self.make_data, *(type(callback) for callback in callbacks)]

    def described(self) -> dict[str, Any]:
        """Return the names of the functions, and the Trainer's arguments."""
        names = {name: _name_of(getattr(self, name)) for name in ("make_module", "make_data")}
        return {**names, "trainer": {key: _plain(value) for key, value in self.trainer.items()}}


def with_epochs(task: Task, epochs: int) -> Task:
    """Return the task with another number of epochs of a full run."""
    return replace(task, epochs=epochs)  # type: ignore[type-var]


def _trainer_class(module: Any) -> type[pl.Trainer]:
    """The Trainer of the package that the module's base is of: `lightning`, or `pytorch_lightning`."""
    packages = {base.__module__.partition(".")[0] for base in type(module).__mro__}
    found: type[pl.Trainer] = import_module(
        "pytorch_lightning" if "pytorch_lightning" in packages else pl.__name__
    ).Trainer
    return found


def _name_of(made_by: Any) -> str:
    made_by = getattr(made_by, "func", made_by)
    return getattr(made_by, "__qualname__", type(made_by).__name__)


def _plain(value: Any) -> Any:
    """A value whose text is the same in the next process: objects by their class."""
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


def _defaults(root: Path) -> dict[str, Any]:
    return {"logger": False, "default_root_dir": str(root)}


def in_own_folder(trainer: dict[str, Any], run: str) -> dict[str, Any]:
    """Return a config's trainer section whose loggers and checkpoints carry the name of the run.

    Args:
        trainer: The section, left as it is.
        run: Such as `InfoBatch-0`.

    Example:
        >>> in_own_folder({"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}}}, "UCB-1")
        {'logger': {'class_path': 'CSVLogger', 'init_args': {'save_dir': 'logs', 'version': 'UCB-1'}}}
    """
    named = deepcopy(trainer)
    for section in ("logger", "callbacks"):
        entries = named.get(section)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, dict) or "class_path" not in entry:
                continue
            name, arguments = entry["class_path"].rpartition(".")[2], entry.setdefault("init_args", {}) or {}
            if name in ("CSVLogger", "TensorBoardLogger"):
                arguments["version"] = run
            elif name == "WandbLogger":
                arguments["name"] = run
            elif name == "ModelCheckpoint" and arguments.get("dirpath"):
                arguments["dirpath"] = str(Path(arguments["dirpath"]) / run)
            entry["init_args"] = arguments
    return named


def loggers_of_run(loggers: Any, run: str) -> Any:
    """Return copies of a Trainer's loggers that carry the name of the run, and leave those of other kinds as they are.

    Args:
        loggers: One, several, or a bool.
        run: Such as `InfoBatch-0`.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> loggers_of_run(CSVLogger("logs", name="digits"), "UCB-1").log_dir
        'logs/digits/UCB-1'
    """
    if isinstance(loggers, list | tuple):
        return [loggers_of_run(logger, run) for logger in loggers]
    kinds = {cls.__name__ for cls in type(loggers).__mro__}
    # a copy, as a logger writes where it began to; none of these has a setter
    if "WandbLogger" in kinds:
        loggers = deepcopy(loggers)
        loggers._name = loggers._wandb_init["name"] = run
    elif kinds & {"CSVLogger", "TensorBoardLogger"}:
        loggers = deepcopy(loggers)
        loggers._version = run
    return loggers


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
    """Reads a LightningCLI config, or one of the demos by name, without the selector that it trains with.

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
        raise UserInputError(f"The config {config} is not YAML: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("fit"), dict):
        loaded = loaded["fit"]
    if not isinstance(loaded, dict) or not loaded.get("model"):
        raise UserInputError(
            f"The config {config} names no model: it needs the sections of LightningCLI, "
            "with `class_path` and `init_args` under `model` and `data`, and `trainer`."
        )
    chosen = {key: loaded[key] for key in SECTIONS if loaded.get(key)}
    if isinstance(chosen.get("trainer"), dict) and "callbacks" in chosen["trainer"]:
        chosen["trainer"] = {**chosen["trainer"], "callbacks": _without_selectors(chosen["trainer"]["callbacks"])}
    if data_dir is not None:
        chosen = _with_data_dir(chosen, data_dir)
    return ConfigTask(chosen, _epochs(chosen, config, epochs))


def _without_selectors(callbacks: Any) -> list[Any]:
    """The other callbacks: which selector a run has is for the comparison to say."""
    entries = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    return [entry for entry in entries if not _is_selector(entry["class_path"] if isinstance(entry, dict) else entry)]


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
            f"--config {config} cannot be read ({error.strerror}): give a LightningCLI config, or one of"
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


def _keep_quiet(trainer: pl.Trainer, *, asked: bool) -> None:
    """Takes out what would draw over the comparison's own progress, or save what nobody asked for."""
    unwanted: tuple[type, ...] = (ProgressBar, ModelSummary) if asked else (ProgressBar, ModelSummary, Checkpoint)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, unwanted)]


def _check(trainer: pl.Trainer, ours: Sequence[pl.Callback]) -> None:
    if trainer.world_size > 1:
        raise UserInputError(
            f"The config asks for {trainer.world_size} processes; compare runs each method in this "
            "one: set trainer.devices to 1."
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, DataSelector) and callback not in ours:
            raise UserInputError(
                f"The config has a {type(callback).__name__} among its callbacks: take it out and name it in --methods."
            )
