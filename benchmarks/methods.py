"""Every method at one share of data dropped, as `compare --methods` reads it."""

from collections.abc import Sequence


def set_level(ratio: float) -> list[str]:
    """Return the methods that choose the samples of an epoch, each dropping ``ratio`` of them.

    Where a paper renews its choice every ten epochs of hundreds, every second epoch stands for it.
    """
    return [
        f"InfoBatch(prune_ratio={ratio})",
        f"SeTa(prune_ratio={ratio})",
        f"OrderDP(prune_ratio={ratio})",
        f"KAKURENBO(prune_ratio={ratio})",
        f"RCAP(prune_ratio={ratio})",
        f"UCB(prune_ratio={ratio}, every_n_epochs=2)",
        f"EpsilonGreedy(prune_ratio={ratio}, every_n_epochs=2)",
        f"SwiftLearn(prune_ratio={ratio}, every_n_epochs=3)",
        f"Frontier(budget={round(1 - ratio, 6)})",
    ]


def static(ratio: float) -> list[str]:
    """Return the methods that choose once, after two epochs or four; papers take ten and more of hundreds."""
    whole = [f"{name}(prune_ratio={ratio}, warmup_epochs=2)" for name in ("EL2N", "GraNd", "Forgetting", "CCS")]
    windows = [f"{name}(prune_ratio={ratio}, window=3, warmup_epochs=4)" for name in ("DUAL", "TDDS")]
    return [*whole, *windows]


def batch_level(ratio: float) -> list[str]:
    """Return the methods that choose within a batch, each training on ``1 - ratio`` of it."""
    kept = round(1 - ratio, 6)
    return [
        f"EvolvedSampling(batch_ratio={kept})",
        f"ESWP(batch_ratio={kept})",
        f"SelectiveBackprop(beta={round(1 / kept - 1, 3)})",  # trains on 1 / (1 + beta)
        f"DivBS(batch_ratio={kept})",
        f"RHOLoss(batch_ratio={kept})",
    ]


def self_paced() -> list[str]:
    """Return the methods that drop as much as training lets them, whatever share is asked for."""
    return ["AutoAssist", "DBPD", "SMRD", "SRD", "IES"]


def newer(ratio: float) -> list[str]:
    """Return our own and those that have their tables apart: published since 2024, but for CCS and TDDS."""
    names = ("Frontier", "OrderDP", "RCAP", "CCS", "DUAL", "TDDS", "DivBS", "DBPD", "SMRD", "SRD", "IES")
    return [text for text in every_method(ratio) if text.split("(")[0] in names]


def baselines(ratio: float) -> list[str]:
    """Return the baselines of the same cost that choose at random; `full` and `short` come with every study."""
    return [f"random(prune_ratio={ratio})", f"random_rescaled(prune_ratio={ratio})"]


def within(ratio: float) -> str:
    """Return the baseline of methods that choose within batches; see `RandomWithinBatches`."""
    return f"benchmarks.controls.RandomWithinBatches(batch_ratio={round(1 - ratio, 6)})"


def every_method(ratio: float) -> list[str]:
    """Return every method, the baselines first."""
    return [*baselines(ratio), within(ratio), *set_level(ratio), *static(ratio), *batch_level(ratio), *self_paced()]


def main_methods(ratio: float) -> list[str]:
    """Return one or two methods of each family, the baselines first."""
    chosen = ("InfoBatch", "SeTa", "UCB", "SwiftLearn", "EL2N", "ESWP")
    return [
        *baselines(ratio),
        *(text for text in every_method(ratio) if text.split("(")[0] in chosen),
    ]


def unique(*lists: Sequence[str]) -> list[str]:
    """Join lists of methods, and keep each method once."""
    return list(dict.fromkeys(text for each in lists for text in each))
