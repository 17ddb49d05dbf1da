"""Check the arguments of `compare` as Python gives them; the command line has parsed its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from torch import nn

from lightning_dataselect.comparison.plans.plan import parse_budget
from lightning_dataselect.utils.arguments import short_text
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError
from lightning_dataselect.utils.validation import check_choice, check_count

CALL = "compare(MyModule, MyData, max_epochs=10)"


@dataclass(frozen=True)
class Makers:
    """The functions that make what a run needs, and how long a full run is.

    Attributes:
        module: Makes a fresh LightningModule.
        data: Makes fresh data.
        max_epochs: Of a full run.
    """

    module: Callable[[], Any]
    data: Callable[[], Any]
    max_epochs: int


def check_makers(make_module: object, make_data: object, max_epochs: object) -> Makers:
    """Return the functions that make module and data; refuse anything else, such as the path of a config.

    Raises:
        ArgumentTypeError: If either is no function, or none is given.
        InvalidArgumentError: If ``max_epochs`` is below 1.

    Example:
        >>> check_makers("exp.yaml", None, None)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.ArgumentTypeError: compare('exp.yaml') takes no config: run `lightning-...
    """
    if isinstance(make_module, str | Path):
        raise ArgumentTypeError(
            f"compare({str(make_module)!r}) takes no config: run `lightning-dataselect compare {make_module}` in a"
            f" shell, or give the classes that it names, as in {CALL}."
        )
    module = _check_maker("make_module", make_module, "MyModule", "a LightningModule")
    data = _check_maker("make_data", make_data, "MyData", "a LightningDataModule, a train loader, or two loaders")
    if max_epochs is None:
        raise ArgumentTypeError(f"compare() needs max_epochs, the number of epochs of a full run, as in {CALL}.")
    return Makers(module, data, check_count("max_epochs", max_epochs, minimum=1))


def _check_maker(name: str, value: object, example: str, makes: str) -> Callable[[], Any]:
    if value is None:
        raise ArgumentTypeError(f"compare() needs {name}, a function or class that makes {makes}, as in {CALL}.")
    if not callable(value) or isinstance(value, nn.Module):  # a module can be called, but makes no other one
        raise ArgumentTypeError(
            f"{name}={short_text(value)} is not a function or class that makes {makes}. Every run gets a fresh one:"
            f" give the class itself, or a function such as lambda: {example}(...)."
        )
    return value


def methods_text(methods: object) -> str:
    """Return the methods as the command line writes them.

    Raises:
        ArgumentTypeError: If they are no names.

    Example:
        >>> methods_text(["full", "UCB(c=2)"])
        'full,UCB(c=2)'
    """
    names = [methods] if isinstance(methods, str) else methods
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(
            f"methods={short_text(methods)} is not a list of names: write each method as text, as in ['full', 'short',"
            " 'InfoBatch(prune_ratio=0.3)']."
        )
    return ",".join(names)


def seeds_text(seeds: object) -> str:
    """Return the seeds as the command line writes them.

    Raises:
        ArgumentTypeError: If they are no whole numbers.
        InvalidArgumentError: If there are none, if one is negative, or given twice.

    Example:
        >>> seeds_text(3), seeds_text([4, 2])
        ('3', '4,2,')
    """
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        return str(check_count("seeds", seeds, minimum=1))
    own = [check_count("seeds", seed) for seed in seeds]
    if not own or len(set(own)) < len(own):
        raise InvalidArgumentError(f"seeds={seeds!r}: give each seed once, as in [1, 2, 3], or how many, as in 3.")
    return "".join(f"{seed}," for seed in own)


def budget_text(budget: object) -> str | None:
    """Return the budget as the command line writes it.

    Raises:
        ArgumentTypeError: If it is neither text nor a number.
        UserInputError: If it is no budget.

    Example:
        >>> budget_text(30), budget_text("20min"), budget_text(None)
        ('30', '20min', None)
    """
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, str | Real):
        raise ArgumentTypeError(f"budget={budget!r}: give full runs, as in 30, or a time, as in '20min'.")
    parse_budget(str(budget), name="budget=")
    return str(budget)


def check_mode(mode: object) -> str | None:
    """Return ``mode`` if it is ``"max"``, ``"min"`` or None.

    Raises:
        InvalidArgumentError: If it is anything else.
    """
    return None if mode is None else check_choice("mode", mode, ("max", "min"))


def check_trainer(trainer: object) -> dict[str, Any]:
    """Return the arguments of every run's Trainer.

    Raises:
        ArgumentTypeError: If they are no mapping, but a Trainer, say.
    """
    if trainer is None:
        return {}
    if not isinstance(trainer, Mapping):
        raise ArgumentTypeError(
            f"trainer={short_text(trainer)} is not a dict: every run gets a Trainer of its own, so give its arguments,"
            " as in {'accelerator': 'gpu', 'precision': 'bf16-mixed'}."
        )
    return dict(trainer)


def make_folder(out: object) -> Path:
    """Return the folder for runs and report, which is made if it does not exist.

    Raises:
        ArgumentTypeError: If ``out`` is no path.
        InvalidArgumentError: If it cannot be made.
    """
    if not isinstance(out, str | Path):
        raise ArgumentTypeError(f"out={out!r} is not a path: give that of a folder.")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(
            f"out={str(out)!r} cannot be made ({error.strerror}): give a folder that can be written to."
        ) from error
    return Path(out)
