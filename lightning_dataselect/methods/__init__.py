"""The selection methods, one file a paper."""

from lightning_dataselect.methods.dynamic_pruning import UCB, EpsilonGreedy
from lightning_dataselect.methods.el2n import EL2N
from lightning_dataselect.methods.forgetting import Forgetting
from lightning_dataselect.methods.grand import GraNd
from lightning_dataselect.methods.infobatch import InfoBatch
from lightning_dataselect.methods.random_pruning import RandomPruning
from lightning_dataselect.methods.seta import SeTa

__all__ = [
    "EL2N",
    "UCB",
    "EpsilonGreedy",
    "Forgetting",
    "GraNd",
    "InfoBatch",
    "RandomPruning",
    "SeTa",
]
