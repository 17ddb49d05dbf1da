"""Several captures that read the same steps, each for the losses of its own samples."""

import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_dataselect.capture import CaptureError, SharedSteps
from lightning_dataselect.capture.recording.patches import Patches

N_CLASSES = 5


class Task:
    """A model, two groups of samples, and steps on both."""

    def __init__(self, kind, sizes):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, N_CLASSES))
        self.kind, self.sizes, self.draws = kind, sizes, torch.Generator().manual_seed(1)
        self.steps = SharedSteps(self.model)
        self.captures = [self.steps.add_capture() for _ in sizes]
        self.n_probes = 0

    def draw(self):
        self.groups = [
            (torch.randn(n, 3, generator=self.draws), torch.randint(N_CLASSES, (n,), generator=self.draws))
            for n in self.sizes
        ]
        for i, capture in enumerate(self.captures):
            own, others = self.groups[i], [t for group in self.groups[:i] + self.groups[i + 1 :] for t in group]
            capture.batch_tensors = lambda own=own, others=others: (own, others)

    def step(self):
        (x, y), (u, v) = self.groups
        return getattr(self, self.kind)(x, y, u, v)

    def cross_entropies(self, x, y, u, v):
        return F.cross_entropy(self.model(x), y) + 0.5 * F.cross_entropy(self.model(u), v)

    def same_line(self, x, y, u, v):
        return squared(self.model(x)) + 0.5 * squared(self.model(u))

    def several_terms(self, x, y, u, v):
        errors = F.cross_entropy(self.model(u), v, reduction="none")
        return squared(self.model(x)) + 0.3 * F.mse_loss(self.model(u), one_hot(v)) + errors.mean()

    def sum_of_some(self, x, y, u, v):
        taken = u[:, 0] > 0
        return F.cross_entropy(self.model(x), y) + F.cross_entropy(
            self.model(u)[taken], v[taken], reduction="sum"
        ) / len(u)

    def masks_of_both(self, x, y, u, v):
        """Only a mode that watches every call can follow these, one within the other."""
        of_x, of_u = x[:, 0] > 0, u[:, 1] > 0
        own = F.cross_entropy(self.model(x)[of_x], y[of_x], reduction="none").sum() / len(x)
        return own + torch.sum(F.cross_entropy(self.model(u)[of_u], v[of_u], reduction="none")) / len(u)

    def with_decay(self, x, y, u, v):
        return self.cross_entropies(x, y, u, v) + 0.01 * sum(w.square().sum() for w in self.model.parameters())

    def true_losses(self):
        """Each group's, from the formulas, in double precision; and what the step adds to both."""
        with torch.no_grad():
            outputs = [self.model(x).double().numpy() for x, _ in self.groups]
        (x, y), (u, v) = [(out, classes.numpy()) for out, (_, classes) in zip(outputs, self.groups, strict=True)]
        decay = 0.01 * sum(float(w.detach().double().square().sum()) for w in self.model.parameters())
        return {
            "cross_entropies": (entropy(x, y), 0.5 * entropy(u, v), 0.0),
            "same_line": ((x**2).mean(1), 0.5 * (u**2).mean(1), 0.0),
            "several_terms": (
                (x**2).mean(1),
                0.3 * ((u - np.eye(N_CLASSES)[v]) ** 2).mean(1) + entropy(u, v),
                0.0,
            ),
            "sum_of_some": (entropy(x, y), entropy(u, v) * (self.groups[1][0][:, 0] > 0).numpy(), 0.0),
            "masks_of_both": (
                entropy(x, y) * (self.groups[0][0][:, 0] > 0).numpy(),
                entropy(u, v) * (self.groups[1][0][:, 1] > 0).numpy(),
                0.0,
            ),
            "with_decay": (entropy(x, y), 0.5 * entropy(u, v), decay),
        }[self.kind]

    def run(self, weights=(None, None), order=(0, 1)):
        """Probe where that is due, then run the step for both; return its loss, and what each has captured."""
        batch, sizes = tuple(self.groups), dict(zip(self.captures, self.sizes, strict=True))
        for capture in self.steps.due(sizes):
            capture.probe(self.step, sizes[capture], batch)
            self.n_probes += 1
        captured = {}

        def within(i, inner):
            def call():
                loss, captured[i] = self.captures[i].run(inner, self.sizes[i], weights[i], batch)
                return loss

            return call

        call = self.step
        for i in order:
            call = within(i, call)
        return call(), [captured[i] for i in range(2)]


