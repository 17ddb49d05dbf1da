"""Methods that choose an epoch's samples: InfoBatch, SeTa, OrderDP, KAKURENBO, IES, RCAP."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_dataselect as ours
from benchmarks.originals.agreement import Compared, chances, counts, numbers, samples, shown, tenths
from benchmarks.originals.author_code import definitions, module, run_statements, silenced
from benchmarks.originals.trajectories import CLASSES, Trajectory
from lightning_dataselect.capture import LossCapture
from lightning_dataselect.methods.ies import not_mastered
from lightning_dataselect.methods.kakurenbo import certainty, hidden_samples
from lightning_dataselect.methods.seta import seta as our_seta
from lightning_dataselect.numerics.kmeans import group_limits
from lightning_dataselect.state.store import ScoreStore

DRAWS = 200


def gen(seed: int = 0) -> torch.Generator:
    """Return a generator of our own."""
    return torch.Generator().manual_seed(seed)


def infobatch(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare what is kept, with what weight, and the gradient of the weighted loss."""
    losses = trajectory.losses[-1]
    theirs = module(clone, "infobatch.infobatch").InfoBatch(list(range(trajectory.n)), 8, 0.5)
    theirs.scores[:] = losses
    selector = ours.InfoBatch(prune_ratio=0.5)

    def draw(seed: int) -> Any:
        np.random.seed(seed)
        return theirs.prune()

    odds = chances(draw, trajectory.n, DRAWS), chances(lambda seed: _kept(selector, losses, seed), trajectory.n, DRAWS)
    kept, mine = torch.tensor(draw(0)), selector.select(1, losses, gen())
    assert mine.weights is not None
    weights = theirs.weights[kept]
    return [
        counts("samples kept", len(kept), len(mine.indices)),
        samples("kept with weight 1", kept[weights == 1], mine.indices[mine.weights == 1]),
        counts("weights of the others", values_of(weights), values_of(mine.weights)),
        tenths("chance to be kept, lowest and highest tenth of the losses", losses, *odds),
        _gradient(theirs, trajectory, kept[:64], weights[:64]),
    ]


def _kept(selector: Any, losses: Tensor, seed: int) -> Tensor:
    chosen: Tensor = selector.select(1, losses, gen(seed)).indices
    return chosen


def values_of(weights: Tensor) -> str:
    return ", ".join(f"{each:g}" for each in weights[weights != 1].unique().tolist()) or "none"


def _gradient(theirs: Any, trajectory: Trajectory, batch: Tensor, weights: Tensor) -> Compared:
    x, y = trajectory.logits[0, batch], trajectory.targets[batch]
    torch.manual_seed(0)
    model = nn.Linear(CLASSES, CLASSES)
    theirs.set_active_indices(batch)
    theirs.update(F.cross_entropy(model(x), y, reduction="none")).backward()
    before = gradients(model)
    model.zero_grad()
    loss, _ = LossCapture(model).run(lambda: F.cross_entropy(model(x), y), batch_size=len(y), weights=weights)
    loss.backward()
    after = gradients(model)
    agreement = numbers("", before, after).agreement
    return shown(
        "length of the gradient of a batch of 64", [float(before.norm()), float(after.norm())], "{:.4g}", agreement
    )


