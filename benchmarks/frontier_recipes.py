"""Frontier under recipes that its rule was not made with: other losses, optimizers, schedules, batches, and budgets.

    python -m benchmarks.frontier_recipes --data-dir DIR [--seeds N] [--out FILE] [--only NAME ...]

Each recipe changes one thing of `benchmarks.frontier`, where networks train by cross entropy, AdamW and OneCycle in
batches of 128 and half of the compute is spent. A row is what Frontier gains under it over `FewerEpochs` of the same
budget, on the same seeds, over some of the tasks. The rule and its thresholds were made with none of these.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from benchmarks.frontier import FIRST_SEED, Module, Run, run
from benchmarks.frontier_rows import Rows, parser_of
from benchmarks.frontier_tasks import Task, task
from lightning_dataselect import FewerEpochs, Frontier

RESULTS = Path(__file__).parent / "results" / "frontier_recipes.json"
TASKS = ("fashion", "fashion_20", "adult")
OTHERS = ("convolutions", "text_features", "text_features_20", "overlapping")


def focal(logits: Tensor, y: Tensor) -> Tensor:
    losses = F.cross_entropy(logits, y, reduction="none")
    return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


def one_against_all(logits: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(y, logits.shape[1]).float())


def with_class_weights(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, weight=torch.linspace(0.5, 2, logits.shape[1]))


def mixed_up(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mix each input with another one, and its loss with that of the other's class."""
    share, other = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(y))
    logits = module(share * x + (1 - share) * x[other])
    return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


def plainly(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return lambda network, x, y: loss(network(x), y)


def with_dropout(network: nn.Module) -> nn.Module:
    """Put a dropout of 0.3 behind every ReLU."""
    assert isinstance(network, nn.Sequential)
    layers = ([layer, nn.Dropout(0.3)] if isinstance(layer, nn.ReLU) else [layer] for layer in network)
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def with_batch_norm(network: nn.Module) -> nn.Module:
    """Normalize over the batch before every ReLU."""
    assert isinstance(network, nn.Sequential)

    def layers() -> Iterator[nn.Module]:
        for layer in network:
            yield layer
            if isinstance(layer, nn.Linear) and layer is not network[-1]:
                yield nn.BatchNorm1d(layer.out_features)
            if isinstance(layer, nn.Conv2d):
                yield nn.BatchNorm2d(layer.out_channels)

    return nn.Sequential(*layers())


@dataclass(frozen=True)
class Recipe:
    """How a task is trained on.

    Attributes:
        loss: Of the network on a batch.
        network: Made of the task's network.
        optimizer: "adamw", "sgd" with momentum, or "heavy" for AdamW with a weight decay of 0.3.
        schedule: "onecycle", "steps" at half and three quarters, "cosine" by epochs, or "constant".
        batch_size: Of the loader.
        budget: Of both sides.
        epochs: Of a whole fit, in those of the task.
    """

    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = field(default=plainly(F.cross_entropy))
    network: Callable[[nn.Module], nn.Module] = field(default=lambda network: network)
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    batch_size: int = 128
    budget: float = 0.5
    epochs: float = 1.0


RECIPES = {
    "SGD with momentum, the rate divided by 10 twice": Recipe(optimizer="sgd", schedule="steps"),
    "SGD with momentum, cosine by epochs": Recipe(optimizer="sgd", schedule="cosine"),
    "AdamW, constant rate": Recipe(schedule="constant"),
    "weight decay 0.3": Recipe(optimizer="heavy"),
    "batches of 32": Recipe(batch_size=32),
    "batches of 512": Recipe(batch_size=512),
    "label smoothing 0.1": Recipe(plainly(lambda logits, y: F.cross_entropy(logits, y, label_smoothing=0.1))),
    "focal loss": Recipe(plainly(focal)),
    "class weights, 0.5 to 2": Recipe(plainly(with_class_weights)),
    "a binary cross entropy for each class": Recipe(plainly(one_against_all)),
    "hinge loss": Recipe(plainly(F.multi_margin_loss)),
    "mixup": Recipe(mixed_up),
    "dropout 0.3": Recipe(network=with_dropout),
    "batch normalization": Recipe(network=with_batch_norm),
    "a quarter of the compute": Recipe(budget=0.25),
    "three quarters of the compute": Recipe(budget=0.75),
    "half of the epochs": Recipe(epochs=0.5),
    "three times the epochs": Recipe(epochs=3),
}


class Cooked(Module):
    """A network that is trained by a recipe."""

    def __init__(self, made: Task, recipe: Recipe) -> None:
        super().__init__(made)
        self.recipe = recipe

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.recipe.loss(self.network, *batch)

    def configure_optimizers(self) -> Any:
        n_epochs = self.trainer.max_epochs or 1
        optimizer: torch.optim.Optimizer
        if self.recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        else:
            decay = 0.3 if self.recipe.optimizer == "heavy" else 0.01
            optimizer = torch.optim.AdamW(self.parameters(), self.lr / 2, weight_decay=decay)
        if self.recipe.schedule == "onecycle":
            n_steps = int(self.trainer.estimated_stepping_batches)
            by_step = lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=n_steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_step, "interval": "step"}}
        if self.recipe.schedule == "steps":
            return [optimizer], [lr_scheduler.MultiStepLR(optimizer, [n_epochs // 2, n_epochs * 3 // 4])]
        if self.recipe.schedule == "cosine":
            return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)]
        return optimizer


def pair(made: Task, recipe: Recipe, seed: int) -> tuple[Run, Run]:
    """Run FewerEpochs and Frontier by a recipe."""
    network = made.network
    epochs = max(2, round(made.epochs * recipe.epochs))
    made = replace(made, network=lambda: recipe.network(network()), epochs=epochs, batch_size=recipe.batch_size)
    selectors = (FewerEpochs(budget=recipe.budget, seed=seed), Frontier(budget=recipe.budget, seed=seed))
    fewer, found = (run(made, one, seed, lambda made: Cooked(made, recipe)) for one in selectors)
    return fewer, found


def summarize(name: str, task_name: str, pairs: list[tuple[Run, Run]]) -> dict[str, Any]:
    """Return the row of a recipe on a task.

    Args:
        name: Of the recipe.
        task_name: Of the task.
        pairs: For each seed FewerEpochs and Frontier.

    Example:
        >>> pairs = [(Run(80, 50, 1.0), Run(score, 50, 2.0)) for score in (81, 82)]
        >>> row = summarize("mixup", "adult", pairs)
        >>> row["difference"], row["standard_error"]
        (1.5, 0.5)
    """
    gains = [found.score - fewer.score for fewer, found in pairs]
    return {
        "recipe": name,
        "task": task_name,
        "seeds": len(pairs),
        "fewer_epochs": round(fmean(fewer.score for fewer, _ in pairs), 3),
        "difference": round(fmean(gains), 3),
        "standard_error": round(stdev(gains) / math.sqrt(len(gains)), 3),
        "left_out": ", ".join(sorted({found.left_out for _, found in pairs})),
    }


def main() -> None:
    parser = parser_of(__doc__, RESULTS, (*TASKS, *OTHERS), seeds=3)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=tuple(RECIPES))
    arguments = parser.parse_args()
    rows = Rows(arguments.out, ["recipe", "task"])
    for name in arguments.only or TASKS:
        seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
        made = [task(name, seed, arguments.data_dir, arguments.features) for seed in seeds]
        for recipe in arguments.recipes:
            pairs = [pair(one, RECIPES[recipe], seed) for one, seed in zip(made, seeds, strict=True)]
            rows.put(summarize(recipe, name, pairs))


if __name__ == "__main__":
    main()
