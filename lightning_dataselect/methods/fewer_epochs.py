"""Train on everything for fewer epochs: the baseline that a method which drops samples has to beat at equal compute.

A fit that is planned for ``E`` epochs ends after ``budget E`` of them, in the middle of one if need be, and every
schedule runs through by then: a schedule by steps is at ``s`` after the share ``s`` of the budget, and one by epochs is
stepped, after epoch ``e``, until it is where ``(e + 1) / budget`` epochs would have brought it. That is full data with
its schedule fitted to the compute that there is, without a change to the module's own schedules.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from lightning_dataselect.callbacks.selector import DataSelector
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.utils.errors import UnexpectedArgumentError
from lightning_dataselect.utils.validation import SET_LEVEL, check_budget


class FewerEpochs(DataSelector):
    """Train on everything until a share of the planned compute is spent, with every schedule at its end by then.

    Training steps run unchanged: no losses are read, so no step is refused or slowed down.

    Args:
        budget: Share of the planned compute to spend, in (0, 1]. Default 0.5.
        seed: Seed of the order of the samples.
        lr_schedule: As in `DataSelector`.
        log: As in `DataSelector`.

    Raises:
        ArgumentTypeError: If an argument is of the wrong type.
        InvalidArgumentError: If an argument is out of its range.
        UnexpectedArgumentError: If an argument of `DataSelector` is given that means nothing here.

    Example:
        >>> FewerEpochs(budget=0.25).prune_ratio
        0.0
    """

    needs_losses: ClassVar[bool] = False
    unused: ClassVar[frozenset[str]] = SET_LEVEL | {
        "warmup_epochs",
        "anneal",
        "sample_loss",
        "sample_id",
        "history_size",
        "start_from",
        "logged_loss",
    }
    info: ClassVar[MethodInfo] = CATALOG["FewerEpochs"]
    chosen_by = "budget"

    def __init__(self, *, budget: float = 0.5, **common: Any) -> None:
        for name in sorted(self.unused & common.keys()):
            raise UnexpectedArgumentError(
                f"{type(self).__name__} has no use for {name}={common[name]!r}: it trains on everything, for as long as"
                " `budget` lasts. Leave it out, or give a method that drops samples a budget: InfoBatch(budget=0.5)."
            )
        super().__init__(
            prune_ratio=0.0,
            warmup_epochs=0,
            anneal=0.0,
            every_n_epochs=1,
            sample_loss="auto",
            balance=None,
            whole_batches=True,
            sample_id=None,
            history_size=1_000_000,
            start_from=None,
            logged_loss="unweighted",
            budget=check_budget(budget),
            **common,
        )

    @property
    def chooses_epochs(self) -> bool:
        """False: every epoch takes all that there is."""
        return False

    def run_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the step as it is, and count its samples."""
        assert self.context is not None and self.batch is not None
        self.context.count_batch(self.batch.indices)
        return step(*args, **kwargs)
