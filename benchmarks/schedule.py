"""The learning-rate schedule of the text studies."""

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler


def linear_with_warmup(optimizer: torch.optim.Optimizer, n_steps: int, warmup: float) -> OptimizerLRScheduler:
    """Return a schedule that rises over the share `warmup` of the steps and falls to 0 after it.

    Args:
        optimizer: Its learning rate is the peak.
        n_steps: Of the whole training.
        warmup: Share of them.
    """
    rising = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (n_steps - step) / max(1, n_steps - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
