"""Numbers as they are shown: with as many digits as their spread allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

MISSING = "-"
_ALONE = 4  # significant digits of a number whose spread is unknown
_NO_SPREAD = 1e-5  # of the mean: what rounding alone makes, differences in single precision included
_LARGE, _SMALL = 1e6, 1e-4


@dataclass(frozen=True)
class Spread:
    """Numbers, one a seed, by their mean and sample standard deviation.

    Attributes:
        mean: Their mean.
        std: Their standard deviation (n - 1); NaN of a single one.
        n: How many.
    """

    mean: float
    std: float
    n: int


def spread(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951, n=2)
    """
    numbers = list(values)
    return Spread(fmean(numbers), stdev(numbers) if len(numbers) > 1 else math.nan, len(numbers))


def shown(value: Spread | None, *, signed: bool = False) -> str:
    """Return a mean and its spread, both to the digit that the spread makes sense of.

    The spread has two digits where they begin with 10 to 35, else one, as the Particle Data Group rounds.

    Args:
        value: None is shown as a dash.
        signed: Whether a plus is written, too.

    Example:
        >>> shown(Spread(0.8333, 2.02, 3), signed=True), shown(Spread(91.0, 0.12, 3)), shown(Spread(0.5, math.nan, 1))
        ('+0.8 ± 2.0', '91.00 ± 0.12', '0.5')
        >>> shown(Spread(16553505.0, 120000.0, 3)), shown(Spread(-0.0123, 0.0004, 3))
        ('(1.655 ± 0.012)e7', '-0.0123 ± 0.0004')
    """
    if value is None:
        return MISSING
    if not math.isfinite(value.mean):
        return str(value.mean)
    size = max(abs(value.mean), value.std if math.isfinite(value.std) else 0.0)
    power = math.floor(math.log10(size)) if size >= _LARGE or 0 < size < _SMALL else 0
    mean, std = value.mean / 10**power, value.std / 10**power
    end = f"e{power}" if power else ""
    if not std > _NO_SPREAD * abs(mean):
        text = _signed(_alone(mean), signed)
        return f"{text}{end}" + (" ± 0" if value.n > 1 else "")
    places = _places(std)
    text = f"{_signed(_fixed(mean, places), signed)} ± {_fixed(std, places)}"
    return f"({text}){end}" if power else text


def _alone(number: float) -> str:
    if number == 0:
        return "0"
    places = max(0, _ALONE - 1 - math.floor(math.log10(abs(number))))
    text = _fixed(number, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _places(std: float) -> int:
    """Decimal places such that the spread has one digit or two."""
    first_two = math.floor(std / 10 ** (math.floor(math.log10(std)) - 1) + 1e-9)
    digits = 2 if first_two <= 35 else 1
    return max(0, digits - 1 - math.floor(math.log10(std)))


def _fixed(number: float, places: int) -> str:
    text = f"{number:,.{places}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def _signed(text: str, signed: bool) -> str:
    return f"+{text}" if signed and not text.startswith("-") and text.strip("0.,") else text


def share(part: float) -> str:
    """Return a share in whole percent.

    Example:
        >>> share(0.204), share(-0.7)
        ('20%', '-70%')
    """
    return f"{round(100 * part)}%"
