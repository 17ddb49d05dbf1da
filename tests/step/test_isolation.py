"""A module that runs quietly is as it was, and so is what is around it."""

import copy
import random
from collections import deque

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from helpers import Net, fit, loader, trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_dataselect import KAKURENBO, EvolvedSampling, GraNd, InfoBatch, SwiftLearn
from lightning_dataselect.step.isolation import SideEffectGuard


class Tracker:
    """A plain object that a module keeps."""

    def __init__(self):
        self.seen = 0
        self.log = []


class Block(nn.Module):
    """A user's own layer with a counter, a buffer that it writes to, and one that it replaces."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("written", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        self.calls += 1
        self.written += x.detach().mean()
        self.written[0] = 7.0
        self.replaced = self.replaced + 1
        return self.norm(x)


class Noisy(L.LightningModule):
    """Leaves a trace wherever a module can."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), Block(), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(16, 3)
        self.frozen = nn.BatchNorm1d(16).eval()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.metrics = torchmetrics.MetricCollection({"f1": torchmetrics.F1Score("multiclass", num_classes=3)})
        self.auroc = torchmetrics.AUROC("multiclass", num_classes=3)
        self.running = torch.zeros(())
        self.counter, self.queue, self.table, self.ids, self.pair = 0, [], {}, set(), (0, [])
        self.nested = {"inner": {"list": []}}
        self.tracker = Tracker()
        self.array = np.zeros(3)
        self.recent = deque([0], maxlen=3)
        self.generators = [torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1)]
        self.modes = []

    def training_step(self, batch, batch_idx=0):
        x, y = batch
        self.modes.append((self.training, self.body[1].norm.training))
        logits = self.head(self.frozen(self.body(x)))
        self.counter += 1
        self.queue.append(logits.detach())
        self.table["last"] = batch_idx
        self.ids.add(self.counter)
        self.pair[1].append(1)
        self.nested["inner"]["list"].append(1)
        self.tracker.seen += 1
        self.tracker.log.append(logits.detach())
        self.running += 1
        self.array += 1
        self.recent.append(self.counter)
        torch.rand(1, generator=self.generators[0]), self.generators[1].random(), self.generators[2].random()
        self.made_here = True
        self.accuracy(logits, y)
        self.metrics.update(logits, y)
        self.auroc.update(logits, y)
        random.random(), np.random.rand(), torch.rand(1)
        self.log("accuracy", self.accuracy)
        self.log_dict({"count": float(self.counter)})
        return F.cross_entropy(logits, y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(10, 8, generator=generator), torch.randint(0, 3, (10,), generator=generator)


def attributes(module):
    """All that a module and its parts hold, tensors as lists."""

    def plain(value):
        if isinstance(value, torch.Tensor | np.ndarray):
            return value.tolist()
        if isinstance(value, torch.Generator):
            return value.get_state().tolist()
        if isinstance(value, np.random.Generator):
            return value.bit_generator.state
        if isinstance(value, random.Random):
            return value.getstate()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple | deque):
            return [plain(item) for item in value]
        return plain(vars(value)) if isinstance(value, Tracker) else value

    skipped = {"_modules", "_trainer", "prepare_data_per_node"}
    return {
        name: {key: plain(value) for key, value in vars(part).items() if key not in skipped and not callable(value)}
        for name, part in module.named_modules()
    }


def random_states():
    return torch.get_rng_state().tolist(), [str(part) for part in np.random.get_state()], random.getstate()


@pytest.fixture
def module():
    """One that has been used before, so that nothing is at its first value."""
    with torch.random.fork_rng([]):
        made = Noisy().train()
        made.frozen.eval()
        made.log = made.log_dict = lambda *_, **__: None
        made.training_step(batch())
    return made


