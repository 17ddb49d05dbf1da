"""The selection methods, one file a paper; each is imported when it is first asked for."""

from typing import TYPE_CHECKING

from lightning_dataselect.methods.catalog import CATALOG

if TYPE_CHECKING:
    from lightning_dataselect.methods.autoassist.callback import AutoAssist
    from lightning_dataselect.methods.ccs import CCS
    from lightning_dataselect.methods.divbs import DivBS
    from lightning_dataselect.methods.dual import DUAL
    from lightning_dataselect.methods.dynamic_pruning import UCB, EpsilonGreedy
    from lightning_dataselect.methods.el2n import EL2N
    from lightning_dataselect.methods.evolved_sampling import ESWP, EvolvedSampling
    from lightning_dataselect.methods.fewer_epochs import FewerEpochs
    from lightning_dataselect.methods.forgetting import Forgetting
    from lightning_dataselect.methods.frontier.callback import Frontier
    from lightning_dataselect.methods.grand import GraNd
    from lightning_dataselect.methods.ies import IES
    from lightning_dataselect.methods.infobatch import InfoBatch
    from lightning_dataselect.methods.kakurenbo import KAKURENBO
    from lightning_dataselect.methods.orderdp import OrderDP
    from lightning_dataselect.methods.progressive_dropout import DBPD, SMRD, SRD
    from lightning_dataselect.methods.random_pruning import RandomPruning
    from lightning_dataselect.methods.rcap import RCAP
    from lightning_dataselect.methods.rho_loss import RHOLoss
    from lightning_dataselect.methods.score_selector import ScoreSelector
    from lightning_dataselect.methods.selective_backprop import SelectiveBackprop
    from lightning_dataselect.methods.seta import SeTa
    from lightning_dataselect.methods.swiftlearn import SwiftLearn
    from lightning_dataselect.methods.tdds import TDDS

__all__ = [
    "DBPD",
    "CCS",
    "DUAL",
    "EL2N",
    "ESWP",
    "IES",
    "KAKURENBO",
    "SMRD",
    "SRD",
    "RCAP",
    "TDDS",
    "UCB",
    "AutoAssist",
    "DivBS",
    "EpsilonGreedy",
    "EvolvedSampling",
    "FewerEpochs",
    "Forgetting",
    "Frontier",
    "GraNd",
    "InfoBatch",
    "OrderDP",
    "RHOLoss",
    "RandomPruning",
    "SeTa",
    "ScoreSelector",
    "SelectiveBackprop",
    "SwiftLearn",
]

if not TYPE_CHECKING:  # so that a type checker knows a wrong name

    def __getattr__(name: str) -> object:
        if name not in CATALOG:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return CATALOG[name].cls


def __dir__() -> list[str]:
    return sorted({*globals(), *CATALOG})
