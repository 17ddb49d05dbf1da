"""The learning-rate schedule of the text studies."""

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler


def linear_with_warmup(optimizer: torch.optim.Optimizer, n_steps: int, warmup: float) -> OptimizerLRScheduler:
    """Up to the optimizer's learning rate over the share `warmup` of the steps, then down to 0.

    Args:
        optimizer: its learning rate is the peak.
        n_steps: of the whole training.
        warmup: share of them.
    """
    rising = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (n_steps - step) / max(1, n_steps - rising)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
