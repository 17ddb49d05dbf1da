"""The loss of a batch in place of those of its samples: BLS."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.originals.agreement import Compared, numbers, samples, shown
from benchmarks.originals.author_code import module
from benchmarks.originals.epochs import gen, gradients
from benchmarks.originals.trajectories import CLASSES, Trajectory
from lightning_dataselect.step.sample_loss import read_sample_loss, reweighted, weighable

BATCH = 64


def bls(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the scores that batches of one random order an epoch leave, and the gradient of a weighted batch."""
    code = module(clone, "seta")
    n = trajectory.n
    ours = torch.full((n,), torch.nan)
    theirs = {alpha: code.BLS(code.InfoBatch(list(range(n)), 8, 0.5), alpha).proxy() for alpha in (0.5, 0.9)}
    for epoch, losses in enumerate(trajectory.losses):
        for batch in torch.randperm(n, generator=gen(epoch)).split(BATCH):
            for each in theirs.values():
                each.set_active_indices(batch)
                each.update(losses[batch].mean())
            ours[batch] = read_sample_loss("batch", losses[batch].mean(), ours[batch])
    return [
        numbers("score, theirs with our alpha of 0.5", theirs[0.5].scores, ours),
        samples("below the mean score, theirs with its own alpha of 0.9", _below(theirs[0.9].scores), _below(ours)),
        _gradient(theirs[0.5], trajectory),
    ]


def _below(scores: Tensor) -> Tensor:
    return (scores < scores.mean()).nonzero().squeeze(1)


def _gradient(theirs: Any, trajectory: Trajectory) -> Compared:
    batch = torch.arange(BATCH)
    x, y = trajectory.logits[0, batch], trajectory.targets[batch]
    weights = torch.where(batch % 3 == 0, 2.0, 1.0)
    theirs.weights[batch] = weights
    theirs.set_active_indices(batch)
    torch.manual_seed(0)
    model = nn.Linear(CLASSES, CLASSES)
    theirs.update(F.cross_entropy(model(x), y)).backward()
    before = gradients(model)
    model.zero_grad()
    loss = F.cross_entropy(model(x), y)
    reweighted(loss, weighable("batch", loss, torch.zeros(BATCH)), weights).backward()
    after = gradients(model)
    agreement = numbers("", before, after).agreement
    return shown(
        "length of the gradient of a weighted batch of 64",
        [float(before.norm()), float(after.norm())],
        "{:.4g}",
        agreement,
    )
