"""Frontier: the callback, and the rule that it asks before every pass."""

from lightning_dataselect.methods.frontier.callback import Frontier
from lightning_dataselect.methods.frontier.rule import (
    Decision,
    Evidence,
    can_go,
    compare_held_back,
    decide,
    in_learnt_classes,
    second_mode,
    weigh_evidence,
)

__all__ = [
    "Decision",
    "Evidence",
    "Frontier",
    "can_go",
    "compare_held_back",
    "decide",
    "in_learnt_classes",
    "second_mode",
    "weigh_evidence",
]
