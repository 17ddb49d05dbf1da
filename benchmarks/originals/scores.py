"""Methods that score samples once: DUAL, TDDS, CCS, Forgetting, EL2N, GraNd, and DeepCore's versions."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy import linalg
from scipy.special import softmax
from scipy.stats import beta
from torch import Tensor, nn

from benchmarks.originals.agreement import Compared, chances, counts, numbers, samples, tenths
from benchmarks.originals.author_code import definitions, module, silenced
from benchmarks.originals.epochs import DRAWS, gen
from benchmarks.originals.trajectories import CLASSES, Trajectory
from lightning_dataselect.methods.classification import output_error
from lightning_dataselect.methods.last_layer import last_layer_gradient_norm
from lightning_dataselect.methods.parts import make_score
from lightning_dataselect.methods.samplers.beta import beta_weights
from lightning_dataselect.methods.samplers.by_order import Stratified
from lightning_dataselect.state.store import ScoreStore

WINDOW = 10


def our_score(name: str, trajectory: Trajectory, epochs: int | None = None) -> Tensor:
    """Return a score of ours after the first epochs of a trajectory, by default all, float32 (N,)."""
    score = make_score(name)
    store = ScoreStore(trajectory.n, score.columns())
    for epoch in range(epochs or len(trajectory)):
        score.rate(trajectory.seen(epoch), store)
    return store.column("score").clone()


def dual(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the score, and the chances in the first draw of Beta sampling."""
    folder = clone / "exp_cifar"
    theirs = definitions(folder / "importance_evaluation.py", "dual", torch=torch, np=np)
    probabilities = trajectory.target_probabilities
    score, order = theirs.dual(probabilities, WINDOW)
    mine = our_score(f"dual(window={WINDOW})", trajectory)
    found = [numbers("score, theirs by 10", score / 10, mine)]
    for ratio in (0.5, 0.9):
        drawn: dict[str, Any] = {}
        spy = SimpleNamespace(random=SimpleNamespace(choice=lambda n, p, size, replace: drawn.update(p=p, size=size)))  # noqa: B023
        sampling = definitions(folder / "data_subset.py", "beta_sampling", torch=torch, np=spy, beta=beta)
        sampling.beta_sampling(ratio, 4.0, probabilities.numpy(), np.asarray(order), score.numpy())
        weights = beta_weights(mine, probabilities.mean(0).double(), ratio, 4.0, 15.0)(slice(None))
        found.append(numbers(f"chances to be drawn first, {ratio:.0%} dropped", drawn["p"], weights / weights.sum()))
    return found


