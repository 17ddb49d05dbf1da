"""Check whether the selectors of a fit go together: one for each of several train loaders."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_dataselect.state.policy import SelectionPolicy
from lightning_dataselect.utils.errors import TrainerSettingsError, UnsupportedLoaderError


def check_selectors(trainer: pl.Trainer) -> bool:
    """Return whether the Trainer has several selectors, each for a train loader of its own.

    Raises:
        TrainerSettingsError: If several are for one loader, or some of them cannot work beside others.
    """
    selectors = [c for c in trainer.callbacks if isinstance(c, SelectionPolicy)]  # type: ignore[attr-defined]
    names = ", ".join(type(selector).__name__ for selector in selectors)
    loaders = [selector.loader for selector in selectors]
    if len({id(selector) for selector in selectors}) < len(selectors):
        raise TrainerSettingsError(
            f"The same selector is in the callbacks of the Trainer more than once ({names}). List it once."
        )
    if len(selectors) < 2:
        return False
    if None in loaders:
        one = type(selectors[loaders.index(None)]).__name__
        raise TrainerSettingsError(
            f"The Trainer has {len(selectors)} selectors ({names}), but only one can decide which samples an"
            " epoch trains on. Keep one of them. If the batches come from several train loaders, each can have a"
            f" selector: name the loader, as in {one}(loader='labelled')."
        )
    twice = next((name for name in loaders if loaders.count(name) > 1), None)
    if twice is not None:
        raise TrainerSettingsError(
            f"The Trainer has {loaders.count(twice)} selectors for loader={twice!r} ({names}), but only one can decide"
            " which of its samples an epoch trains on. Keep one of them, or name another loader."
        )
    for selector in selectors:
        _refuse_in_company(selector)
    if len(schedules := dict.fromkeys(selector.lr_schedule for selector in selectors)) > 1:
        raise TrainerSettingsError(
            f"The Trainer's selectors ({names}) have lr_schedule={' and '.join(map(repr, schedules))}, but there is one"
            " learning rate for all loaders. Give all of them the same."
        )
    return True


def refuse_stream_in_company(policy: SelectionPolicy) -> None:
    """Refuse to select from a stream where another loader has a selector, too.

    Raises:
        UnsupportedLoaderError: Always.
    """
    name = type(policy).__name__
    raise UnsupportedLoaderError(
        f"loader={policy.loader!r} is a stream, whose length is not known before an epoch ends, so {name} cannot choose"
        " from it beside the selector of another train loader. Keep one selector, or give that loader a map-style data"
        " set."
    )


def _refuse_in_company(selector: SelectionPolicy) -> None:
    name, loader = type(selector).__name__, selector.loader
    if selector.chooses_within_batches:
        raise TrainerSettingsError(
            f"{name}(loader={loader!r}) chooses within batches: it runs the step to score them, and cuts them, while"
            " the selector of another train loader reads the same step. Beside another selector, take a method that"
            " chooses between epochs, such as InfoBatch or RandomPruning; or keep one selector."
        )