def gradients(model: nn.Module) -> Tensor:
    """Return the gradients of all parameters in a row."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


def seta(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the groups, the windows and the numbers kept."""
    losses = trajectory.losses[-1]
    code = module(clone, "seta")
    found = []
    for groups, scale, steps in ((5, 0.9, (1, 2)), (10, 0.5, (3,))):
        for step in steps:
            torch.manual_seed(0)
            theirs = code.SeTa(list(range(trajectory.n)), 200, 0.0, groups, scale)
            theirs.scores[:], theirs.iterations = losses, step
            with silenced():
                window = theirs.prune()
            mine = our_seta(losses, 0.0, groups, scale, step, gen())
            found.append(samples(f"window {step} of {groups} groups, nothing drawn", window, mine))
        with silenced():
            grouped, _ = code.kmeans_group(losses, torch.arange(trajectory.n), groups)
        labels = torch.bucketize(losses, group_limits(losses.sort().values, groups))
        found.append(
            counts(
                f"squared distances within {groups} groups (less is better)",
                f"{sum(_spread(torch.stack(group)) for group in grouped):.1f}",
                f"{sum(_spread(losses[labels == group]) for group in range(groups)):.1f}",
            )
        )
    torch.manual_seed(0)
    theirs = code.SeTa(list(range(trajectory.n)), 200, 0.1, 5, 0.9)
    theirs.scores[:], theirs.iterations = losses, 1
    with silenced():
        kept, annealed = theirs.prune(), theirs.no_prune()
    selector = ours.SeTa(prune_ratio=0.1)
    selector.max_epochs = 8
    mine = selector.select(1, losses, gen()).indices
    found.append(counts("kept with a tenth dropped first", len(kept), len(mine)))
    found.append(counts("kept in annealing", len(annealed), len(selector.select(7, losses, gen()).indices)))
    return found


def _spread(group: Tensor) -> float:
    return float((group.double() - group.double().mean()).square().sum())


