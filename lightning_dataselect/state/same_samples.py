"""Refuse to continue with state that belongs to other samples, or to samples identified in another way."""

from __future__ import annotations

from lightning_dataselect.state.store import Identity
from lightning_dataselect.utils.errors import CheckpointMismatchError

_KNOWN_BY = {
    Identity.INDEX: "by their index in a map-style data set",
    Identity.KEY: "by their keys in a stream",
    Identity.NONE: "by nothing, in a stream without keys",
}


def check_same_samples(n: int, *, fit: int | None, checkpoint: int | None) -> None:
    """Refuse to continue with the scores of other samples.

    Args:
        n: Number of samples of the train loader's data set.
        fit: Number of samples that the fit began with, if it has begun.
        checkpoint: Number of samples in the checkpoint, if there is one.

    Raises:
        ValueError: If they differ.
    """
    for origin, before in {"checkpoint was written with": checkpoint, "fit began with": fit}.items():
        if before is not None and before != n:
            raise CheckpointMismatchError(
                f"The {origin} a data set of {before} samples, but the train loader's has {n}:"
                " the scores belong to other samples. Use the same data set, or load the"
                " weights alone into a new fit."
            )


def check_same_identity(now: Identity, before: Identity | None) -> None:
    """Refuse to continue with samples that are identified in another way than before, if there is a before.

    Raises:
        CheckpointMismatchError: If they are.
    """
    if before not in (None, now):
        raise CheckpointMismatchError(
            f"The fit goes on from one in which samples were known {_KNOWN_BY[before]}, but now they are known"
            f" {_KNOWN_BY[now]}: what was measured cannot be found again. Give the loader and the `sample_id`"
            " of before, or load the weights alone into a new fit."
        )
