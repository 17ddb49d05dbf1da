"""Translation: a small Transformer on Multi30k, English to German; BLEU of greedy decoding, by sacrebleu.

    python -m benchmarks.translation --data-dir DIR [--only multi30k] [--seeds N] [--out bench-out]

- multi30k: all 29,000 pairs, 3 + 3 layers 256 wide, 20 epochs, for a GPU, where it runs without `--only`;
- multi30k_small: short pairs, 2 + 2 layers 128 wide, for two cores; runs without `--only` where there is no GPU.

DIR holds `multi30k/{train,val}.{en,de}.gz`; the extra `benchmarks` brings tokenizers and sacrebleu. BLEU is that of the
official validation split. `--quick` needs neither: a tiny Transformer learns to turn sequences round, without BLEU.
"""

import argparse
import sys
from functools import partial
from typing import Any

from benchmarks.extras import need
from benchmarks.harness import Part, data_file, parts_by_name, run_study, trainer_section
from benchmarks.methods import baselines, within

METHODS = [
    *baselines(0.5),
    "AutoAssist",
    "AutoAssist(base_prob=0.7)",
    "InfoBatch(prune_ratio=0.5)",
    "ESWP",
    "EvolvedSampling(batch_ratio=0.5)",
    "UCB(prune_ratio=0.5, every_n_epochs=2)",
    "SelectiveBackprop(beta=1)",
    within(0.4),  # costs what AutoAssist does
]
PACKAGES = ("tokenizers", "sacrebleu")
FEW = [METHODS[i] for i in (0, 1, 2, 9)]


def part(
    name: str, title: str, model: dict[str, Any], data: dict[str, Any], epochs: int, methods: list[str], **more: Any
) -> Part:
    """Make a part that trains a Transformer on pairs; `data` names its class by `class_path`."""
    config = {
        "model": {"class_path": "benchmarks.multi30k.Translator", "init_args": model},
        "data": data,
        "trainer": trainer_section(gradient_clip_val=1.0),
    }
    return Part(name, title, config, epochs, methods, metric=None, **more)


def multi30k(arguments: argparse.Namespace) -> Part:
    """Make the part that trains on all pairs, for a GPU."""
    title = "Multi30k en-de, a Transformer of 3 + 3 layers 256 wide, 20 epochs, label smoothing 0.1"
    data = _data(arguments, n_pieces=8000, batch_size=128)
    model = {"n_pieces": 8000, "dropout": 0.2}
    return part("multi30k", title, model, data, 20, METHODS, monitor="val_bleu", packages=PACKAGES)


def multi30k_small(arguments: argparse.Namespace) -> Part:
    """Make a part that two cores can train."""
    title = "Multi30k en-de, short pairs, a Transformer of 2 + 2 layers 128 wide, 8 epochs, label smoothing 0.1"
    data = _data(arguments, n_pieces=3000, batch_size=64, max_length=20, n_train=5000, n_val=300)
    model = {"n_pieces": 3000, "n_layers": 2, "width": 128, "lr": 2e-3, "max_length": 30}
    note = "5,000 pairs of at most 20 pieces, drawn once; BLEU of the first 300 sentences of the validation split."
    more: dict[str, Any] = {"seeds": 2, "note": note, "packages": PACKAGES}
    return part("multi30k_small", title, model, data, 8, FEW, monitor="val_bleu", **more)


def reversal() -> Part:
    """Make the part for `--quick`, which needs neither data nor extras."""
    title = "sequences turned round, a tiny Transformer"
    data = {"class_path": "benchmarks.multi30k.ReversedData"}
    model = {"n_pieces": 16, "n_layers": 1, "width": 32, "dropout": 0.0, "lr": 5e-3, "bleu": False}
    methods = [METHODS[0], "AutoAssist", "InfoBatch(prune_ratio=0.5)"]
    return part("reversal", title, model, data, 4, methods, monitor="val_loss", maximize=False)


def _data(arguments: argparse.Namespace, **more: Any) -> dict[str, Any]:
    folder = data_file(arguments, "multi30k", "train.en.gz")
    return {"class_path": "benchmarks.multi30k.Multi30kData", "init_args": {"data_dir": folder, **more}}


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        print("--quick leaves Multi30k and BLEU out: a tiny Transformer learns to turn sequences round.")
        return [reversal()]
    need("tokenizers", "sacrebleu")
    return parts_by_name(
        arguments,
        {"multi30k": partial(multi30k, arguments)},
        {"multi30k_small": partial(multi30k_small, arguments)},
    )


if __name__ == "__main__":
    sys.exit(run_study("translation", parts, __doc__))
