"""Gradients of single samples, against those of batches of one, and GraNd by them."""

import copy
import warnings

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from helpers import Net, dataset, fit, loader, same_weights
from torch import nn

from lightning_dataselect import GraNd
from lightning_dataselect.step import sample_gradients
from lightning_dataselect.step.sample_gradients import SampleGradients


class Module(L.LightningModule):
    """Takes images; counts its steps, logs, and draws random numbers."""

    def __init__(self, net, step=None):
        super().__init__()
        self.net, self.step, self.calls = net, step, 0

    def training_step(self, batch, batch_idx=0):
        self.calls += 1
        x, y = batch["x"], batch["y"]
        if self.step is not None:
            return self.step(self, x, y)
        loss = F.cross_entropy(self.net(x), y, label_smoothing=0.1)
        self.log("loss", loss)
        return {"loss": loss}


def network():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.GroupNorm(3, 6),
        nn.Dropout(0.5),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )


def make(step=None, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Module(network(), step).to(dtype)
        module.net[1].running_mean.normal_()
        x, y = torch.randn(11, 2, 6, 6, dtype=dtype), torch.randint(5, (11,))
    return module, {"x": x, "y": y, "note": "as it is"}


def of_batches_of_one(module, batch):
    module = copy.deepcopy(module).eval()
    module.log = lambda *args: None
    norms = []
    for i in range(len(batch["y"])):
        module.zero_grad()
        out = module.training_step({"x": batch["x"][i : i + 1], "y": batch["y"][i : i + 1]})
        (out["loss"] if isinstance(out, dict) else out).backward()
        norms.append(sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None) ** 0.5)
    return torch.tensor(norms, dtype=torch.float64)


@pytest.fixture
def chunks(monkeypatch):
    """So little memory that four samples go at once."""
    n_parameters = sum(p.numel() for p in network().parameters())
    monkeypatch.setattr(sample_gradients, "_HELD_AT_ONCE", 4 * n_parameters)
    monkeypatch.setattr(sample_gradients, "_FEWEST_AT_ONCE", 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fewest", [1, 10**9], ids=["at once", "one by one"])
def test_they_are_those_of_batches_of_one(monkeypatch, fewest):
    monkeypatch.setattr(sample_gradients, "_FEWEST_AT_ONCE", fewest)
    module, batch = make()
    norms = SampleGradients(module).norms(module.training_step, (batch, 0), {}, 11)
    assert norms.dtype == torch.float64 and not norms.requires_grad
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-12, atol=0)


def test_a_chunk_after_another(chunks):
    module, batch = make()
    gradients = SampleGradients(module)
    assert gradients.samples_at_once == 4
    steps = []
    step = lambda *args, **kwargs: steps.append(1) or module.training_step(*args, **kwargs)  # noqa: E731
    norms = gradients.norms(step, (), {"batch": batch, "batch_idx": 0}, 11)
    assert len(steps) == 3 + 1, "three chunks, and the first sample alone"
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-12, atol=0)


def test_nothing_is_left_behind():
    module, batch = make(dtype=torch.float32)
    module.train()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    SampleGradients(module).norms(module.training_step, (batch,), {}, 11)
    assert torch.equal(torch.get_rng_state(), state) and module.calls == 0 and module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in module.parameters())


def looks_inside(module, x, y):
    return F.cross_entropy(module.net(x), y) * (2 if x.mean().item() > 0 else 1)


def adds_up(module, x, y):
    logits = module.net(x)
    module.accuracy(logits, y)
    return F.cross_entropy(logits, y)


@pytest.mark.parametrize("step", [looks_inside, adds_up])
def test_what_torch_func_cannot_follow_goes_one_by_one_and_says_so_once(step):
    module, batch = make(step)
    module.accuracy = torchmetrics.Accuracy("multiclass", num_classes=5)
    gradients = SampleGradients(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            norms = gradients.norms(module.training_step, (batch,), {}, 11)
            torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-12, atol=0)
    said = [str(w.message) for w in caught if "torch.func cannot trace" in str(w.message)]
    assert len(said) == 1 and "sample by sample" in said[0]
    assert module.accuracy.update_count == 0


def test_frozen_and_tied_parameters():
    module, batch = make()
    module.net[0].requires_grad_(False)
    module.twin = module.net[8]  # registered twice, counted once
    norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 11)
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-12, atol=0)


def test_a_layer_that_keeps_its_weights_in_two_places_is_found_out():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Module(nn.LSTM(4, 5, batch_first=True)).double()
        module.step = lambda module, x, y: F.cross_entropy(module.net(x)[0][:, -1], y)
        batch = {"x": torch.randn(7, 3, 4, dtype=torch.float64), "y": torch.randint(5, (7,))}
    with pytest.warns(UserWarning, match="cannot trace this training_step.*sample by sample"):
        norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 7)
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-10, atol=0)


class Twice(nn.Linear):
    """Reads its weight from where no one finds it."""

    def __init__(self):
        super().__init__(6, 5)
        self.kept = [self.weight]

    def forward(self, x):
        return F.linear(x, self.kept[0], self.bias)


