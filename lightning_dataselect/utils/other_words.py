"""The names that papers, their authors' code and other packages give to a selector's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SHARE: Final = "share"
"""Stands for the arguments by which a class says how much it trains on, or drops."""

WHAT_IT_SAYS: Mapping[str, str] = {
    "prune_ratio": "the share that is dropped",
    "batch_ratio": "the share of each batch that is trained on",
    "budget": "the share of the compute of training on everything that is spent",
}
"""The meaning of each share: other packages take the share that is kept."""

_OF_TRAINER = "How long a fit is the Trainer says: Trainer(max_epochs=...)."
_OF_FIT = "Model and data are those of trainer.fit, and a selector is given none of them."

OTHER_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("num_epochs", "num_epoch", "n_epochs", "epochs", "max_epochs", "total_epochs"), _OF_TRAINER),
    **dict.fromkeys(
        ("dataset", "train_dataset", "trainset", "data", "dataloader", "train_loader", "train_dataloader"), _OF_FIT
    ),
    **dict.fromkeys(("model", "module", "net", "optimizer", "criterion", "batch_size", "num_samples"), _OF_FIT),
    **dict.fromkeys(("ratio", "rate", "share", "fraction", "percent", "percentage", "batch_ratio"), SHARE),
    **dict.fromkeys(("prune_rate", "pruning_rate", "pruning_ratio", "prune_fraction", "prune_percent"), SHARE),
    **dict.fromkeys(("drop", "drop_ratio", "drop_rate", "drop_fraction", "dropout", "hide_ratio"), SHARE),
    **dict.fromkeys(("keep", "keep_ratio", "keep_rate", "keep_fraction", "kept_share", "retain_ratio"), SHARE),
    **dict.fromkeys(("subset_rate", "subset_ratio", "subset_size", "coreset_ratio", "sampling_ratio"), SHARE),
    **dict.fromkeys(("select_every", "update_every", "interval", "frequency", "every_n_epoch"), "every_n_epochs"),
    **dict.fromkeys(("start", "start_epoch", "warm_up", "num_warmup_epochs", "selection_epochs"), "warmup_epochs"),
    "delta": "anneal, which is 1 - delta",
    "is_anealing": "anneal",
    "class_balanced": "balance",
    "random_state": "seed",
    "verbose": "log",
    "scale_factor": "score_scale",
    "interrupt": "whole_every_n_batches",
}
"""Word -> the argument of this package, with a remark if need be, or a sentence. Those of one method alone are its
``other_words``."""
