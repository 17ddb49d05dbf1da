"""The headlines of four papers beside what our studies found, a row for each setting that stands for the claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_dataselect.methods.catalog import CATALOG

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Headline:
    """A method whose paper makes a claim, and the row of a study that comes nearest to its conditions."""

    method: str
    study: str
    part: str
    label: str
    setting: str
    unit: str = "points"


HEADLINES = (
    Headline("SwiftLearn", "text", "sst2_small", "SwiftLearn(prune_ratio=0.9)", "SST-2, MiniLM, 6 epochs"),
    Headline("SwiftLearn", "text", "mrpc_small", "SwiftLearn(prune_ratio=0.9)", "MRPC, MiniLM, 6 epochs"),
    Headline("AutoAssist", "images", "fashion_mnist", "AutoAssist", "Fashion-MNIST, 8 epochs"),
    Headline("AutoAssist", "translation", "multi30k_small", "AutoAssist", "Multi30k, small Transformer", "BLEU"),
    Headline(
        "EvolvedSampling",
        "images",
        "fashion_mnist_seldom",
        "EvolvedSampling(batch_ratio=0.5, score_every_n_batches=4)",
        "Fashion-MNIST, 8 epochs",
    ),
    Headline(
        "ESWP",
        "images",
        "fashion_mnist_seldom",
        "ESWP(batch_ratio=0.5, score_every_n_batches=4)",
        "Fashion-MNIST, 8 epochs",
    ),
    Headline(
        "EpsilonGreedy",
        "images",
        "fashion_mnist",
        "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)",
        "Fashion-MNIST, half dropped",
    ),
    Headline(
        "UCB",
        "images",
        "fashion_mnist",
        "UCB(prune_ratio=0.5, every_n_epochs=2)",
        "Fashion-MNIST, half dropped",
    ),
)


def headline_table(studies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the claims, and what was found: against full data, its share of the time, and against equal compute.

    Args:
        studies: The results of each study by its name.
    """
    lines = [
        "| method | its paper | here | seeds | against full data | of its time | at equal compute |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in HEADLINES:
        part = studies[one.study]["parts"][one.part]
        row = next(row for row in part["rows"] if row["label"] == one.label)
        against, equal = (f"{_signed(row[key])} {one.unit}" for key in ("vs_full", "vs_short"))
        lines.append(
            f"| `{one.label}` | {CATALOG[one.method].published} | {one.setting} | {row['value']['n']}"
            f" | {against} | {row['time']:.0%} | {equal} |"
        )
    return "\n".join(lines)


def _signed(spread: Row) -> str:
    return f"{spread['mean']:+.2f}" + (f" ± {spread['std']:.2f}" if spread["std"] is not None else "")
