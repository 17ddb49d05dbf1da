"""The Trainer of a run: writes where no other run does, draws nothing, and has no selector but the run's."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.utils.errors import UserInputError


def defaults(root: Path) -> dict[str, Any]:
    """Return the arguments of a Trainer that names neither a logger nor a folder."""
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


def drop_unasked_callbacks(trainer: pl.Trainer, *, asked: bool) -> None:
    """Take out callbacks that would draw over the comparison's own progress, or save unrequested files."""
    unwanted: tuple[type, ...] = (ProgressBar, ModelSummary) if asked else (ProgressBar, ModelSummary, Checkpoint)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, unwanted)]


def check(trainer: pl.Trainer, ours: Sequence[pl.Callback]) -> None:
    """Refuse several processes, and selectors that are not ours."""
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
