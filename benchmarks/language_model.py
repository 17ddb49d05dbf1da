"""Language model: a small GPT over the characters of tinyshakespeare; validation loss against time.

    python -m benchmarks.language_model --data-dir DIR [--only shakespeare] [--seeds N] [--out bench-out]

- shakespeare: 10.7 M parameters, sequences of 256 characters, for a GPU, where it runs without `--only`;
- shakespeare_small: 0.6 M parameters, sequences of 64, a part of the text, for two cores; runs where there is no GPU;
- shakespeare_small_batches: the same on smaller batches for fewer epochs, in which no sample is chosen.

A sample is a sequence, and no two overlap. DIR holds `tinyshakespeare/input.txt.gz`. `--quick` needs no DIR: a tiny
GPT learns a Markov chain.
"""

import argparse
import sys
from functools import partial
from typing import Any

from benchmarks.harness import Part, data_file, parts_by_name, run_study, trainer_section
from benchmarks.methods import baselines, within

METHODS = [
    *baselines(0.5),
    "InfoBatch(prune_ratio=0.5)",
    "EvolvedSampling(batch_ratio=0.5)",
    "ESWP",
    "SelectiveBackprop(beta=1)",
    "UCB(prune_ratio=0.5, every_n_epochs=2)",
    "SwiftLearn(prune_ratio=0.5)",
    "AutoAssist",
    within(0.4),  # costs what AutoAssist does
    "EvolvedSampling(batch_ratio=0.5, score_every_n_batches=4)",
]
FEW = [METHODS[i] for i in (0, 1, 2, 4, 8, 9, 10)]


def part(name: str, title: str, model: dict[str, Any], data: dict[str, Any], epochs: int, **more: Any) -> Part:
    """Make a part that trains a GPT on sequences."""
    config = {
        "model": {"class_path": "benchmarks.shakespeare.CharacterGPT", "init_args": model},
        "data": {"class_path": "benchmarks.shakespeare.CharacterData", "init_args": data},
        "trainer": trainer_section(gradient_clip_val=1.0),
    }
    return Part(name, title, config, epochs, monitor="val_loss", maximize=False, metric=None, **more)


def shakespeare(arguments: argparse.Namespace) -> Part:
    """Make the part that trains on the whole text, for a GPU."""
    folder = data_file(arguments, "tinyshakespeare", "input.txt.gz")
    title = "tinyshakespeare, a GPT of 6 layers 384 wide, sequences of 256 characters, 50 epochs"
    model, data = {"lr": 1e-3}, {"data_dir": folder, "block": 256, "batch_size": 64}
    return part("shakespeare", title, model, data, 50, methods=METHODS)


SMALL_MODEL = {"n_layers": 3, "n_heads": 4, "width": 128, "block": 64, "dropout": 0.0, "lr": 3e-3}
SMALL_NOTE = "3,000 of the 15,685 training sequences, drawn once; 600 for validation."


def small_data(arguments: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    folder = data_file(arguments, "tinyshakespeare", "input.txt.gz")
    return {"data_dir": folder, "block": 64, "batch_size": batch_size, "n_train": 3000, "n_val": 600}


def shakespeare_small(arguments: argparse.Namespace) -> Part:
    """Make a part that two cores can train."""
    title = "tinyshakespeare, a GPT of 3 layers 128 wide, sequences of 64 characters, 8 epochs"
    data = small_data(arguments, 32)
    return part("shakespeare_small", title, SMALL_MODEL, data, 8, methods=FEW, seeds=3, note=SMALL_NOTE)


def small_batches(arguments: argparse.Namespace) -> Part:
    """Make the part of smaller batches: as many steps as batch-level methods take, but nothing is chosen."""
    title = "tinyshakespeare, the same GPT, full data in batches of 19 instead of 32, 5 epochs"
    data = small_data(arguments, 19)
    return part("shakespeare_small_batches", title, SMALL_MODEL, data, 5, methods=[], seeds=3, note=SMALL_NOTE)


def markov() -> Part:
    """Make the part for `--quick`, which needs no data."""
    model = {"n_layers": 1, "n_heads": 2, "width": 32, "block": 32, "dropout": 0.0, "lr": 1e-2, "n_classes": 12}
    data = {"data_dir": None, "block": 32, "batch_size": 16}
    methods = [METHODS[0], "InfoBatch(prune_ratio=0.5)", "ESWP", "AutoAssist"]
    return part("markov", "a Markov chain, a tiny GPT", model, data, 4, methods=methods)


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        print("--quick leaves tinyshakespeare out: a tiny GPT learns a Markov chain.")
        return [markov()]
    return parts_by_name(
        arguments,
        {"shakespeare": partial(shakespeare, arguments)},
        {
            "shakespeare_small": partial(shakespeare_small, arguments),
            "shakespeare_small_batches": partial(small_batches, arguments),
        },
    )


if __name__ == "__main__":
    sys.exit(run_study("language_model", parts, __doc__))