def orderdp(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the highest of all, and chances by loss where a subset is drawn first."""
    losses = trajectory.losses[-1]
    make = module(clone, "cifar.orderDP.orderDP").OrderDP

    def theirs(drawn: float, kept: float) -> Any:
        dataset = make(list(range(trajectory.n)), 200, drawn, kept)
        dataset.scores[:] = losses

        def draw(seed: int) -> Any:
            np.random.seed(seed)
            return dataset.prune()

        return draw

    whole, part = ours.OrderDP(prune_ratio=0.4, random_ratio=1.0), ours.OrderDP(prune_ratio=0.4, random_ratio=0.75)
    odds = [chances(draw, trajectory.n, DRAWS) for draw in (theirs(0.75, 0.8), lambda seed: _kept(part, losses, seed))]
    return [
        samples("the highest six tenths of all", theirs(1.0, 0.6)(0), _kept(whole, losses, 0)),
        counts("kept: four fifths of three quarters", len(theirs(0.75, 0.8)(0)), len(_kept(part, losses, 0))),
        tenths("chance to be kept, lowest and highest tenth of the losses", losses, *odds),
    ]


KAKURENBO_SCRIPT = Path("ImageNet") / "pytorch_cifar100_WRN-28-10_hs_lag_v3.1.py"


def kakurenbo(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare who is hidden, by right confidences and by those of the script's softmax."""
    losses, logits, targets = trajectory.losses[-1], trajectory.logits[-1], trajectory.targets
    right = (logits.argmax(1) == targets).double()
    mine = hidden_samples(losses, certainty(logits, targets), 0.3, 0.7, gen()).nonzero().squeeze(1)

    def hidden(confidence: Tensor) -> Tensor:
        n = len(losses)
        names = {
            "MAX_sample_cut": int(0.3 * n), "sorted_indices": losses.sort().indices, "samples_fness": right,
            "samples_prob": confidence, "is_samppling": torch.ones(n), "THRESHOLD": 0.7,
            "number_sample_cut": 0, "number_sample_move_back": 0,
        }  # fmt: skip
        space = run_statements(clone / KAKURENBO_SCRIPT, "train", "for i in range(0, MAX_sample_cut)", **names)
        chosen: Tensor = (space["is_samppling"] == 0).nonzero().squeeze(1)
        return chosen

    over_batch = torch.cat([_their_confidence(clone, batch) for batch in logits.split(32)])
    return [
        samples("hidden, with the confidence over the classes", hidden(logits.softmax(1).amax(1)), mine),
        samples("hidden, with the script's own confidence", hidden(over_batch), mine),
    ]


def _their_confidence(clone: Path, output: Tensor) -> Tensor:
    begins = ("probabilities = ", "log_prob = ")
    space = run_statements(clone / KAKURENBO_SCRIPT, "train", *begins, torch=torch, output=output)
    found: Tensor = space["log_prob"].squeeze(1)
    return found


def ies(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare who is mastered, from the first epoch in which someone can be to the last."""
    script, window, threshold = clone / "cifar_main.py", 3, 0.01
    tools = definitions(script, "calculate_derivative", "correct_moving_average_new_new", np=np)
    options = SimpleNamespace(moving_average_rate=window, k=1)
    history: dict[int, list[float]] = {i: [] for i in range(trajectory.n)}
    changes: dict[int, list[float]] = {i: [] for i in range(trajectory.n)}
    selector = ours.IES(window=window, threshold=threshold)
    store = ScoreStore(trajectory.n, selector.columns())
    found, same = [], True
    for epoch, losses in enumerate(trajectory.losses):
        for i, loss in enumerate(losses.tolist()):
            history[i].append(loss)
        space = run_statements(
            script, "main", "for idx, losses in sample_loss_history.items()", "excluded_samples = []",
            "for idx, derivatives in derivative_history.items()", **vars(tools), np=np, args=options,
            sample_loss_history=history, derivative_history=changes, derivative_order=2, threshold=threshold,
        )  # fmt: skip
        selector.observe(trajectory.seen(epoch), store)
        if epoch + 1 < selector.warmup_epochs:
            continue
        mine = set(range(trajectory.n)) - set(not_mastered(store.column("score"), threshold).tolist())
        found.append(samples("", space["excluded_samples"], list(mine)))
        same &= found[-1].agreement == "the same samples"
    said = f"mastered in the last of {len(found)} epochs compared"
    return [found[-1]._replace(what=said, agreement="the same samples, in every epoch" if same else _least(found))]


def _least(found: list[Compared]) -> str:
    return min((each.agreement for each in found), key=lambda text: (text == "the same samples", text))


def rcap(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the numbers kept of each class, and chances by loss."""
    data = module(clone, "datacull", absent=["orjsonl"])
    losses, targets = trajectory.losses[-1], trajectory.targets
    dataset = labelled(targets)
    with tempfile.TemporaryDirectory() as folder:
        rating = data.RCAPImportance(dataset, SimpleNamespace(trajectory_dir=folder, save_every_k_epoch=1), beta=1.0)
    rating.extract_trajectory_segment = lambda epoch: [losses.tolist()]
    rating.epoch = 0
    importance = rating.compute_importance()
    columns = {"quota_class": targets.float(), "last_epoch": torch.zeros(trajectory.n)}
    sampler, k = ours.RCAP(prune_ratio=0.5).sampler, trajectory.n // 2

    def theirs(seed: int) -> Any:
        np.random.seed(seed)
        return data.RCAPDataLoader(dataset, 0.5, batch_size=8).compute_subset(importance)

    def mine(seed: int) -> Tensor:
        return sampler.choose(losses, k, gen(seed), columns.__getitem__)

    kept = torch.tensor(theirs(0)), mine(0)
    by_class = [" ".join(map(str, torch.bincount(targets[each], minlength=CLASSES).tolist())) for each in kept]
    odds = [chances(draw, trajectory.n, DRAWS) for draw in (theirs, mine)]
    return [
        counts("kept of half of the samples", *map(len, kept)),
        counts("kept of each class", *by_class),
        tenths("chance to be kept, lowest and highest tenth of the losses", losses, *odds),
    ]


def labelled(targets: Tensor) -> Any:
    """Return what DataCull takes for a data set."""
    return _Wrapped(_Labelled(targets))


class _Labelled:
    def __init__(self, targets: Tensor) -> None:
        self.targets = targets.numpy()

    def __len__(self) -> int:
        return len(self.targets)


class _Wrapped:
    def __init__(self, dataset: _Labelled) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)
