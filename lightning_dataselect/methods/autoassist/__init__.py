"""AutoAssist: the callback, and the Assistant network that learns alongside the training."""

from lightning_dataselect.methods.autoassist.callback import AutoAssist

__all__ = ["AutoAssist"]
