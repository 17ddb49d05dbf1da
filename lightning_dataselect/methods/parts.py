"""Scores and samplers by name, with their arguments: ``"dual"``, ``"stratified(cutoff=0.3)"``."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_dataselect.utils.arguments import did_you_mean, read_call
from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, UnexpectedArgumentError

if TYPE_CHECKING:
    from lightning_dataselect.methods.samplers.base import Sampler
    from lightning_dataselect.methods.scores.base import Score


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """The facts of a score or a sampler, known without importing it.

    Attributes:
        name: Its name on the command line and in ``score=`` or ``sampler=``.
        path: Import path of its class, below ``lightning_dataselect.methods``.
        arguments: Those it takes, with their defaults, as they are written in its brackets; ``""`` for none.
        what: A line on what it does.
        needs: What it reads of each sample besides, for a sampler, the score.
        source: Where it comes from.
    """

    name: str
    path: str
    arguments: str = ""
    what: str
    needs: str
    source: str

    @property
    def cls(self) -> type:
        """Its class, imported when it is first asked for."""
        cls: type = pkgutil.resolve_name(f"lightning_dataselect.methods.{self.path}")
        return cls


_CLASSES = "logits and targets"

SCORES = {
    part.name: part
    for part in (
        PartInfo(
            name="loss", path="scores.loss.LossScore", what="the last loss", needs="losses", source="any training step"
        ),
        PartInfo(
            name="el2n",
            path="scores.el2n.EL2NScore",
            what="the length of softmax minus target, averaged",
            needs=_CLASSES,
            source="arXiv 2107.07075",
        ),
        PartInfo(
            name="grand",
            path="scores.grand.GraNdScore",
            arguments="layers='last'",
            what="the length of the gradient, of the last layer or of all, averaged",
            needs="as EL2N and the input of the last layer, or the module's gradients",
            source="arXiv 2107.07075",
        ),
        PartInfo(
            name="forgetting",
            path="scores.forgetting.ForgettingScore",
            what="how often a sample is unlearnt",
            needs=_CLASSES,
            source="arXiv 1812.05159",
        ),
        PartInfo(
            name="margin",
            path="scores.margin.MarginScore",
            arguments="on='probabilities'",
            what="how far the best other class is ahead of the target, last time",
            needs=_CLASSES,
            source="the margin of classification",
        ),
        PartInfo(
            name="aum",
            path="scores.margin.AUMScore",
            arguments="on='probabilities'",
            what="the same, averaged: the area under the margin with its sign turned",
            needs=_CLASSES,
            source="arXiv 2001.10528, 2210.15809",
        ),
        PartInfo(
            name="dual",
            path="scores.dual.DUALScore",
            arguments="window=10",
            what="spread x (1 - mean) of the target's probability over a sliding window",
            needs=_CLASSES,
            source="arXiv 2502.06905",
        ),
        PartInfo(
            name="tdds",
            path="scores.tdds.TDDSScore",
            arguments="window=10, decay=0.9",
            what="how unevenly the predicted distribution moves, over a sliding window",
            needs=_CLASSES,
            source="arXiv 2311.13613",
        ),
    )
}
"""Name of each score -> what is known about it."""

SAMPLERS = {
    part.name: part
    for part in (
        PartInfo(
            name="highest",
            path="samplers.by_order.Highest",
            what="the highest scores",
            needs="nothing",
            source="common",
        ),
        PartInfo(
            name="lowest", path="samplers.by_order.Lowest", what="the lowest scores", needs="nothing", source="common"
        ),
        PartInfo(
            name="uniform",
            path="samplers.by_order.Uniform",
            what="any, whatever the score",
            needs="nothing",
            source="common",
        ),
        PartInfo(
            name="proportional",
            path="samplers.by_order.Proportional",
            what="drawn without replacement in proportion to the score",
            needs="nothing",
            source="common",
        ),
        PartInfo(
            name="window",
            path="samplers.by_order.Window",
            arguments="start=0.1",
            what="the highest scores but for the share `start` above them",
            needs="nothing",
            source="arXiv 2406.03057",
        ),
        PartInfo(
            name="stratified",
            path="samplers.by_order.Stratified",
            arguments="n_strata=50, cutoff=0.1",
            what="evenly from strata of the score, without the highest share `cutoff` (CCS)",
            needs="nothing",
            source="arXiv 2210.15809",
        ),
        PartInfo(
            name="beta",
            path="samplers.beta.Beta",
            arguments="exponent=4.0, concentration=15.0",
            what="by score x Beta density of the target's mean probability, which follows the prune ratio (DUAL)",
            needs=_CLASSES,
            source="arXiv 2502.06905",
        ),
        PartInfo(
            name="class_quota",
            path="samplers.class_quota.ClassQuota",
            arguments="temperature=1.0, clip=None, class_loss='importance'",
            what="a budget for each class by its size and loss, in it by softmax of the score (RCAP)",
            needs="class targets",
            source="arXiv 2606.11761",
        ),
    )
}
"""Name of each sampler -> what is known about it."""


def make_score(given: str | Score) -> Score:
    """Return the score that ``score=`` names; see `make_part`.

    Example:
        >>> make_score("dual(window=5)")
        DUALScore(window=5)
    """
    from lightning_dataselect.methods.scores.base import Score

    made: Score = make_part("score", given, SCORES, Score)
    return made


def make_sampler(given: str | Sampler) -> Sampler:
    """Return the sampler that ``sampler=`` names; see `make_part`.

    Example:
        >>> make_sampler("stratified(cutoff=0.3)")
        Stratified(n_strata=50, cutoff=0.3)
    """
    from lightning_dataselect.methods.samplers.base import Sampler

    made: Sampler = make_part("sampler", given, SAMPLERS, Sampler)
    return made


def written(part: Score | Sampler) -> str:
    """Return a score or a sampler as one writes it, in quotes; one of the user's own as its class does.

    Example:
        >>> written(make_score("dual(window=5)")), written(make_sampler("highest"))
        ("'dual(window=5)'", "'highest'")
    """
    given: Any = part
    for name, known in (SCORES | SAMPLERS).items():
        if type(part) is known.cls:
            values = [(field.name, getattr(part, field.name), field.default) for field in dataclasses.fields(given)]
            changed = ", ".join(f"{argument}={value!r}" for argument, value, usual in values if value != usual)
            return repr(f"{name}({changed})" if changed else name)
    return repr(part)


def make_part(argument: str, given: object, known: Mapping[str, PartInfo], base: type) -> Any:
    """Return what an argument names: an object as it is, or one made of a name and its arguments.

    Args:
        argument: Name of the argument, for messages.
        given: An instance of ``base``, or a text such as ``"stratified"`` or ``"stratified(cutoff=0.3)"``.
        known: What there is, by name.
        base: Class of what is made.

    Raises:
        ArgumentTypeError: If ``given`` is neither.
        InvalidArgumentError: If the text cannot be read, or names nothing that there is.
        UnexpectedArgumentError: If it gives an argument that is not taken.
    """
    if isinstance(given, base):
        return given
    if not isinstance(given, str):
        raise ArgumentTypeError(
            f"{argument}={given!r} is neither a name nor a {base.__name__}: give one of {', '.join(known)}."
        )
    name, arguments = read_call(argument, given)
    if name not in known:
        raise InvalidArgumentError(
            f"{argument}={given!r} is unknown.{did_you_mean(name, known)} There are {', '.join(known)}."
        )
    cls = known[name].cls
    taken = [field.name for field in dataclasses.fields(cls)]
    for unknown in arguments.keys() - set(taken):
        raise UnexpectedArgumentError(
            f"{argument}={given!r}: {name} takes no argument {unknown!r}.{did_you_mean(unknown, taken)}"
            f" It takes {', '.join(taken) or 'none'}."
        )
    return cls(**arguments)
