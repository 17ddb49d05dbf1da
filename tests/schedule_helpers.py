"""Learning-rate schedules that tests share."""

from torch.optim.lr_scheduler import OneCycleLR, StepLR


def steps(trainer):
    return int(trainer.estimated_stepping_batches)


def one_cycle(optimizer, trainer):
    return {"scheduler": OneCycleLR(optimizer, 0.5, total_steps=steps(trainer)), "interval": "step"}


def by_epoch(optimizer, trainer):
    return StepLR(optimizer, 2, 0.1)
