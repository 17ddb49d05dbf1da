"""A score and a sampler, joined: measured in the first epochs or given, then one subset, or a new one each time."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_dataselect.callbacks.fit_local import FitLocal
from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.fit.context import FitContext
from lightning_dataselect.methods.parts import written
from lightning_dataselect.methods.samplers.base import Sampler, choose_unknown_first, is_unknown
from lightning_dataselect.methods.scores.base import Score
from lightning_dataselect.numerics.masks import marked, taken
from lightning_dataselect.numerics.sampling import is_ascending
from lightning_dataselect.numerics.seeding import epoch_generator
from lightning_dataselect.numerics.sizes import keep_count
from lightning_dataselect.state.class_history import UNKNOWN
from lightning_dataselect.state.load_values import ValueSource, load_values
from lightning_dataselect.state.selection import Observation, Selection
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.arguments import accepted_arguments
from lightning_dataselect.utils.errors import InvalidArgumentError, UnexpectedArgumentError


def load_scores(source: ValueSource | Sequence[ValueSource]) -> Tensor:
    """Load scores measured before, averaged over several runs, as in the papers on static scores.

    Args:
        source: One source, or a sequence of them, one a run.

    Returns:
        float32 (N,), NaN where no run has measured a sample.

    Raises:
        ValueError: If a source is not one-dimensional or of an unknown kind, or the runs differ
            in length.

    Example:
        >>> load_scores([torch.tensor([1.0, 2.0]), torch.tensor([3.0, float("nan")])])
        tensor([2., 2.])
    """
    if isinstance(source, str | Path | Tensor) or not isinstance(source, Sequence):
        return load_values(source, column="score", argument="scores")
    runs = [load_values(one, column="score", argument="scores") for one in source]
    lengths = sorted({len(run) for run in runs})
    if len(lengths) != 1:
        raise InvalidArgumentError(
            f"scores={source!r} have the lengths {lengths}: give one or more runs on one data set."
        )
    return torch.stack(runs).nanmean(0)


class ScoredSelector(DataSelector):
    """Score samples, and take some of them by their scores.

    A method on it sets :attr:`score` and :attr:`sampler`, then calls this constructor.

    Args:
        warmup_epochs: Epochs on all data in which scores are measured; None for as many as the score asks for, or 0 if
            there is nothing to measure.
        scores: Scores measured before; None to measure them.
        **common: Arguments of `DataSelector`.

    Raises:
        InvalidArgumentError: If there is no epoch to measure in, or score and sampler do not go together.
    """

    score: Score
    sampler: Sampler
    dynamic: bool = False
    """True to go on measuring, and to choose anew each time; False for one subset for good."""

    gives_weights: ClassVar[bool] = False

    _rater = FitLocal[Score | None](None)

    def __init__(
        self,
        *,
        warmup_epochs: int | None = None,
        scores: ValueSource | Sequence[ValueSource] | None = None,
        **common: Any,
    ) -> None:
        self._given = None if scores is None else load_scores(scores)
        if self._given is not None and self._given.isnan().all():
            raise InvalidArgumentError(
                f"scores= of {len(self._given)} samples holds no number, for no sample was measured: leave it out, and"
                f" {type(self).__name__} measures them."
            )
        fewest = self._fewest_epochs()
        if warmup_epochs is None:
            warmup_epochs = max(fewest, 0 if self.dynamic or not self._rates else self.score.measuring_epochs)
        super().__init__(warmup_epochs=warmup_epochs, **common)
        self.needs_losses = self._rates  # type: ignore[misc]
        if self.warmup_epochs < fewest:
            what = type(self).__name__ if self._rates else f"{type(self).__name__}'s sampler {written(self.sampler)}"
            ways = [", a shorter window"] if hasattr(self.score, "window") else []
            raise InvalidArgumentError(
                f"warmup_epochs={warmup_epochs} leaves {what} nothing to measure: give at least {fewest}"
                f"{''.join([*ways, ', or scores= from an earlier run']) if self._rates else ''}."
            )
        self._refuse_without_effect()
        self._check_parts()

    def _refuse_without_effect(self) -> None:
        name = type(self).__name__
        if self._given is not None:
            arguments = accepted_arguments(type(self))
            for part in fields(self.score):  # type: ignore[arg-type]
                argument, value = arguments.get(part.name), getattr(self.score, part.name)
                if argument is not None and value != argument.default:
                    raise InvalidArgumentError(
                        f"{part.name}={value!r} says how {name} measures scores, but scores= are given, so there is"
                        " nothing to measure: leave one of the two out."
                    )
        if not self.dynamic and self.ratio_schedule is None and self.every_n_epochs > 1:
            raise UnexpectedArgumentError(
                f"{name} has no use for every_n_epochs={self.every_n_epochs}: it chooses one subset, and keeps it."
                " Leave it out, or take ScoreSelector(dynamic=True), which chooses again."
            )

    @property
    def _rates(self) -> bool:
        """True if scores are measured: none were given, and the sampler reads them."""
        return self._given is None and self.sampler.reads_scores

    def _fewest_epochs(self) -> int:
        """Return the epochs on all data without which there would be nothing to choose by."""
        return max(self.score.fewest_epochs if self._rates else 0, 1 if self.sampler.columns() else 0)

    def _check_parts(self) -> None:
        below = self.score.is_signed if self._given is None else bool((self._given < 0).any())
        if self.sampler.draws_by_score and below:
            scores = f"score={written(self.score)}" if self._given is None else "scores="
            raise InvalidArgumentError(
                f"sampler={written(self.sampler)} draws by the score as a weight, but {scores} has values below zero:"
                " take a score that has none, say 'el2n' or 'dual', or a sampler that goes by order, say 'stratified'"
                " or 'window'."
            )
        if self.sampler.is_of_classes and self.balance:
            raise InvalidArgumentError(
                f"balance={self.balance!r} selects within each class, but sampler={written(self.sampler)} makes budgets"
                " for the classes itself: leave one of them out."
            )

    def measures(self, epoch: int) -> bool:
        """Return whether what is seen in ``epoch`` is measured."""
        return self.dynamic or self.in_warmup(epoch)

    @property
    def scores(self) -> Tensor:
        """The scores measured or given, float32 (N,), on the CPU; NaN for a sample never measured."""
        return super().scores if self._given is None else self._given

    @property
    def needs_extra_forward(self) -> bool:
        """True if the score takes a pass of its own."""
        return self._rates and self.score.needs_extra_forward

    @property
    def needs_one_loader(self) -> bool:
        """True if the score needs one."""
        return (self._rates and self.score.needs_one_loader) or super().needs_one_loader

    def columns(self) -> dict[str, float]:
        """Name the columns of the score and of the sampler."""
        return (self.score.columns() if self._rates else {}) | self.sampler.columns()

    def on_fit_setup(self, context: FitContext) -> None:
        """Get ready to measure."""
        if self._rates:
            self._rater = self.score.open(context, lambda: self.measures(context.epoch))

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure what the score takes a pass of its own for, then train."""
        assert self.batch is not None and self.context is not None
        if self._rater is not None and self.measures(self.state.plan.epoch) and not self.context.is_repeated:
            extra = self._rater.before_step(step, args, kwargs, len(self.batch))
            self.state.count_samples(forward=extra, backward=extra)
        return super().run_step(step, args, kwargs)

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Rate the batch, and show it to the sampler, while there is something to measure."""
        if not self.measures(seen.epoch):
            return
        if self._rates:
            (self._rater or self.score).rate(seen, store)
        self.sampler.observe(seen, store)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch, and let go of what scores no more are made of."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.context is not None and not self.measures(self.state.plan.epoch):
            for name in self.score.vectors if self._rates else ():
                self.store.remove_vectors(name)

    def line_up(self, scores: Tensor) -> Tensor:
        """Return what the sampler has the samples stand in line by, those without a score first."""
        scores = scores if self._given is None else self._given
        known = ~is_unknown(scores)
        line = torch.full_like(scores, torch.nan)
        line.masked_scatter_(
            known, self.sampler.line_up(taken(scores, known), lambda name: taken(self.column(name), known))
        )
        return line.masked_fill_(self._are_ignored(scores), -torch.inf)

    def select(self, epoch: int, scores: Tensor, generator: torch.Generator) -> Selection:
        """Let the sampler choose: by the same random numbers each time, unless the method is dynamic."""
        scores = self._among(scores)
        if not self.dynamic:
            generator = epoch_generator(self.draw_seed, 0, "static")
        k = keep_count(len(scores), self.prune_ratio)
        ignored = self._are_ignored(scores)
        if not bool(ignored.any()):
            chosen = choose_unknown_first(self.sampler, scores, k, generator, self.column)
            return Selection(chosen if is_ascending(chosen) else chosen.sort().values)
        others, ignored = (~ignored).nonzero().squeeze(1), ignored.nonzero().squeeze(1)
        n = min(k, len(others))
        chosen = choose_unknown_first(self.sampler, scores[others], n, generator, lambda c: self.column(c)[others])
        return Selection(torch.cat([others[chosen], ignored[: k - n]]).sort().values)

    def _are_ignored(self, scores: Tensor) -> Tensor:
        """Return which samples have no score because the loss ignores their targets, bool (n,): they teach nothing."""
        if not self._rates or not self.run_state.has_begun or not self.store.knows_classes:
            return torch.zeros(len(scores), dtype=torch.bool)
        unknown = is_unknown(scores)
        if not bool(unknown.any()):
            return unknown
        label, predicted = self.column("label"), self.column("predicted")

        def is_ignored(part: slice) -> Tensor:
            return unknown[part] & (label[part] == UNKNOWN) & (predicted[part] != UNKNOWN)

        return marked(len(scores), is_ignored, out=unknown)

    def _among(self, scores: Tensor) -> Tensor:
        """Return the scores, or those that were given for the same samples."""
        if self._given is None:
            return scores
        subset = self.run_state.subset
        n = len(scores) if subset is None else self.store.n
        if len(self._given) != n:
            raise InvalidArgumentError(
                f"{type(self).__name__} was given {len(self._given)} scores, but the data set has {n} samples: give"
                " the scores of this data set."
            )
        return self._given if subset is None else self._given[subset]