def test_nothing_is_changed(module):
    metric = module.auroc.compute()
    before, objects = attributes(module), {k: id(v) for k, v in vars(module).items()}
    state, randoms = copy.deepcopy(module.state_dict()), random_states()
    for grad in (False, True, False):
        with SideEffectGuard(module)(grad=grad):
            loss = module.training_step(batch(), 5)
            assert loss.requires_grad is grad
    assert attributes(module) == before
    assert {k: id(v) for k, v in vars(module).items()} == objects
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert random_states() == randoms
    assert torch.equal(module.auroc.compute(), metric)
    assert module.training and not module.frozen.training and module.body[1].norm.training


def test_it_runs_in_eval_mode(module):
    modes = []
    with SideEffectGuard(module)():
        module.training_step(batch())
        modes += module.modes
    assert modes[-1] == (False, False) and module.modes[-1] == (True, True)


def test_nothing_is_changed_after_an_error(module):
    before, randoms = attributes(module), random_states()
    with pytest.raises(RuntimeError), SideEffectGuard(module)():
        module.training_step(batch())
        raise RuntimeError
    assert attributes(module) == before and random_states() == randoms
    assert torch.is_grad_enabled()


def test_a_reused_one_takes_back_what_the_step_between_has_left(module):
    quiet = SideEffectGuard(module)
    for _ in range(3):
        module.training_step(batch())
        before = attributes(module)
        with quiet():
            module.training_step(batch())
        assert attributes(module) == before