def squared(outputs):
    return outputs.square().mean()


def one_hot(classes):
    return F.one_hot(classes, N_CLASSES).float()


def entropy(logits, classes):
    top = logits.max(1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(1, keepdims=True)))[:, 0] - logits[np.arange(len(classes)), classes]


KINDS = ["cross_entropies", "same_line", "several_terms", "sum_of_some", "masks_of_both", "with_decay"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("sizes", [(8, 8), (6, 9)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_each_captures_its_own_losses_and_weighs_them(kind, sizes, order):
    task = Task(kind, sizes)
    for i in range(6):
        task.draw()
        weights = [None if (i >> bit) % 2 else 0.5 + torch.rand(n, generator=task.draws) for bit, n in enumerate(sizes)]
        loss, captured = task.run(weights, order)
        *true, rest = task.true_losses()
        expected = rest
        for one, losses, weight in zip(captured, true, weights, strict=True):
            assert one.known
            np.testing.assert_allclose(one.losses.numpy(), losses, rtol=1e-4, atol=1e-6)
            expected += (losses * (1 if weight is None else weight.double().numpy())).mean()
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)
    assert task.n_probes == 3  # one is probed again, once it is known what belongs to the other


@pytest.mark.parametrize("kind", KINDS)
def test_without_weights_no_bit_of_loss_and_gradient_changes(kind):
    task = Task(kind, (8, 8))
    for _ in range(3):
        task.draw()
        grads = []
        for run in (task.step, lambda: task.run()[0]):
            task.model.zero_grad()
            loss = run()
            loss.backward()
            grads.append([loss.detach(), *(w.grad.clone() for w in task.model.parameters())])
        assert all(map(torch.equal, *grads))


def test_no_weights_enter_a_loss_that_was_never_met_before():
    task = Task("cross_entropies", (8, 8))
    for _ in range(2):
        task.draw()
        task.run()

    def changed():
        (x, y), (u, v) = task.groups
        return F.cross_entropy(task.model(x), y) + F.mse_loss(task.model(u), one_hot(v))

    task.draw()
    weights, batch = 0.5 + torch.rand(8, generator=task.draws), tuple(task.groups)
    first, second = task.captures
    loss, captured = second.run(lambda: first.run(changed, 8, weights, batch)[0], 8, batch=batch)
    (x, y), (u, v) = [(task.model(x).detach().double().numpy(), y.numpy()) for x, y in task.groups]
    expected = (entropy(x, y) * weights.double().numpy()).mean() + ((u - np.eye(N_CLASSES)[v]) ** 2).mean()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-4)
    assert not captured.known and second.will_probe(8)


def test_captures_that_measure_the_same_samples_are_refused():
    task = Task("cross_entropies", (8, 8))
    task.draw()
    task.captures[1].batch_tensors = task.captures[0].batch_tensors
    with pytest.raises(CaptureError, match="cross_entropy is computed from samples that two captures of"):
        task.run()


def test_a_capture_that_does_not_read_a_step_keeps_nothing_of_its_graph():
    task = Task("cross_entropies", (8, 8))
    task.draw()
    task.run()
    held = weakref.WeakSet()

    class Hook:
        def __call__(self, *given): ...

    def step():
        (x, y), (u, v) = task.groups
        own, hook = F.cross_entropy(task.model(x), y), Hook()
        held.add(hook)
        own.grad_fn.register_hook(hook)
        return own + 0.5 * F.cross_entropy(task.model(u), v)

    assert task.captures[0].run(step, 8, batch=tuple(task.groups))[1].known
    gc.collect()
    assert not held


def test_names_are_rebound_once_however_often_a_block_is_entered():
    names = {"pi": 3.14}
    patches = Patches([(names, "pi", 3)])
    with patches:
        with patches:
            assert names["pi"] == 3
        assert names["pi"] == 3
        with patches.suspended():
            assert names["pi"] == 3.14
        assert names["pi"] == 3
    assert names["pi"] == 3.14
