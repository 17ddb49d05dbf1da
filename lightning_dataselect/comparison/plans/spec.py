"""Parse the list of methods to compare, as in `full,short,random,InfoBatch,UCB(every_n_epochs=2)`."""

from __future__ import annotations

import ast
import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.utils.arguments import accepted_arguments, nearest
from lightning_dataselect.utils.errors import UserInputError
from lightning_dataselect.utils.validation import hint_at_percent

if TYPE_CHECKING:
    from lightning_dataselect.callbacks.selector import DataSelector
    from lightning_dataselect.comparison.runs.rehearsal import Rehearsal

FULL, SHORT = "full", "short"
BASELINES = (FULL, SHORT)
AUTO = "auto"
# A step beyond this is long enough for choosing within it to pay for the scoring.
_LONG_STEP = 0.05
# The baselines that cost the same as a method and need none; the second has what InfoBatch adds.
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("RandomPruning", {}),
    "random_rescaled": ("RandomPruning", {"rescale": True, "anneal": 0.125}),
}


@dataclass(frozen=True)
class MethodSpec:
    """One entry of `--methods`.

    Attributes:
        label: As it was written, `UCB(every_n_epochs=2)`; names the method in every table.
        path: Import path of the callback's class, or None for the baselines `full` and `short`.
        arguments: Its keyword arguments, as written.
    """

    label: str
    path: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def cls(self) -> type[DataSelector] | None:
        """The callback's class, imported when it is first asked for."""
        cls: type[DataSelector] | None = None if self.path is None else pkgutil.resolve_name(self.path)
        return cls

    def build(self, prune_ratio: float, seed: int) -> DataSelector:
        """Return a fresh callback; `prune_ratio` and `seed` are handed on where it takes them.

        Args:
            prune_ratio: The share that is dropped, unless the spec's arguments say otherwise.
            seed: Of the method's own random numbers, likewise.

        Raises:
            UserInputError: If the class refuses its arguments.
        """
        assert self.cls is not None, f"{self.label} is no callback"
        accepted = set(accepted_arguments(self.cls))
        common = {"prune_ratio": prune_ratio, "seed": seed}
        shared = {name: value for name, value in common.items() if name in accepted}
        try:
            return self.cls(**{**shared, **self.arguments})
        except Exception as error:
            raise UserInputError(f"{self.label} cannot be made: {error}") from error

    def written(self, prune_ratio: float) -> tuple[str, str, dict[str, Any]]:
        """Return how a user writes it: the class's name, where to import it from, and its arguments.

        Args:
            prune_ratio: As in `build`.

        Example:
            >>> parse_methods("random")[0].written(0.3)
            ('RandomPruning', 'lightning_dataselect', {'prune_ratio': 0.3})
        """
        assert self.cls is not None, f"{self.label} is no callback"
        ratio = {"prune_ratio": prune_ratio} if "prune_ratio" in accepted_arguments(self.cls) else {}
        inside = self.cls.__module__.startswith("lightning_dataselect.")
        path = "lightning_dataselect" if inside else self.cls.__module__
        return self.cls.__name__, path, {**ratio, **self.arguments}


def parse_methods(text: str) -> list[MethodSpec]:
    """Read `--methods`: names from the list, or dotted paths, with keyword arguments in brackets.

    Args:
        text: Comma-separated, each entry a name or a call with literal keyword arguments.

    Raises:
        UserInputError: If the text cannot be read, names no known method, or names one twice.

    Example:
        >>> [spec.label for spec in parse_methods("full, short")]
        ['full', 'short']
    """
    try:
        entries = ast.parse(f"[{text}]", mode="eval").body
    except SyntaxError as error:
        raise UserInputError(
            f"--methods {text!r} cannot be read: write names with commas between, "
            f"as in full,short,random,UCB(every_n_epochs=2).{hint_at_percent(text)}"
        ) from error
    assert isinstance(entries, ast.List)
    specs = [_read(entry) for entry in entries.elts]
    labels = [spec.label for spec in specs]
    twice = {label for label in labels if labels.count(label) > 1}
    if not specs or twice:
        what = f"names {', '.join(sorted(twice))} twice" if twice else "is empty"
        raise UserInputError(f"--methods {what}: name every method once, as in full,short,random.")
    return specs


def auto_methods(rehearsal: Rehearsal) -> str:
    """Return what `--methods auto` stands for on a task.

    The baselines, `Frontier` where there is one, and `InfoBatch`; with classes `KAKURENBO`, which reads how sure the
    model is of them, without classes `random`, as there is little to read; with long steps `ESWP`, which also chooses
    within batches.
    """
    known = {*CATALOG, *ALIASES}
    suits = ["KAKURENBO" if rehearsal.knows_classes else "random"]
    if rehearsal.step_seconds > _LONG_STEP:
        suits.append("ESWP")
    return ",".join([FULL, SHORT, *(name for name in ("Frontier", "InfoBatch", *suits) if name in known)])


def _read(entry: ast.expr) -> MethodSpec:
    label = ast.unparse(entry)
    call = entry if isinstance(entry, ast.Call) else ast.Call(entry, [], [])
    if not isinstance(call.func, ast.Name | ast.Attribute):
        raise UserInputError(f"{label!r} in --methods is no name of a method.")
    name = ast.unparse(call.func)
    if name in BASELINES:
        if call.keywords or call.args:
            raise UserInputError(f"{label}: {name} takes no arguments.")
        return MethodSpec(name)
    try:
        arguments = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError:
        arguments = None
    if arguments is None or call.args or "None" in arguments:
        raise UserInputError(
            f"{label} in --methods: give arguments by name, with plain values, "
            "as in UCB(every_n_epochs=2, uncertainty='el2n')."
        )
    name, preset = ALIASES.get(name, (name, {}))
    return MethodSpec(label, _find(name), {**preset, **arguments})


def _find(name: str) -> str:
    """The import path of a method's class; one of this package's own is not imported yet."""
    if name in CATALOG:
        return CATALOG[name].path
    if "." in name:
        return _checked(name)
    names = [*BASELINES, *ALIASES, *CATALOG]
    close = nearest(name, names)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}."
    raise UserInputError(f"There is no method {name!r}: {hint}")


def _checked(path: str) -> str:
    from lightning_dataselect.callbacks.selector import DataSelector

    try:
        cls = pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise UserInputError(f"The method {path} cannot be imported: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, DataSelector)):
        raise UserInputError(f"{path} is no subclass of lightning_dataselect.DataSelector.")
    return path


def parse_seeds(text: str) -> list[int]:
    """Read `--seeds`: how many, or which.

    Args:
        text: A number n, for the seeds 0 to n - 1, or a list with commas.

    Raises:
        UserInputError: If that is no seed at all, no whole number, or a seed twice.

    Example:
        >>> parse_seeds("3"), parse_seeds("4,2")
        ([0, 1, 2], [4, 2])
    """
    parts = [part for part in text.split(",") if part.strip()]
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    seeds = numbers if "," in text else list(range(*numbers)) if len(numbers) == 1 else []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserInputError(
            f"--seeds {text!r}: give how many seeds to run, at least 1, as in 3; or the seeds themselves, each once, as"
            " in 1,2,3."
        )
    return seeds
