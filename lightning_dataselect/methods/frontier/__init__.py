"""Frontier: the callback, and the rule that it asks before every pass."""

from lightning_dataselect.methods.frontier.callback import Frontier
from lightning_dataselect.methods.frontier.evidence import Evidence, in_learnt_classes, second_mode, weigh_evidence
from lightning_dataselect.methods.frontier.held_out import HeldOut
from lightning_dataselect.methods.frontier.left_out import find_contradicted, let_go
from lightning_dataselect.methods.frontier.rule import Decision, decide
from lightning_dataselect.methods.frontier.trial import compare_held_back

__all__ = [
    "Decision",
    "Evidence",
    "Frontier",
    "HeldOut",
    "compare_held_back",
    "decide",
    "find_contradicted",
    "in_learnt_classes",
    "let_go",
    "second_mode",
    "weigh_evidence",
]
