import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, Net, WeightedShares, dataset, fit, loader
from lightning.pytorch.callbacks import Callback

from lightning_dataselect import EvolvedSampling
from lightning_dataselect.step.sample_loss import check_sample_loss, read_sample_loss, reweighted

NOTHING = torch.full((3,), torch.nan)


def test_a_key_a_callable_and_the_batch():
    losses = torch.tensor([1.0, 2.0, 3.0])
    output = {"loss": losses.mean(), "each": losses}
    assert read_sample_loss("each", output, NOTHING) is losses
    assert read_sample_loss(lambda out: out["each"] * 2, output, NOTHING).tolist() == [2, 4, 6]
    assert read_sample_loss("batch", losses.mean(), NOTHING).tolist() == [2, 2, 2]
    previous = torch.tensor([torch.nan, 2.0, 6.0])
    assert read_sample_loss("batch", losses.mean(), previous).tolist() == [2, 2, 4]


@pytest.mark.parametrize(
    ("source", "output", "error", "words"),
    [
        (
            "each",
            {"loss": 1, "other": 2},
            KeyError,
            r"returned \['loss', 'other'\]. Return a dict with the keys 'loss'",
        ),
        ("each", torch.ones(()), KeyError, "training_step returned Tensor"),
        ("each", {"each": 3.0}, TypeError, r"output\['each'\] is of the type float: a tensor of 3 per-sample losses"),
        ("each", {"each": torch.ones(4)}, ValueError, r"shape \(4,\), but the batch has 3 samples"),
        (lambda out: out, torch.ones(()), ValueError, r"callable given as sample_loss has the shape \(\)"),
        ("batch", None, TypeError, "needs a training_step that returns its loss"),
    ],
)
def test_says_what_is_wrong_and_what_to_return(source, output, error, words):
    with pytest.raises(error, match=words):
        read_sample_loss(source, output, NOTHING)


def test_a_callable_that_wants_more_than_the_output_is_refused_at_construction():
    with pytest.raises(TypeError, match=r"takes \(batch, out\), but is called with one argument: what training_step"):
        Hardest(sample_loss=lambda batch, out: out["each"])
    with pytest.raises(TypeError, match="called with one argument"):
        Hardest(sample_loss="operator.mul")
    for fine in (lambda out, scale=2: out, lambda *outs: outs[0], Net.forward.__get__(Net()), int, max):
        assert check_sample_loss(fine) is fine


def test_a_reweighted_loss_keeps_its_value_and_its_gradient_follows_the_formula():
    x, w = torch.tensor([1.0, -2.0, 4.0], requires_grad=True), torch.tensor([0.5, 2.0, 0.0])
    losses = x**2
    out = reweighted({"loss": losses.mean(), "more": 1}, losses, w)
    assert out["more"] == 1
    assert out["loss"].item() == pytest.approx(np.mean([1, 4, 16]))
    out["loss"].backward()
    np.testing.assert_allclose(x.grad, np.array([0.5, 2, 0]) * 2 * np.array([1, -2, 4]) / 3)


def test_weights_that_cannot_reach_the_gradient_are_refused():
    with pytest.raises(ValueError, match=r"carry no gradient. Return them without \.detach\(\)"):
        reweighted(torch.ones((), requires_grad=True), torch.ones(3), torch.ones(3))


class Named(Net):
    """Returns the loss of each sample under a key; with lr=0 it never learns."""

    def training_step(self, batch, batch_idx):
        losses = F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")
        return {"loss": losses.mean(), "each": losses}


class Manual(Net):
    """Steps its optimizer itself, and returns nothing."""

    def __init__(self, **options):
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.net(batch[0]), batch[1]))
        optimizer.step()