def test_a_part_of_the_gradient_that_torch_func_misses_is_found_out():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Module(Twice()).double()
        batch = {"x": torch.randn(7, 6, dtype=torch.float64), "y": torch.randint(5, (7,))}
    with pytest.warns(UserWarning, match="it finds .* for a gradient of the length"):
        norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 7)
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fewest", [1, 10**9], ids=["at once", "one by one"])
def test_a_layer_that_is_not_used_has_no_gradient(monkeypatch, fewest):
    monkeypatch.setattr(sample_gradients, "_FEWEST_AT_ONCE", fewest)
    module, batch = make()
    module.idle = nn.Linear(3, 3)
    norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 11)
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-12, atol=0)


@pytest.mark.parametrize("fewest", [1, 10**9], ids=["at once", "one by one"])
def test_lengths_of_bfloat16_gradients_are_added_up_in_float32(monkeypatch, fewest):
    monkeypatch.setattr(sample_gradients, "_FEWEST_AT_ONCE", fewest)
    module = Module(nn.Linear(4, 2, bias=False), lambda module, x, y: module.net(x).sum()).bfloat16()
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0], [9.0, 11.0, 13.0, 15.0]])
    batch = {"x": x.bfloat16(), "y": torch.tensor([0, 1])}
    norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 2)
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms, (2 * x.square().sum(1)).sqrt(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("n_parameters", "chunk"), [(1 << 20, 128), (1 << 23, 16), ((1 << 23) + 1, 1)])
def test_half_a_gib_of_gradients_is_held_or_one_sample_s(n_parameters, chunk):
    module = L.LightningModule()
    module.weight = nn.Parameter(torch.zeros(1).expand(n_parameters))
    gradients = SampleGradients(module)
    assert gradients.samples_at_once == chunk


def test_a_loss_that_mixes_the_batch_is_refused():
    module, _ = make()
    module.net[1] = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ValueError, match=r"'net\.1' keeps no running statistics.*no sample has a gradient"):
        SampleGradients(module)


def test_a_step_without_a_loss_is_refused():
    module, batch = make(lambda module, x, y: None)
    with pytest.raises(ValueError, match="returned NoneType for a single sample, and no loss"):
        SampleGradients(module).norms(module.training_step, (batch,), {}, 11)


def test_attention():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        module = Module(nn.Sequential(nn.Embedding(9, 8), layer, nn.Flatten(), nn.Linear(40, 3))).double()
        batch = {"x": torch.randint(9, (7, 5)), "y": torch.randint(3, (7,))}
    norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 7)
    torch.testing.assert_close(norms, of_batches_of_one(module, batch), rtol=1e-10, atol=0)


def test_agrees_with_a_peer():
    """BackPACK 1.7.1 (`BatchL2Grad`) and Opacus 1.6.0 (`grad_sample`) give these for this network and these data."""
    module, batch = of_numbers()
    norms = SampleGradients(module).norms(module.training_step, (batch,), {}, 4)
    torch.testing.assert_close(norms, torch.tensor(PEERS, dtype=torch.float64), rtol=1e-10, atol=0)


def of_numbers():
    """A network and data that need no random numbers."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3))
    module = Module(net, lambda module, x, y: F.cross_entropy(module.net(x), y)).double()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel()) * 0.7 + i).view_as(p) / 2)
    x = torch.cos(torch.arange(4 * 2 * 16, dtype=torch.float64) * 0.3).view(4, 2, 4, 4)
    return module, {"x": x, "y": torch.tensor([0, 1, 2, 0])}


PEERS = [2.183775411081018, 1.1111132820233596, 2.9898965555194494, 3.5293793239053564]


# ---- GraNd


class Still(Net):
    """Does not learn, so that scores can be told from the module alone."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_grand_scores_by_the_gradients_of_all_layers():
    selector = GraNd(layers="all", warmup_epochs=2, prune_ratio=0.3)
    _, net = fit(selector, Still(), max_epochs=3)
    x, y = dataset().tensors
    expected = []
    for i in range(100):
        found = torch.autograd.grad(F.cross_entropy(net.net(x[i : i + 1]), y[i : i + 1]), list(net.parameters()))
        expected.append(torch.cat([g.flatten() for g in found]).norm())
    torch.testing.assert_close(selector.scores, torch.stack(expected), rtol=1e-5, atol=1e-7)
    assert set(selector.selected.tolist()) == set(selector.scores.topk(70).indices.tolist())
    counts = [(r["n_forward"], r["n_backward"]) for r in selector.history]
    assert counts == [(200, 200), (200, 200), (70, 70)]


def test_grand_of_all_layers_needs_no_classification():
    class Regressor(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.mse_loss(self.net(x)[:, 0], y.float())

    selector = GraNd(layers="all", warmup_epochs=1)
    fit(selector, Regressor(), max_epochs=2)
    assert not selector.scores.isnan().any() and selector.history[1]["n_selected"] == 50


def test_measuring_changes_no_training():
    _, net = fit(GraNd(layers="all", warmup_epochs=2), train=loader(shuffle=False), max_epochs=2)
    _, plain = fit(None, train=loader(shuffle=False), max_epochs=2)
    assert same_weights(net, plain)


def test_grand_takes_the_last_layer_or_all():
    with pytest.raises(ValueError, match="layers='first' is unknown: give one of 'last', 'all'"):
        GraNd(layers="first")
