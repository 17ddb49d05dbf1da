"""The checkpoint that a fit resumes from: a clear error if the file does not contain one, and the loaders' part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_dataselect.trainer.patching import Restore, patch_attribute
from lightning_dataselect.utils.errors import UnreadableCheckpointError
from lightning_dataselect.utils.reading import fault_of_checkpoint

_WRITTEN_BY = "pytorch-lightning_version"
_LOADERS = "combined_loader"
_WAY_OUT = "Resume from an earlier checkpoint, or begin anew without ckpt_path."


def explain_checkpoint_faults(trainer: pl.Trainer) -> Restore:
    """Make the refusal of a truncated or damaged file, or one that is not a Trainer's, say what is wrong with it.

    Args:
        trainer: The Trainer of a fit that has not loaded its checkpoint yet.

    Returns:
        A function that undoes this.
    """
    load = trainer.strategy.load_checkpoint

    def load_checkpoint(checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        named = f"The checkpoint {str(checkpoint_path)!r}"
        try:
            checkpoint = load(checkpoint_path, *args, **kwargs)
        except Exception as error:
            fault = fault_of_checkpoint(Path(checkpoint_path))
            if fault is None:
                raise
            raise UnreadableCheckpointError(f"{named} {fault}. {_WAY_OUT}") from error
        if not isinstance(checkpoint, Mapping):
            raise UnreadableCheckpointError(
                f"{named} is none of a Trainer: it holds a {type(checkpoint).__name__}. {_WAY_OUT}"
            )
        if _WRITTEN_BY not in checkpoint:
            keys = ", ".join(repr(key) for key in list(checkpoint)[:3])
            raise UnreadableCheckpointError(
                f"{named} is none of a Trainer: it holds {len(checkpoint)} entries ({keys}, ...), and nothing about"
                " the fit that they come from. If they are weights, load them with"
                " module.load_state_dict(torch.load(...)) and start a new fit without ckpt_path."
            )
        return checkpoint

    return patch_attribute(trainer.strategy, "load_checkpoint", load_checkpoint)


def loader_states(checkpoint: Mapping[str, Any]) -> list[Any]:
    """Return where the train loaders of this rank are, as its fit loop has written it; empty if none of them says so.

    Uses ``combined_loader`` in the fit loop's part of the checkpoint. Lightning saves that of the first rank alone.

    Example:
        >>> loader_states({"loops": {"fit_loop": {"state_dict": {"combined_loader": [{"read": 3}]}}}})
        [{'read': 3}]
        >>> loader_states({})
        []
    """
    return list(_of_fit_loop(checkpoint).get(_LOADERS, ()))


def set_loader_states(checkpoint: Mapping[str, Any], states: Sequence[Any]) -> None:
    """Have the fit that resumes from ``checkpoint`` put its train loaders where ``states`` say, on this rank.

    Example:
        >>> checkpoint = {"loops": {"fit_loop": {"state_dict": {"combined_loader": [{"read": 3}]}}}}
        >>> set_loader_states(checkpoint, [{"read": 4}])
        >>> loader_states(checkpoint)
        [{'read': 4}]
    """
    _of_fit_loop(checkpoint)[_LOADERS] = list(states)


def has_ended(state: Any) -> bool:
    """Return whether torchdata's ``StatefulDataLoader`` had come to its end when it wrote ``state``.

    Example:
        >>> has_ended({"_iterator_finished": True}), has_ended({"read": 3})
        (True, False)
    """
    return isinstance(state, Mapping) and state.get("_iterator_finished") is True


def _of_fit_loop(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
    return found
