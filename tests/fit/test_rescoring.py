"""The pass that measures samples without training on them: right, counted, shown, and unnoticed by everything else."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import N, Net, Shares, dataset, fit, loader, same_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from rescoring_helpers import watch_eval_steps
from torch import nn
from torch.utils.data import DataLoader

from lightning_dataselect import KAKURENBO, UCB, EpsilonGreedy, SwiftLearn
from lightning_dataselect.fit import rescoring

FIXED = torch.randperm(N, generator=torch.Generator().manual_seed(7))[:37].sort().values


class Rescored(Shares):
    """Measures some samples before each selection, whatever it then selects."""

    rescores = True

    def __init__(self, stale=FIXED, *shares, **common):
        super().__init__(*(shares or (0.5,)), **{"warmup_epochs": 1, **common})
        self.stale = stale
        self.passes = []

    def samples_to_rescore(self, epoch):
        self.passes.append(epoch)
        return self.stale


class Noisy(Net):
    """Everything that a pass could leave a trace in."""

    def __init__(self):
        super().__init__()
        from torchmetrics.classification import MulticlassAccuracy

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 3))
        self.accuracy = MulticlassAccuracy(3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.count, self.outputs = 0, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x)
        self.count += 1
        self.outputs.append(z.detach())
        self.seen += len(x)
        self.accuracy(z, y)
        loss = F.cross_entropy(z, y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("accuracy", self.accuracy, on_epoch=True)
        self.log("noise", float(torch.rand(()) + random.random() + np.random.rand()), on_epoch=True)
        return loss


def run(selector, **flags):
    L.seed_everything(3, verbose=False)
    net, logged = Noisy(), []

    class Log(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            values = {
                k: v for k, v in trainer.callback_metrics.items() if "select_seconds" not in k and "score" not in k
            }
            logged.append({k: float(v) for k, v in values.items()})

    fit(selector, net, callbacks=[Log()], **flags)
    states = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return net, logged, states


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_notices(workers):
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    runs = []
    for stale, generator in zip((FIXED, None), generators, strict=True):
        train = loader(num_workers=workers, persistent_workers=workers > 0, generator=generator)
        selector = Rescored(stale)
        runs.append((*run(selector, train=train, max_epochs=3), selector))
    with_, without = runs
    assert with_[3].history[1]["n_forward"] == 50 + len(FIXED) and without[3].history[1]["n_forward"] == 50
    assert same_weights(with_[0], without[0])
    assert with_[0].count == without[0].count and len(with_[0].outputs) == with_[0].count
    assert with_[1] == without[1]
    assert with_[2] == without[2]
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert with_[0].training == without[0].training


def test_it_measures_in_eval_mode_without_gradients_every_sample_once():
    selector, net, modes = Rescored(), Noisy(), []
    x, y = dataset().tensors
    evaluated = watch_eval_steps(net)
    net.net.register_forward_hook(lambda m, args, out: modes.append((m.training, out.requires_grad)))
    fresh = {}

    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            pl_module.eval()
            with torch.no_grad():
                fresh[trainer.current_epoch] = F.cross_entropy(pl_module.net(x), y, reduction="none")
            pl_module.train()
            losses[trainer.current_epoch] = selector.losses.clone()

    losses = {}
    fit(selector, net, loader(batch_size=16), [], callbacks=[Watch()], max_epochs=3)
    torch.testing.assert_close(losses[1][FIXED], fresh[1][FIXED])
    rest = np.setdiff1d(np.arange(N), FIXED)
    assert (losses[1][rest] != fresh[1][rest]).float().mean() > 0.9
    assert [len(b) for b in evaluated] == [16, 16, 5] * 2
    assert torch.equal(torch.cat(evaluated[:3]), x[FIXED])
    after_first_step = modes[[trains for trains, _ in modes].index(True) :]
    assert {grad for training, grad in after_first_step if not training} == {False}
    assert selector.passes == [1, 2]


def test_it_is_asked_for_only_where_something_is_chosen():
    selector = Rescored(FIXED, warmup_epochs=2, every_n_epochs=2, anneal=0.25)
    fit(selector, max_epochs=8)
    assert selector.passes == [2, 4]
    assert [r["n_forward"] - r["n_backward"] for r in selector.history] == [0, 37, 0, 37, 0, 0, 0, 0]
    never = Rescored(FIXED, prune_ratio=0)
    fit(never, max_epochs=3)
    assert never.passes == []


@pytest.mark.parametrize("bar", [True, False])
def test_progress_is_shown_where_the_trainer_shows_some(monkeypatch, bar):
    shown = []
    real = rescoring.tqdm

    def tqdm(batches, **options):
        made = real(batches, **options)
        shown.append((len(batches), options["desc"], made.disable))
        return made

    monkeypatch.setattr(rescoring, "tqdm", tqdm)
    fit(Rescored(), enable_progress_bar=bar, max_epochs=3)
    assert shown == [(4, "Scoring samples", not bar)] * 2


def test_its_time_is_time_of_selection_not_of_training(clock):
    class Slow(Net):
        def training_step(self, batch, batch_idx):
            clock.advance(1 if self.training else 10)
            return super().training_step(batch, batch_idx)

    selector = Rescored()
    fit(selector, Slow(), max_epochs=2)
    first = selector.history[0]
    # the witness runs the step on three samples of the first batch: each alone, and together, forth and back; on eight
    assert (first["seconds"], first["select_seconds"]) == (10 + 10 * 6, 10 * 4)


def test_gradients_under_accumulation_are_left_alone():
    nets = []
    for stale in (FIXED, None):
        _, net = fit(Rescored(stale), max_epochs=4, accumulate_grad_batches=3)
        nets.append(net)
    assert same_weights(*nets)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EpsilonGreedy(prune_ratio=0.5, every_n_epochs=2, rescore=True),
        lambda: UCB(prune_ratio=0.5, every_n_epochs=2, rescore=True, uncertainty="el2n"),
    ],
)
def test_dynamic_pruning_renews_everything_on_request(make, tmp_path):
    selector, net = make(), Net()
    evaluated = watch_eval_steps(net)
    saver = ModelCheckpoint(
        tmp_path, filename="{epoch}", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=False
    )
    fit(selector, net, callbacks=[saver], enable_checkpointing=True, max_epochs=6)
    assert [r["n_forward"] - r["n_backward"] for r in selector.history] == [100, 0, 100, 0, 100, 0]
    assert sum(map(len, evaluated)) == 300
    for path in tmp_path.glob("*.ckpt"):  # written before the pass, which a resumed fit must make up for
        again = make()
        _, resumed = fit(again, Net(seed=4), ckpt_path=path, max_epochs=6)
        assert same_weights(net, resumed), path
        assert torch.equal(selector.scores, again.scores)


def test_without_a_request_dynamic_pruning_makes_no_pass():
    selector, net = UCB(prune_ratio=0.5, every_n_epochs=1), Net()
    evaluated = watch_eval_steps(net)
    fit(selector, net, max_epochs=3)
    assert evaluated == []


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.manual_backward(loss)
        self.optimizers().step()


@pytest.mark.parametrize("selector", [KAKURENBO(), SwiftLearn(), UCB(rescore=True)], ids=lambda s: type(s).__name__)
def test_manual_optimization_is_refused(selector):
    net = Manual()
    with pytest.raises(TypeError, match="with manual optimization the step trains while it runs. Use automatic"):
        fit(selector, net)
    assert "training_step" not in vars(net)


@pytest.mark.parametrize("selector", [SwiftLearn(every_n_epochs=0, outputs="net"), UCB()])
def test_manual_optimization_is_fine_without_passes(selector):
    fit(selector, Manual(), max_epochs=3)
    assert len(selector.history) == 3


RANKS = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch
    from helpers import Net, dataset, trainer
    from lightning_dataselect import KAKURENBO, SwiftLearn
    from rescoring_helpers import Tokens, token_loader
    from torch.utils.data import DataLoader

    def check(selector, net, batches, epochs):
        made = trainer(selector, max_epochs=epochs, devices=2, strategy="ddp")
        made.fit(net, batches)
        names = sorted(selector.store.state_dict())
        for name in names:
            mine = selector.store.column(name).float().nan_to_num(-1)
            every = made.strategy.all_gather(mine)
            assert torch.equal(every[0], every[1]), name
        kept = made.strategy.all_gather(selector.selected)
        assert torch.equal(kept[0], kept[1])
        if made.global_rank == 0:
            costs = [(r["n_selected"], r["n_forward"], r["n_backward"]) for r in selector.history]
            own = [name for name in names if name in ("loss", "score", "outputs", "certainty")]
            print("RESULT", type(selector).__name__, own, costs, int(selector.scores.isnan().sum()), flush=True)

    exact = dict(whole_batches=False)
    check(SwiftLearn(prune_ratio=0.8, every_n_epochs=1, **exact), Net(), DataLoader(dataset(51), 10, shuffle=True), 5)
    check(SwiftLearn(prune_ratio=0.5, every_n_epochs=1, max_width=64, **exact), Tokens(), token_loader(24, 4), 4)
    check(KAKURENBO(prune_ratio=0.2, tau=0.0, phases=(), **exact), Net(), DataLoader(dataset(51), 10, shuffle=True), 4)
"""


@pytest.mark.slow
def test_two_ranks_share_the_pass_and_agree(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(RANKS).format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    # 51 samples on two ranks are 52, of which one is a repeat; so are 41 kept ones 42
    assert results == [
        "RESULT SwiftLearn ['loss', 'outputs', 'score'] "
        "[(51, 52, 52), (51, 52, 52), (10, 62, 10), (10, 62, 10), (10, 10, 10)] 0",
        "RESULT SwiftLearn ['loss', 'outputs', 'score'] [(24, 24, 24), (24, 24, 24), (12, 36, 12), (12, 12, 12)] 0",
        "RESULT KAKURENBO ['certainty', 'loss', 'score'] [(51, 52, 52), (41, 52, 42), (41, 52, 42), (41, 42, 42)] 0",
    ]


def test_workers_of_the_pass_do_not_stay():
    made = loader(num_workers=1, persistent_workers=True)
    assert isinstance(made, DataLoader)
    fit(Rescored(), train=made, max_epochs=3)
    assert made._iterator is None
