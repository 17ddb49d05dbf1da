"""How much is dropped from epoch to epoch: a number, a course from one to another, or a function of the epoch."""

from __future__ import annotations

import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from lightning_dataselect.utils.arguments import (
    accepted_arguments,
    did_you_mean,
    read_call,
    refuse_unknown,
    refuse_unnamed,
)
from lightning_dataselect.utils.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    TrainerSettingsError,
    UnexpectedArgumentError,
)
from lightning_dataselect.utils.validation import check_choice, check_count, check_prune_ratio, hint_at_percent

if TYPE_CHECKING:
    from typing_extensions import Self

Shape = Literal["linear", "cosine", "exponential"]
_SHAPES: tuple[str, ...] = get_args(Shape)


@dataclass(frozen=True, kw_only=True)
class RatioSchedule:
    """A prune ratio that goes from one value to another while a fit prunes.

    With ``t`` from 0 in the first pruned epoch to 1 in the last, ``r0`` and ``r1`` the ratios at the ends:

        linear       r = r0 + (r1 - r0) t
        cosine       r = r0 + (r1 - r0) (1 - cos(pi t)) / 2
        exponential  1 - r = (1 - r0)^(1-t) (1 - r1)^t:  the share that is kept changes by the same factor each epoch

    A choice that is kept for several epochs, by ``every_n_epochs``, has the ratio of the first of them.

    Args:
        start: Ratio of the first epoch that is pruned, after the warm-up, in [0, 1).
        end: Ratio of the last one, before annealing, in [0, 1).
        shape: ``"linear"`` (default), ``"cosine"`` or ``"exponential"``.
        n_epochs: Epochs that it takes, the first and the last included; ``end`` stays from then on. Default None: all
            that are pruned, which a Trainer without ``max_epochs`` does not tell.

    Raises:
        ArgumentTypeError: If an argument is of the wrong type.
        InvalidArgumentError: If one is out of its range.

    Example:
        >>> schedule = RatioSchedule(start=0.2, end=0.8)
        >>> [schedule.ratio(epoch, n_epochs=4) for epoch in range(5)]
        [0.2, 0.4, 0.6, 0.8, 0.8]
    """

    start: float
    end: float
    shape: Shape = "linear"
    n_epochs: int | None = None

    other_words: ClassVar[Mapping[str, str]] = {
        "begin": "start",
        "stop": "end",
        **dict.fromkeys(("epochs", "max_epochs", "num_epochs"), "n_epochs"),
    }

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments without a name, of another one, and one end without the other."""
        refuse_unnamed(cls, args)
        refuse_unknown(cls, [name for name in kwargs if name not in accepted_arguments(cls)])
        # copies are made without arguments, and given their attributes afterwards
        if kwargs and (missing := _missing_ends(kwargs)):
            raise UnexpectedArgumentError(f"RatioSchedule lacks {missing}: give both ends, start and end.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_prune_ratio("start", self.start)
        check_prune_ratio("end", self.end)
        check_choice("shape", self.shape, _SHAPES)
        if self.n_epochs is not None:
            check_count("n_epochs", self.n_epochs, minimum=1)

    @property
    def largest(self) -> float:
        """The largest ratio that it takes."""
        return max(self.start, self.end)

    def ratio(self, epoch: int, n_epochs: int | None) -> float:
        """Return the ratio of an epoch.

        Args:
            epoch: Counted from the first one that is pruned, 0-based.
            n_epochs: How many are pruned in all; None if that is not known.

        Raises:
            TrainerSettingsError: If neither the schedule nor the fit says how long it takes.
        """
        length = n_epochs if self.n_epochs is None else self.n_epochs
        if length is None:
            raise TrainerSettingsError(
                f"prune_ratio={self!r} goes on to the last epoch, but the Trainer does not say how many there are: give"
                " it max_epochs, or give the schedule n_epochs."
            )
        if epoch >= length - 1:
            return self.start if length == 1 and epoch == 0 else self.end
        return self._between(max(epoch, 0) / (length - 1))

    def average(self) -> float:
        """Return the mean ratio over its course."""
        steps = 100
        return sum(self._between((step + 0.5) / steps) for step in range(steps)) / steps

    def _between(self, t: float) -> float:
        if self.shape == "exponential":
            ratio = 1 - (1 - self.start) ** (1 - t) * (1 - self.end) ** t
        else:
            weight = t if self.shape == "linear" else (1 - math.cos(math.pi * t)) / 2
            ratio = self.start + (self.end - self.start) * weight
        # rounded, because numbers of samples are counted by the ratio as it is written
        return round(ratio, 9)


PruneRatio: TypeAlias = float | str | RatioSchedule | Callable[[int], float]
"""The share that is dropped: a number, a `RatioSchedule`, or a function of the 0-based epoch, which must give the same
for an epoch each time. On a command line a schedule is written ``linear(start=0.2, end=0.7)``, and a function by its
import path, as in ``my_package.ratio_of``."""


def read_prune_ratio(given: object) -> float | RatioSchedule | Callable[[int], float]:
    """Check what a user gave as ``prune_ratio``, and make a schedule or a function of what was written as text.

    Raises:
        ArgumentTypeError: If it is nothing of the kind, or a function that does not take one epoch.
        InvalidArgumentError: If a number is out of its range, or a text names no schedule and nothing that can be
            called.
        UnexpectedArgumentError: If a schedule is given an argument that it does not take.

    Example:
        >>> read_prune_ratio("cosine(start=0.2, end=0.7)")
        RatioSchedule(start=0.2, end=0.7, shape='cosine', n_epochs=None)
    """
    if isinstance(given, RatioSchedule):
        return given
    if isinstance(given, Mapping):
        return _schedule(given, dict(given))
    if isinstance(given, str):
        return _of_text(given)
    if callable(given):
        return _of_epochs(given)
    if isinstance(given, Sequence):
        raise ArgumentTypeError(
            f"prune_ratio={given!r} is not a number: give one, a RatioSchedule(start=..., end=...), or a function of"
            " the epoch, as in lambda epoch: ratios[epoch] for a ratio of each epoch."
        )
    return check_prune_ratio("prune_ratio", given)


def _of_text(text: str) -> RatioSchedule | Callable[[int], float]:
    if _is_number(text):
        raise InvalidArgumentError(f"prune_ratio={text!r} is text: give the number itself, without quotes.")
    if "." in text and all(map(str.isidentifier, text.split("."))):
        try:
            found = pkgutil.resolve_name(text)
        except (ImportError, AttributeError) as error:
            raise InvalidArgumentError(
                f"prune_ratio={text!r} cannot be imported: {error}. Give the import path of a function of the epoch."
            ) from None
        if not callable(found):
            raise InvalidArgumentError(f"prune_ratio={text!r} is {found!r}, which cannot be called.")
        return _of_epochs(found)
    try:
        shape, arguments = read_call("prune_ratio", text)
    except InvalidArgumentError:
        shape, arguments = "", {}
    if shape not in _SHAPES:
        raise InvalidArgumentError(
            f"prune_ratio={text!r} is neither a number nor a schedule.{did_you_mean(shape, _SHAPES)}"
            f"{hint_at_percent(text)} Write one as in"
            " 'linear(start=0.2, end=0.7)'; its shapes are linear, cosine and exponential."
        )
    return _schedule(text, {"shape": shape} | arguments)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _schedule(given: object, arguments: dict[str, object]) -> RatioSchedule:
    taken = [field.name for field in fields(RatioSchedule)]
    for name in arguments.keys() - set(taken):
        raise UnexpectedArgumentError(
            f"prune_ratio={given!r}: a schedule takes no argument {name!r}.{did_you_mean(str(name), taken)} It takes"
            f" {', '.join(taken)}."
        )
    if missing := _missing_ends(arguments):
        raise InvalidArgumentError(f"prune_ratio={given!r} lacks {missing}: give both ends.")
    return RatioSchedule(**arguments)  # type: ignore[arg-type]


def _missing_ends(arguments: Mapping[str, object]) -> str:
    return " and ".join(name for name in ("start", "end") if name not in arguments)


def _of_epochs(function: Callable[..., float]) -> Callable[[int], float]:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        raise ArgumentTypeError(
            f"prune_ratio={function!r} takes {inspect.signature(function)}, but is called with one argument: the"
            " 0-based epoch."
        ) from None
    except ValueError:  # of some that are written in C nothing is known
        pass
    return function


def check_ratio_of_epoch(function: Callable[[int], float], epoch: int) -> float:
    """Return what a user's function gives for an epoch.

    Raises:
        ArgumentTypeError: If that is no number.
        InvalidArgumentError: If it is outside [0, 1).

    Example:
        >>> check_ratio_of_epoch(lambda epoch: 0.1 * epoch, 3)
        0.30000000000000004
    """
    return check_prune_ratio(f"prune_ratio({epoch})", function(epoch))


def first_ratio(given: float | RatioSchedule | Callable[[int], float], epoch: int) -> float:
    """Return the ratio that a fit begins with.

    Args:
        given: Of `read_prune_ratio`.
        epoch: The 0-based epoch that is pruned first.

    Example:
        >>> first_ratio(RatioSchedule(start=0.2, end=0.7), 1), first_ratio(lambda epoch: epoch / 10, 1)
        (0.2, 0.1)
    """
    if isinstance(given, RatioSchedule):
        return given.start
    return check_ratio_of_epoch(given, epoch) if callable(given) else given