def losses_by_numpy(net):
    x, y = (t.double().numpy() for t in dataset().tensors)
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in net.parameters())
    z = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y.astype(int)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (Net, "auto"),
        (Manual, "auto"),
        (Named, "auto"),
        (Named, "each"),
        (Named, lambda output: output["each"]),
    ],
)
def test_the_losses_of_a_fit_are_those_of_the_formula(module, source):
    selector, net = Hardest(sample_loss=source), module(lr=0.0)
    expected = losses_by_numpy(net)
    fit(selector, net, max_epochs=2)
    np.testing.assert_allclose(selector.losses.numpy(), expected, rtol=1e-5, atol=1e-6)
    hardest = np.sort(np.argsort(expected)[50:])
    np.testing.assert_array_equal(selector.selected.numpy(), hardest)


@pytest.mark.parametrize(("module", "source"), [(Manual, "auto"), (Named, "auto"), (Named, "each")])
def test_weights_enter_the_gradient(module, source):
    class Doubled(WeightedShares):
        def select(self, epoch, scores, generator):
            chosen = super().select(epoch, scores, generator)
            return type(chosen)(chosen.indices, torch.full(chosen.indices.shape, 3.0))

    gradients = []
    for selector in (None, Doubled(1.0, sample_loss=source)):
        net = module()
        net.on_before_optimizer_step = lambda o, net=net, seen=[]: (  # noqa: B006
            gradients.append(net.net[0].weight.grad.clone()) if not seen else None,
            seen.append(1),
        )
        fit(selector, net, loader(shuffle=False), max_epochs=1)
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


def test_batch_loss_stands_in_for_samples():
    selector = Hardest(sample_loss="batch", warmup_epochs=2)
    fit(selector, Net(lr=0.0), loader(batch_size=N_ALL, shuffle=False), max_epochs=1)
    mean = losses_by_numpy(Net()).mean()
    np.testing.assert_allclose(selector.losses.numpy(), np.full(N_ALL, mean), rtol=1e-5)


def test_weights_multiply_the_loss_of_the_batch_by_their_mean():
    class Noting(Net):
        gradients, plain = [], []

        def on_before_optimizer_step(self, optimizer):
            self.gradients.append(self.net[0].weight.grad.clone())

        def on_train_batch_end(self, outputs, batch, batch_idx):
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.plain.append(torch.autograd.grad(loss, self.net[0].weight)[0])

    class Weights(Callback):
        means = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.means.append(selector.batch.weights.mean())

    selector, net, weights = WeightedShares(0.5, sample_loss="batch"), Noting(lr=0.0), Weights()
    fit(selector, net, callbacks=[weights], max_epochs=1)
    assert len({round(float(mean), 3) for mean in weights.means}) > 1
    for mean, found, plain in zip(weights.means, net.gradients, net.plain, strict=True):
        torch.testing.assert_close(found, mean * plain)


N_ALL = 100


class BurnIn(Net):
    """Comes to another loss after the first epoch."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        if self.current_epoch == 0:
            return (logits - F.one_hot(y, 3)).square().mean()
        return (logits.logsumexp(1) - logits[torch.arange(len(x)), y]).mean()


def still(module):
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    return module


def test_a_loss_that_changes_during_the_fit(recwarn):
    module, selector = still(BurnIn()), Hardest(prune_ratio=0.2)
    x, y = dataset().tensors
    fit(selector, module, max_epochs=2)
    logits = module.net(x).detach()
    first, second = (logits - F.one_hot(y, 3)).square().mean(1), F.cross_entropy(logits, y, reduction="none")
    kept = torch.zeros(100, dtype=torch.bool).index_fill(0, selector.selected, True)
    torch.testing.assert_close(selector.losses[~kept], first[~kept])
    is_new = (selector.losses - second).abs() < 1e-5
    assert (~is_new & kept).sum() == 10  # the batch that surprised keeps what it was known to lose
    torch.testing.assert_close(selector.losses[~is_new], first[~is_new])
    assert not [w for w in recwarn if "NaN" in str(w.message)]


def test_a_loss_that_changes_is_scored_anew_by_batches():
    module, selector = still(BurnIn()), EvolvedSampling(batch_ratio=0.5, anneal=0.0)
    x, y = dataset().tensors
    fit(selector, module, max_epochs=3)
    torch.testing.assert_close(selector.losses, F.cross_entropy(module.net(x).detach(), y, reduction="none"))
