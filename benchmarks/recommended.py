"""The methods that the README recommends: one table and one picture of them, beside full data for fewer epochs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_dataselect.report.figures import blank_figure, style

RESULTS = Path(__file__).parent / "results"
RECOMMENDED = (
    "InfoBatch(prune_ratio=0.5)",
    "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)",
    "EvolvedSampling(batch_ratio=0.5, score_every_n_batches=4)",
    "ESWP(batch_ratio=0.5, score_every_n_batches=4)",
)
# The studies of the table: title, file, and the parts that hold a row of one method or another.
STUDIES = (
    ("Fashion-MNIST", "images", ("fashion_mnist", "fashion_mnist_seldom")),
    ("40 % of its labels flipped", "noisy_labels", ("flipped_40",)),
    ("Adult", "tabular", ("adult",)),
    ("SST-2, fine-tuned", "text", ("sst2_small",)),
    ("tinyshakespeare, loss: lower is better", "language_model", ("shakespeare_small",)),
)
# What to try first by the kind of training: its study, the parts that hold the rows, and the methods.
CHOICES = (
    (
        "images, from scratch",
        "images",
        ("fashion_mnist", "fashion_mnist_seldom"),
        (
            "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)",
            "EvolvedSampling(batch_ratio=0.5, score_every_n_batches=4)",
            "ESWP(batch_ratio=0.5, score_every_n_batches=4)",
        ),
    ),
    ("text, fine-tuning: SST-2", "text", ("sst2_small",), ("SwiftLearn(prune_ratio=0.9)",)),
    ("text, fine-tuning: MRPC", "text", ("mrpc_small",), ("SwiftLearn(prune_ratio=0.9)",)),
    (
        "language model, loss: lower is better",
        "language_model",
        ("shakespeare_small",),
        (
            "EvolvedSampling(batch_ratio=0.5, score_every_n_batches=4)",
            "AutoAssist",
            "benchmarks.controls.RandomWithinBatches(batch_ratio=0.6)",
        ),
    ),
    (
        "translation, BLEU",
        "translation",
        ("multi30k_small",),
        ("AutoAssist", "benchmarks.controls.RandomWithinBatches(batch_ratio=0.6)"),
    ),
    (
        "tables",
        "tabular",
        ("adult",),
        ("InfoBatch(prune_ratio=0.5)", "EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2)"),
    ),
)
Row = Mapping[str, Any]


def choices_table() -> str:
    """Return what methods gave, by the kind of training."""
    titles = ("training", "method", "against full data", "at equal compute", "at equal time", "CPU time, of full")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for title, study, parts, labels in CHOICES:
        part = _parts(study)[parts[0]]
        seeds = f"{part['seeds']} seed{'s' * (part['seeds'] != 1)}"
        for label in labels:
            row = _row(label, study, parts)
            assert row is not None, f"{study} has no row {label}"
            digits = 2 if part["percent"] or "BLEU" in title else 3
            verdict = f" **{row['verdict']}**" if row["verdict"] else ""
            name, _, arguments = label.removeprefix("benchmarks.controls.").removesuffix(")").partition("(")
            cells = (
                f"`{name}` {arguments}".strip(),
                _difference(row["vs_full"], digits),
                f"{_difference(row['vs_short'], digits)}{verdict}",
                _difference(row["vs_time"], digits),
                f"{row['time']:.0%}",
            )
            lines.append(f"| {f'{title} ({seeds})' if label == labels[0] else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(spread: Row, digits: int) -> str:
    over_seeds = f" ± {spread['std']:.{digits}f}" if spread["n"] > 1 else ""
    return f"{spread['mean']:+.{digits}f}{over_seeds}"


def recommended_table() -> str:
    """Return the difference of each recommended method from full data at equal compute, study by study."""
    lines = [f"| method | {' | '.join(title for title, _, _ in STUDIES)} |", "|---" * (len(STUDIES) + 1) + "|"]
    for label in RECOMMENDED:
        lines.append(f"| `{label}` | {' | '.join(_cell(label, study, parts) for _, study, parts in STUDIES)} |")
    return "\n".join(lines)


def draw_recommended() -> Path:
    """Draw the picture of the README; return where it lies."""
    target = RESULTS / "recommended.png"
    recommended_picture().savefig(target, format="png", metadata={"Software": None})
    return target


def recommended_picture() -> Figure:
    """Draw what each recommended method ends with over what it cost, beside the line of full data."""
    parts = _parts("images")
    figure = blank_figure(6.4, 4.4)  # narrow, so that its text reads on a phone
    axes = figure.subplots()
    axes.grid(axis="y", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    line = sorted(
        (row["time"], row["value"]["mean"], row["value"]["std"])
        for row in parts["fashion_mnist"]["rows"]
        if (row["label"] == "full" or row["label"].startswith("short, "))
        and row["value"]["n"] == parts["fashion_mnist"]["seeds"]
        and row["cost"] <= 1
    )
    x, y, spread = zip(*line, strict=True)
    axes.plot(x, y, color="black", ls="--", marker="x", label="full data, for fewer epochs")
    axes.fill_between(
        x, [m - s for m, s in zip(y, spread, strict=True)], [m + s for m, s in zip(y, spread, strict=True)],
        color="black", alpha=0.1, lw=0,
    )  # fmt: skip
    for i, label in enumerate(RECOMMENDED):
        row = _row(label, "images", STUDIES[0][2])
        if row is None:
            continue
        axes.errorbar(
            row["time"], row["value"]["mean"], yerr=row["value"]["std"], ms=10, capsize=3,
            **{**style(i), "linestyle": "none"}, label=label.split("(")[0],
        )  # fmt: skip
    axes.set(xlabel="CPU time of training, share of full data's", ylabel="test accuracy, %")
    axes.set_title("Fashion-MNIST: above the line, a method pays", loc="left")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="lower right", frameon=False)
    return figure


def _cell(label: str, study: str, parts: tuple[str, ...]) -> str:
    row = _row(label, study, parts)
    if row is None:
        return ""
    digits = 2 if _parts(study)[parts[0]]["percent"] else 3
    verdict = f" **{row['verdict']}**" if row["verdict"] else ""
    return f"{_difference(row['vs_short'], digits)}{verdict}"


def _row(label: str, study: str, parts: tuple[str, ...]) -> Row | None:
    rows = [row for part in parts for row in _parts(study)[part]["rows"]]
    return next((row for row in rows if row["label"] == label), None)


def _parts(study: str) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads((RESULTS / f"{study}.json").read_text())["parts"]
    return parts
