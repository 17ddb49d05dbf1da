"""A task whose parts the user's own functions make."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lightning_dataselect.comparison.tasks.trainer_of_run import check, defaults, drop_unasked_callbacks, loggers_of_run
from lightning_dataselect.utils.errors import UserInputError


@dataclass(frozen=True)
class MadeTask:
    """A module and data that the user's own functions make, and how long to train.

    Attributes:
        make_module: Returns a fresh LightningModule.
        make_data: Returns a fresh LightningDataModule, a train loader, or a pair of train and validation loaders.
        trainer: Arguments of the Trainer.
        epochs: Of a full run.
        set_aside: Nothing: a selector among the Trainer's callbacks is refused.
    """

    make_module: Callable[[], pl.LightningModule]
    make_data: Callable[[], Any]
    trainer: Mapping[str, Any]
    epochs: int
    set_aside: Sequence[str] = ()

    def build(
        self, *, seed: int, epochs: int, callbacks: Sequence[pl.Callback], root: Path, fast_dev_run: int = 0
    ) -> tuple[pl.Trainer, pl.LightningModule, Any]:
        """Return fresh trainer, module and data; see `Task.build`."""
        pl.seed_everything(seed, verbose=False)
        own = self.trainer.get("callbacks") or []
        own = deepcopy(list(own) if isinstance(own, list | tuple) else [own])
        fixed = {"max_epochs": epochs, "max_steps": -1, "fast_dev_run": fast_dev_run}
        arguments = {**defaults(root), **self.trainer, **fixed, "callbacks": [*own, *callbacks]}
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
        drop_unasked_callbacks(trainer, asked=any(isinstance(callback, Checkpoint) for callback in own))
        check(trainer, callbacks)
        return trainer, module, self.make_data()

    def origins(self) -> Iterable[Any]:
        """Return the two functions; what they use is in their files, or imported there."""
        own = self.trainer.get("callbacks") or []
        callbacks = own if isinstance(own, list | tuple) else [own]
        return [self.make_module, self.make_data, *(type(callback) for callback in callbacks)]

    def described(self) -> dict[str, Any]:
        """Return the names of the functions, and the Trainer's arguments."""
        names = {name: _name_of(getattr(self, name)) for name in ("make_module", "make_data")}
        return {**names, "trainer": {key: _plain(value) for key, value in self.trainer.items()}}


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
