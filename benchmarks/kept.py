"""The share of the samples that each epoch trains on, for the pictures of methods that the study of images leaves out.

    python -m benchmarks.kept [--out FILE]

Each such method runs once on digits, as its card writes it, for as many epochs as the demo has. That shows
how much it keeps over a fit, and nothing of what it is good for. It takes a minute or two.
"""

import argparse
import json
import logging
import warnings
from pathlib import Path

import lightning.pytorch as pl
import yaml

from benchmarks.environment import environment, write_json
from lightning_dataselect import list_methods
from lightning_dataselect.demo import DigitsData, DigitsModel
from lightning_dataselect.report.figures import trained_share

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kept.json"
STUDY = ROOT / "benchmarks" / "results" / "images.json"
ALIASES = {"random": "RandomPruning", "random_rescaled": "RandomPruning"}
EPOCHS = 30


def left_out_of_the_study() -> list[str]:
    """Return the names of the methods without a row in the study of images."""
    rows = json.loads(STUDY.read_text())["parts"]["fashion_mnist"]["rows"]
    there = {row["label"].split("(")[0] for row in rows}
    return [method.name for method in list_methods() if method.name not in there | {ALIASES.get(n, n) for n in there}]


def kept(name: str, call: str) -> list[float]:
    """Return the share of the samples that was trained on, by epoch.

    Args:
        name: Of the method.
        call: Its arguments, as the card writes them.
    """
    classes = {method.name: method.cls for method in list_methods()}
    selector = eval(f"{name}({call})", classes)
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=[selector],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsModel(), DigitsData())
    return [round(share, 4) for share in trained_share(selector.history)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args(arguments).out
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    cards = yaml.safe_load((ROOT / "docs" / "_generate" / "cards.yaml").read_text())
    shares = {}
    for name in left_out_of_the_study():
        call = cards[name]["call"]
        shares[f"{name}({call})"] = kept(name, call)
        print(name, shares[f"{name}({call})"], flush=True)
    write_json(
        out,
        {"task": f"digits, {EPOCHS} epochs, one seed", "epochs": EPOCHS, "kept": shares, "environment": environment()},
    )


if __name__ == "__main__":
    main()
