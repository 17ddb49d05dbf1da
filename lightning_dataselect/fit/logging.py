"""Logging of an epoch, next to the user's own metrics."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_dataselect.state.fit_state import EpochRecord
from lightning_dataselect.trainer import log_again

_MAX_QUANTILE_SAMPLES = 1_000_000


def log_epoch(
    module: pl.LightningModule,
    history: Sequence[EpochRecord],
    scores: Tensor,
    train_loss: Tensor | None,
    loader: str | int | None = None,
) -> None:
    """Log the share of samples that the last epoch kept, what was saved so far, and how the scores are spread.

    Args:
        module: The LightningModule, within a hook that may log.
        history: One record per epoch, up to the one that has just ended.
        scores: float32 (N,), NaN = never measured.
        train_loss: 0-dim float32, the mean loss of the epoch's samples without weights; None if none was measured.
        loader: Name of the train loader, if there are selectors for several; None if there is one selector.
    """
    room, short = ("dataselect", "kept") if loader is None else (f"dataselect/{loader}", f"kept/{loader}")
    record = history[-1]
    saved = sum(r["n_full"] - r["n_backward"] for r in history)
    chosen, in_batches = record["n_selected"] / max(record["n_total"], 1), record["n_trained"] + record["n_left_out"]
    kept = chosen * record["n_trained"] / in_batches if in_batches else chosen
    # all ranks have the same figures, but Lightning warns of every one that is not reduced over them
    log_again(module, f"{room}/kept_share", kept, sync_dist=True)
    # the long name does not fit into a progress bar
    log_again(module, short, kept, prog_bar=True, logger=False, sync_dist=True)
    if train_loss is not None:
        log_again(module, f"{room}/train_loss", train_loss, sync_dist=True)
    values = {"samples_saved": float(saved), "select_seconds": record["select_seconds"]}
    sampled = scores[:: max(1, scores.numel() // _MAX_QUANTILE_SAMPLES)]
    if (known := sampled[~sampled.isnan()]).numel():
        quantiles = known.quantile(torch.tensor([0.1, 0.5, 0.9]))
        values |= {f"score_q{q}": float(v) for q, v in zip((10, 50, 90), quantiles, strict=True)}
    for name, value in values.items():
        log_again(module, f"{room}/{name}", value, sync_dist=True)
