"""Methods that choose within a batch: Selective-Backprop, RHO-LOSS, DivBS, Progressive Data Dropout, AutoAssist."""

import logging
import math
import os
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR

import lightning_dataselect as ours
from benchmarks.originals.agreement import Compared, chances, counts, numbers, samples, shown
from benchmarks.originals.author_code import definitions, module, run_statements, silenced
from benchmarks.originals.epochs import gen
from benchmarks.originals.trajectories import CLASSES, Trajectory
from lightning_dataselect.methods.autoassist.assistant import Assistant, Record
from lightning_dataselect.methods.autoassist.inputs import SampleInputs
from lightning_dataselect.methods.autoassist.networks import CONVENTIONS, VectorNetwork
from lightning_dataselect.methods.divbs import diverse_subset, inner_products
from lightning_dataselect.methods.rho_loss import highest
from lightning_dataselect.state.store import ScoreStore

BATCH = 64


def selective_backprop(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the probabilities of the samples of 32 batches, of losses as they come and of rounded ones."""
    calculator = module(clone, "lib.calculators").BatchedRelativeProbabilityCalculator
    found = []
    for name, digits in (("", 9), (" of losses rounded to tenths", 1)):
        theirs, mine = calculator("cpu", 0, 1024, 3), ours.SelectiveBackprop(beta=3, history=1024)
        store, given = ScoreStore(trajectory.n, mine.columns()), []
        for batch in torch.arange(32 * BATCH).split(BATCH):
            seen = trajectory.seen(-1, batch)
            seen = seen.__class__(**{**vars(seen), "losses": seen.losses.round(decimals=digits)})
            examples = [SimpleNamespace(example=SimpleNamespace(loss=loss)) for loss in seen.losses.tolist()]
            given += theirs.get_probability(examples)
            mine.observe(seen, store)
        scores = store.column("score")[: 32 * BATCH]
        found.append(numbers(f"probability{name}", given[-16 * BATCH :], scores[-16 * BATCH :]))
    return found


def rho_loss(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the tenth that is chosen of batches of 320, and of all."""
    folder = clone / "src" / "curricula"
    tools = definitions(folder / "utils_selection_methods.py", "top_x_indices", "create_logging_dict", torch=torch)
    known = {"torch": torch, "F": F, **vars(tools)}
    script = definitions(
        folder / "selection_methods.py", "reducible_loss_selection", "_compute_irreducible_loss", **known
    )
    script.reducible_loss_selection.__call__.__globals__.update(vars(script))
    holdout, logits, losses = trajectory.losses[-1], trajectory.logits[0], trajectory.losses[0]
    theirs, mine = [], []
    for batch in torch.arange(trajectory.n).split(320):
        k = max(len(batch) // 10, 1)
        chosen, _, _ = script.reducible_loss_selection()(
            k, data=logits[batch], target=trajectory.targets[batch], global_index=batch, large_model=nn.Identity(),
            irreducible_loss_generator=holdout,
        )  # fmt: skip
        theirs.append(batch[chosen])
        mine.append(batch[highest(losses[batch] - holdout[batch], k, gen())])
    return [samples("a tenth of each batch", torch.cat(theirs), torch.cat(mine))]


def divbs(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the chance of each sample of a batch, and how much of the mean gradient the chosen span."""
    code = definitions(clone / "methods" / "DivBS.py", "DivBS", SelectionMethod=object, torch=torch, np=np).DivBS
    method = object.__new__(code)
    method.logger = logging.getLogger("originals.divbs")
    batch, k, times = torch.arange(BATCH), 6, 4000
    error = trajectory.logits[0, batch].softmax(1) - F.one_hot(trajectory.targets[batch], CLASSES)
    features = trajectory.logits[1, batch]
    gradients = (error.unsqueeze(2) * features.unsqueeze(1)).flatten(1)
    repeated = 0

    def theirs(seed: int) -> Any:
        nonlocal repeated
        torch.manual_seed(seed)
        np.random.seed(seed)
        taken = method.greedy_selection(gradients.mean(0), gradients, k)
        repeated += len(set(taken)) < k
        return taken

    def mine(seed: int) -> Tensor:
        return diverse_subset(inner_products(error, features), k, gen(seed), sample=True)

    odds = [chances(draw, BATCH, times) for draw in (theirs, mine)]
    worth = [np.mean([_spanned(gradients, draw(seed)) for seed in range(1000)]) for draw in (theirs, mine)]
    gap = float((odds[0] - odds[1]).abs().max())
    error_of_chance = 4 * math.sqrt(0.5 / times)
    said = "within chance" if gap < error_of_chance else f"differs by {gap:.3f}"
    what = f"chance of each of {BATCH} samples, {k} taken {times:,} times"
    apart = f"within {abs(worth[0] - worth[1]):.3f}"
    return [
        shown(what, [(float(each.min()), float(each.max())) for each in odds], "{:.3f} to {:.3f}", said),
        shown("share of the mean gradient spanned", worth, "{:.3f}", apart),
        counts("draws in which a sample came twice", repeated, 0),
    ]


def _spanned(gradients: Tensor, taken: Any) -> float:
    basis, _ = torch.linalg.qr(gradients[torch.as_tensor(taken)].double().T)
    mean = gradients.double().mean(0)
    return float((basis.T @ mean).square().sum() / mean.square().sum())


class _Table(nn.Module):
    """Gives each sample the logits of a table, and writes down whom a training step was for."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.scale = logits, nn.Parameter(torch.zeros(()))
        self.trained: list[Tensor] = []

    def forward(self, indices: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.trained.append(indices)
        return self.logits[indices] + 0 * self.scale


def _trained(clone: Path, trajectory: Trajectory, method: str, epochs: int, *args: Any) -> list[Tensor]:
    """Run one of the authors' training loops; return the samples of each step."""
    unseen = ("log_memory", "plot_accuracy_time_multi", "plot_accuracy_time_multi_test")
    known = {
        "torch": torch, "nn": nn, "optim": optim, "np": np, "StepLR": StepLR, "defaultdict": defaultdict, "os": os,
        "json": MagicMock(), "time": SimpleNamespace(time=lambda: 0.0), "tqdm": lambda each, **_: _Progress(each),
    }  # fmt: skip
    known.update({name: MagicMock() for name in unseen})
    script = definitions(clone / "training_models" / "selective_gradient.py", "TrainRevision", **known)
    model, order = _Table(trajectory.logits[4]), torch.arange(trajectory.n)
    batches = _Batches([(part, trajectory.targets[part]) for part in order.split(BATCH)])
    with tempfile.TemporaryDirectory() as folder, silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        training = script.TrainRevision("table", model, batches, batches[:1], "cpu", epochs, f"{folder}/x", 0.3)
        getattr(training, method)(*args)
    return model.trained


class _Progress(list[Any]):
    def set_postfix(self, *_: Any) -> None:
        """Show nothing."""


class _Batches(list[Any]):
    batch_size = BATCH


def progressive_dropout(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare who is trained on, batch by batch, in an epoch of DBPD and SMRD, and how many in one of SRD."""
    found = []
    selector = ours.DBPD(threshold=0.3)
    selector.run_state.open(selector, trajectory.n, world_size=1, epoch=0)
    mine = []
    for batch in torch.arange(trajectory.n).split(BATCH):
        seen = trajectory.seen(4, batch)
        selector.observe(seen, selector.store)
        mine.append(batch[selector.choose(seen, BATCH // 3, gen())])
    theirs = _trained(clone, trajectory, "train_with_revision", 1, 1, "classification", None)
    found.append(samples("DBPD: trained on in an epoch", torch.cat(theirs), torch.cat(mine)))
    theirs = _trained(clone, trajectory, "train_with_random", 1, 1, "classification")
    found.append(counts("SMRD: trained on in an epoch", len(torch.cat(theirs)), len(torch.cat(mine))))
    theirs = _trained(clone, trajectory, "train_with_percentage", 4, 4)
    steps = math.ceil(trajectory.n / BATCH)
    srd = ours.SRD(decay=0.99)
    given = [len(torch.cat(theirs[epoch * steps : (epoch + 1) * steps])) for epoch in range(4)]
    kept = [len(srd.select(epoch, torch.zeros(trajectory.n), gen()).indices) for epoch in range(4)]
    said = (" ".join(map(str, each)) for each in (given, kept))
    found.append(counts("SRD with a decay of 0.99: trained on in 4 epochs", *said))
    return found


def autoassist(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the Assistant's weights after 32 batches, and how soon it is trusted."""
    folder = clone / "image_classification"
    known = {"np": np, "nn": nn, "torch": torch}
    script = definitions(folder / "assistant.py", "AssistantModelBinary", "sigmoid", **known)
    theirs = script.AssistantModelBinary(CLASSES, CLASSES)
    theirs.W, theirs.U = np.zeros(CLASSES, np.float32), np.zeros(CLASSES, np.float32)
    x, y = trajectory.logits[0], trajectory.targets
    mine = Assistant(VectorNetwork(x[:1], squash=False), CONVENTIONS["images"], memory=0.75)
    mean, sums = 0.0, np.zeros(2)
    trusted = SimpleNamespace(confident=0.0, sec_loss=1.0)
    translation = clone / "machine_translation" / "fairseq" / "data" / "assistant.py"
    for batch in torch.arange(32 * BATCH).split(BATCH):
        losses = trajectory.losses[0, batch]
        sums = 0.75 * sums + 0.25 * np.array([float(losses.sum()), len(batch)])
        mean = sums[0] / sums[1]
        theirs.train_step(x[batch], y[batch].numpy(), losses.numpy(), mean, None, None, "mean")
        mine.learn(Record(SampleInputs(x[batch], y[batch]), None, losses, None, 0))
        begins = ("self.confident *=", "self.confident +=")
        run_statements(translation, "train_tfidf_step", *begins, self=trusted)
    weights = dict(mine.network.named_parameters())
    always_right = Assistant(VectorNetwork(torch.zeros(1, 1), squash=False), CONVENTIONS["images"], memory=0.75)
    for _ in range(32):
        always_right.learn(Record(SampleInputs(torch.zeros(4, 1), None), None, torch.ones(4), None, 0))
    return [
        numbers("W after 32 batches", theirs.W, weights["weight"].detach()),
        numbers("U after 32 batches", theirs.U, weights["classes"].detach()[:CLASSES, 0]),
        counts(
            "trust after 32 batches called right",
            f"{trusted.confident:.3f}",
            f"{always_right.accuracy:.3f}",
        ),  # fmt: skip
    ]