class Bank(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("bank", torch.zeros(1 << 21))
        self.weight = nn.Parameter(torch.zeros(2))


def test_a_large_tensor_that_is_written_to_is_taken_back():
    module = Bank()
    quiet = SideEffectGuard(module)
    for _ in range(3):
        with quiet():
            module.bank[:2] += 5
        assert module.bank[:2].tolist() == [0.0, 0.0]


def test_a_large_tensor_written_to_now_and_then_is_an_error():
    module = Bank()
    quiet = SideEffectGuard(module)
    with quiet():  # left alone, it is taken for constant
        module.bank.sum()
    with (
        pytest.raises(RuntimeError, match=r"wrote to 'bank', which cannot be undone.*only `if self\.training`"),
        quiet(),
    ):
        module.bank[:2] = 5


def test_writing_to_parameters_is_an_error():
    module = Bank()
    with pytest.raises(RuntimeError, match=r"wrote to 'weight'.*changes parameters"), SideEffectGuard(module)():
        module.weight.mul_(2)


def test_what_validation_has_kept_in_inference_mode_is_no_obstacle():
    module = Bank()
    with torch.inference_mode():
        module.kept = torch.ones(2) * 2
    with SideEffectGuard(module)():
        pass
    assert module.kept.tolist() == [2, 2]


def test_nothing_is_logged():
    class Logging(Noisy):
        def training_step(self, batch, batch_idx):
            size = len(batch[0])
            self.log("size", float(size), on_step=False, on_epoch=True, reduce_fx="sum", batch_size=1)
            return super().training_step(batch, batch_idx)

    made, _ = fit(EvolvedSampling(batch_ratio=0.3, warmup_epochs=0), Logging(), loader(), [], max_epochs=1)
    assert made.callback_metrics["size"] == 10 * 3


def test_nothing_is_written_to_the_trainers_loggers(tmp_path):
    """Many steps write to them without the module's log, to the logger or what it is made around."""

    class Writing(Noisy):
        def training_step(self, batch, batch_idx):
            self.logger.log_metrics({"size": len(batch[0])}, step=self.global_step)
            self.logger.experiment.log_metrics({"size": len(batch[0])}, step=self.global_step)
            assert self.logger.log_dir.startswith(str(tmp_path)) and self.trainer.logger.name == "mine"
            return super().training_step(batch, batch_idx)

    written = []

    class Experiment:
        def log_metrics(self, metrics, step):
            written.append(metrics["size"])

    class Kept(CSVLogger):
        experiment = Experiment()

        def log_metrics(self, metrics, step=None):
            written.extend([metrics["size"]] if "size" in metrics else [])

        def save(self):
            pass

    logger = Kept(tmp_path, name="mine")
    fit(EvolvedSampling(batch_ratio=0.3, warmup_epochs=0), Writing(), loader(), [], max_epochs=1, logger=logger)
    assert written == [3] * 20


def test_a_fit_sees_only_the_real_steps():
    """Counters, metrics and BatchNorm are those of the batches that were trained on."""
    selector, module = EvolvedSampling(batch_ratio=0.3, warmup_epochs=0), Noisy()
    fit(selector, module, loader(), [], max_epochs=2)
    assert module.counter == 20 == module.tracker.seen == len(module.pair[1]) == module.body[1].calls
    assert module.body[1].norm.num_batches_tracked == 20
    assert {len(logits) for logits in module.queue} == {3}
    assert sum(len(p) for p in module.auroc.preds) == 60
    assert set(module.modes) == {(True, True)}


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_the_real_step_has_gradients_after_a_scoring_pass(precision):
    """Autocast caches what it casts; what it has cached without a graph must not be used by the step that trains."""
    norms = []

    class Watch(L.Callback):
        def on_after_backward(self, trainer, module):
            norms.append([p.grad is not None and float(p.grad.norm()) > 0 for p in module.head.parameters()])

    selector = EvolvedSampling(warmup_epochs=0)
    fit(selector, Noisy(), loader(), [], max_epochs=1, precision=precision, callbacks=[Watch()])
    assert norms == [[True, True]] * 10


def test_scoring_under_a_lower_precision_leaves_gradients_too():
    norms = []

    class Watch(L.Callback):
        def on_after_backward(self, trainer, module):
            norms.append(float(module.head.weight.grad.norm()))
            assert module.head.weight.grad.dtype == torch.float32

    fit(
        EvolvedSampling(warmup_epochs=0, score_dtype="bfloat16"),
        Noisy(),
        loader(),
        [],
        max_epochs=1,
        callbacks=[Watch()],
    )
    assert len(norms) == 10 and min(norms) > 0


def test_dropout_draws_the_same_with_and_without_scoring():
    """With batch_ratio=1 nothing is scored; the random numbers of training must be those of a scored run."""

    class Draws(Noisy):
        def training_step(self, batch, batch_idx):
            self.drawn = [*getattr(self, "drawn", []), (torch.rand(1).item(), np.random.rand(), random.random())]
            return F.cross_entropy(self.head(self.body[0](batch[0])), batch[1])

    def drawn(selector):
        made = Draws()
        L.seed_everything(3, verbose=False)
        trainer(selector, max_epochs=1).fit(made, loader())
        return made.drawn

    states = random_states()
    try:
        assert drawn(EvolvedSampling(warmup_epochs=0)) == drawn(EvolvedSampling(warmup_epochs=1)) != []
    finally:
        torch.set_rng_state(torch.tensor(states[0], dtype=torch.uint8))


@pytest.mark.parametrize(
    "make",
    [
        InfoBatch,
        EvolvedSampling,
        KAKURENBO,
        lambda: SwiftLearn(warmup_epochs=2, every_n_epochs=1),
        lambda: GraNd(warmup_epochs=1),
    ],
)
def test_a_part_in_eval_mode_stays_so_in_every_training_step(make):
    """As what `from_pretrained` gives, which Lightning leaves in eval mode."""
    modes = []

    class Pretrained(Net):
        def __init__(self):
            super().__init__()
            self.net.insert(2, nn.Dropout(0.5))
            self.net[0].eval()
            self.net[2].eval()

        def training_step(self, batch, batch_idx):
            modes.append((torch.is_grad_enabled() and self.training, *(part.training for part in self.net)))
            return super().training_step(batch, batch_idx)

    _, net = fit(make(), Pretrained(), max_epochs=4)
    trains = (True, False, True, False, True)
    assert trains in modes and set(modes) <= {trains, (False,) * 5}
    assert [part.training for part in net.net] == list(trains[1:])
