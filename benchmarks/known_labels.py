"""Measure what it would be worth to know the wrong labels: a ResNet-8 on CIFAR-10, people got 40 % of them wrong.

    python -m benchmarks.known_labels --data-dir DIR [--seeds N] [--passes 8] [--samples 50000]

Plain PyTorch, half of the compute of `residual_worse` in `benchmarks.frontier`, without the package's callbacks. From
the fourth pass on an epoch leaves out nothing, exactly the wrong labels, or what stayed above the loss of an
untrained model in their last two visits; what is saved pays for further passes. A fit takes four minutes of CPU.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.frontier import FIRST_SEED
from benchmarks.frontier_tasks import Task, task
from benchmarks.image_data import augment, read_arrays

BATCH_SIZE, FIRST_PASSES = 128, 3


@dataclass
class Visits:
    """Keep what is known of the samples.

    Attributes:
        is_wrong: bool (N,), whose label is not the true one.
        before: float32 (N,), the last loss but one; NaN if there is none.
        last: float32 (N,), the last loss.
        untrained_loss: Mean loss of the first batch.
    """

    is_wrong: Tensor
    before: Tensor
    last: Tensor
    untrained_loss: float = float("nan")

    def record(self, chosen: Tensor, losses: Tensor) -> None:
        """Take up the losses of a batch."""
        if self.untrained_loss != self.untrained_loss:
            self.untrained_loss = float(losses.mean())
        self.before[chosen], self.last[chosen] = self.last[chosen], losses

    @property
    def stay_above(self) -> Tensor:
        """bool (N,), the samples that were above the loss of an untrained model twice.

        Example:
            >>> losses = torch.tensor([3.0, 3.0, 1.0])
            >>> Visits(losses > 0, losses, torch.tensor([3.0, 1.0, 3.0]), untrained_loss=2.0).stay_above
            tensor([ True, False, False])
        """
        return (self.before > self.untrained_loss) & (self.last > self.untrained_loss)


LEFT_OUT: dict[str, Callable[[Visits], Tensor]] = {
    "nothing": lambda visits: torch.zeros_like(visits.is_wrong),
    "the wrong labels": lambda visits: visits.is_wrong,
    "what stays above": lambda visits: visits.stay_above,
}


def wrong_labels(made: Task, seed: int, data_dir: str) -> Tensor:
    """Return which labels are not the true ones, bool (N,): the task's images are drawn by the seed as here."""
    true = torch.from_numpy(read_arrays("cifar10", f"{data_dir}/cifar10")["y_train"]).long()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(true)))
    return true[order][: len(made.train[1])] != made.train[1]


def fit(made: Task, is_wrong: Tensor, left_out: str, passes: float, seed: int) -> float:
    """Train by one way; return the accuracy on the test set in percent."""
    torch.manual_seed(seed)
    x, y = made.train
    n, unknown = len(y), torch.full((len(y),), float("nan"))
    visits, network = Visits(is_wrong, unknown.clone(), unknown.clone()), made.network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    n_steps = int(passes * (n // BATCH_SIZE))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, made.lr, total_steps=n_steps)
    done = n_passes = 0
    while done < n_steps:
        stays = ~LEFT_OUT[left_out](visits) if n_passes >= FIRST_PASSES else torch.ones(n, dtype=torch.bool)
        if not bool(stays.all()):
            print(f"  pass {n_passes}: {1 - stays.float().mean():.0%} out, {is_wrong[~stays].float().mean():.0%} wrong")
        order = stays.nonzero().squeeze(1)
        order = order[torch.randperm(len(order))]
        for chosen in order.split(BATCH_SIZE)[: min(len(order) // BATCH_SIZE, n_steps - done)]:
            images = augment(x[chosen], flip=True, crop=4, cutout=0).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(images)
            losses = cross_entropy(logits.float(), y[chosen], reduction="none")
            visits.record(chosen, losses.detach())
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            schedule.step()
            done += 1
        n_passes += 1
    network.eval()
    with torch.no_grad():
        predicted = torch.cat([network(images).argmax(1) for images in made.test[0].split(500)])
    return 100 * float((predicted == made.test[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--passes", type=float, default=8)
    parser.add_argument("--samples", type=int, default=50_000)
    arguments = parser.parse_args()
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        made = task("residual_worse", seed, arguments.data_dir)
        made.train = made.train[0][: arguments.samples], made.train[1][: arguments.samples]
        is_wrong = wrong_labels(made, seed, arguments.data_dir)
        for left_out in LEFT_OUT:
            found = fit(made, is_wrong, left_out, arguments.passes, seed)
            print(f"seed {seed}, {left_out} left out: {found:.2f}", flush=True)


if __name__ == "__main__":
    main()