def tdds(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the score and the half that is kept."""
    logits, n = trajectory.logits.numpy(), trajectory.n
    with tempfile.TemporaryDirectory() as folder:
        args = SimpleNamespace(window_size=WINDOW, trajectory_len=len(logits), decay=0.9, mask_path=f"{folder}/")
        known = {"torch": torch, "np": np, "LA": linalg, "softmax": softmax, "os": os, "args": args}
        script = definitions(clone / "importance_evaluation.py", "generate", **known)
        with silenced():
            script.generate(logits, None, np.tile(np.arange(n), (len(logits), 1)))
        made = f"{folder}/{{}}_win{WINDOW}_ep{len(logits)}.npy"
        order, ordered = np.load(made.format("data_mask")), np.load(made.format("score"))
    theirs = np.empty(n)
    theirs[order] = ordered
    mine = our_score(f"tdds(window={WINDOW})", trajectory)
    return [
        numbers("score", theirs, mine),
        samples("the half that is kept", order[n // 2 :], mine.argsort()[n // 2 :]),
    ]


def tdds_again(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare TDDS as DUAL's authors wrote it for their comparison."""
    script = definitions(clone / "exp_cifar" / "importance_evaluation.py", "tdds", torch=torch, np=np, LA=linalg)
    _, order = script.tdds(len(trajectory), WINDOW, trajectory.logits)
    mine, half = our_score(f"tdds(window={WINDOW})", trajectory).argsort(), trajectory.n // 2
    return [samples("TDDS in DUAL's repository: the half that is kept", order[half:], mine[half:])]


def ccs(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the scores, who is cut off, and the chances of the strata."""
    known = {"torch": torch, "num_classes": CLASSES}
    script = definitions(clone / "generate_importance_score.py", "training_dynamics_metrics", "EL2N", **known)
    dataset = [(None, (None, int(target))) for target in trajectory.targets]
    log = [
        {"output": each.log_softmax(1), "idx": torch.arange(trajectory.n), "epoch": epoch}
        for epoch, each in enumerate(trajectory.logits)
    ]
    data: dict[str, Tensor] = {}
    with silenced():
        script.training_dynamics_metrics(log, dataset, data)
        script.EL2N(log, dataset, data, max_epoch=10)
    aum = our_score("aum", trajectory)
    margin = data["accumulated_margin"].clone()
    select = module(clone, "core.data.Coreset").CoresetSelection
    n_cut, kept = trajectory.n // 10, 3 * trajectory.n // 10
    with silenced():
        cut, rest = select.mislabel_mask(dict(data), "accumulated_margin", n_cut, False, "accumulated_margin")

    def theirs(seed: int) -> Any:
        torch.manual_seed(seed)
        with silenced():
            return rest[select.stratified_sampling(cut, "accumulated_margin", kept)[0]]

    def mine(seed: int) -> Tensor:
        return Stratified(50, 0.1).choose(aum, kept, gen(seed), _no_column)

    odds = [chances(draw, trajectory.n, DRAWS) for draw in (theirs, mine)]
    return [
        numbers("AUM, theirs by the epochs and turned", -margin / len(trajectory), aum),
        numbers("EL2N, theirs by 10", data["el2n"] / 10, our_score("el2n", trajectory, 10)),
        samples("a tenth cut off for the lowest AUM", _without(rest, trajectory.n), aum.argsort()[-n_cut:]),
        counts("kept of the rest", len(theirs(0)), len(mine(0))),
        tenths("chance to be kept, highest and lowest tenth of AUM", aum, *odds),
    ]


def _no_column(name: str) -> Tensor:
    raise KeyError(name)


def _without(indices: Tensor, n: int) -> Tensor:
    return torch.ones(n).index_fill(0, indices, 0).nonzero().squeeze(1)


def ccs_again(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare CCS as DataCull has it."""
    loader = object.__new__(module(clone, "datacull", absent=["orjsonl"]).CCSDataLoader)
    kept, aum = 3 * trajectory.n // 10, our_score("aum", trajectory)
    options = {"beta": 0.1, "num_strata": 50, "descending": False, "total_num_samples": trajectory.n}
    vars(loader).update(options, required_num_samples=kept)

    def theirs(seed: int) -> Any:
        np.random.seed(seed)
        return loader.compute_subset(-aum.numpy())

    def mine(seed: int) -> Tensor:
        return Stratified(50, 0.1).choose(aum, kept, gen(seed), _no_column)

    odds = [chances(draw, trajectory.n, DRAWS) for draw in (theirs, mine)]
    return [tenths("DataCull's CCS: chance to be kept, highest and lowest tenth of AUM", aum, *odds)]


def forgetting(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare the counts, with samples never learnt among them."""
    tools = ("compute_forgetting_statistics", "sort_examples_by_forgetting")
    script = definitions(clone / "order_examples_by_forgetting.py", *tools, np=np)
    right = (trajectory.logits.argmax(2) == trajectory.targets).int().T.numpy()
    epochs = len(trajectory)
    with silenced():
        found = script.compute_forgetting_statistics({i: [[], acc, []] for i, acc in enumerate(right)}, epochs)
        order, ordered = script.sort_examples_by_forgetting([found[1]], [found[3]], epochs)
    theirs = np.empty(trajectory.n)
    theirs[order] = ordered
    return [
        numbers("forgetting events, samples never learnt with the most", theirs, our_score("forgetting", trajectory))
    ]


def deepcore(clone: Path, trajectory: Trajectory) -> list[Compared]:
    """Compare DeepCore's GraNd and its forgetting events."""
    folder = clone / "deepcore" / "methods"
    known = {"torch": torch, "np": np, "time": None, "nn": nn, "EarlyTrain": object, "MyDataParallel": type(None)}
    n, size = trajectory.n, 256
    layer = _Recorded(trajectory)
    dataset = torch.utils.data.TensorDataset(trajectory.logits[0], trajectory.targets)
    state = SimpleNamespace(
        model=layer, dst_train=dataset, n_train=n, norm_matrix=torch.zeros(n, 1), cur_repeat=0,
        args=SimpleNamespace(selection_batch=size, workers=0, device="cpu", num_classes=CLASSES),
        model_optimizer=torch.optim.SGD(layer.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
    )  # fmt: skip
    definitions(folder / "grand.py", "GraNd", **known).GraNd.finish_run(state)
    theirs = state.norm_matrix[:, 0]
    with torch.no_grad():
        error = output_error(layer(trajectory.logits[0]), trajectory.targets)
    mine = last_layer_gradient_norm(error, trajectory.logits[0], bias=True)
    sizes = torch.cat([torch.full((len(part),), float(len(part))) for part in mine.split(size)])
    state = SimpleNamespace(forgetting_events=torch.zeros(n), last_acc=torch.zeros(n))
    after_loss = definitions(folder / "forgetting.py", "Forgetting", **known).Forgetting.after_loss
    for epoch, logits in enumerate(trajectory.logits):
        after_loss(state, logits, None, trajectory.targets, list(range(n)), epoch)
    events = our_score("forgetting", trajectory)
    never = (trajectory.logits.argmax(2) != trajectory.targets).all(0)
    return [
        numbers("GraNd, theirs times the size of its batch", theirs * sizes, mine),
        samples("GraNd: the tenth that is kept", theirs.argsort()[-n // 10 :], mine.argsort()[-n // 10 :]),
        numbers("forgetting events of samples once learnt", state.forgetting_events[~never], events[~never]),
        counts("the same of a sample never learnt", *_shown(state.forgetting_events[never], events[never])),
    ]


def _shown(*values: Tensor) -> list[str]:
    return [", ".join(f"{each:g}" for each in part.unique().tolist()) or "none there" for part in values]


class _Recorded(nn.Module):
    """A linear layer that writes down what it is given, as DeepCore's networks do."""

    def __init__(self, trajectory: Trajectory) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(CLASSES, CLASSES)
        self.embedding_recorder = SimpleNamespace(embedding=None, record_embedding=False)

    def get_last_layer(self) -> nn.Linear:
        return self.layer

    def forward(self, x: Tensor) -> Tensor:
        self.embedding_recorder.embedding = x
        out: Tensor = self.layer(x)
        return out
