"""Capture inside torch.compile: one graph, no recompilation from step to step, the same losses."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_dataselect.capture import LossCapture

B, C, D = 8, 5, 7


class Counter:
    """A backend that counts the graphs it is given."""

    def __init__(self, backend: str) -> None:
        from torch._dynamo.testing import CompileCounterWithBackend

        self._of = CompileCounterWithBackend(backend)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        return self._of(graph, inputs)

    @property
    def graphs(self) -> int:
        return self._of.frame_count


@pytest.fixture
def s() -> Iterator[SimpleNamespace]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield SimpleNamespace(
        model=nn.Linear(D, C),
        x=torch.randn(B, D),
        y=torch.randint(C, (B,)),
        z=torch.randn(B, C),
        ce=nn.CrossEntropyLoss(),
    )
    torch._dynamo.reset()


def functional(s: SimpleNamespace, x: Tensor) -> Tensor:
    return F.cross_entropy(s.model(x), s.y)


def two_terms(s: SimpleNamespace, x: Tensor) -> Tensor:
    out = s.model(x)
    return s.ce(out, s.y) + 0.4 * F.mse_loss(out, s.z)


def hand_written(s: SimpleNamespace, x: Tensor) -> Tensor:
    return (s.model(x) - s.z).pow(2).mean()


def unreduced(s: SimpleNamespace, x: Tensor) -> dict[str, Tensor]:
    return {"loss": torch.mean(F.cross_entropy(s.model(x), s.y, reduction="none") ** 2)}


def loss_of(out: Any) -> Tensor:
    return out["loss"] if isinstance(out, dict) else out


@pytest.mark.parametrize(
    ("step", "backend"),
    [
        (functional, "eager"),
        (functional, "aot_eager"),
        (two_terms, "aot_eager"),
        (hand_written, "aot_eager"),
        (unreduced, "aot_eager"),
    ],
)
def test_a_compiled_step(s: SimpleNamespace, step: Callable[..., Any], backend: str) -> None:
    _, expected = LossCapture(s.model).run(lambda: step(s, s.x), B)
    counter = Counter(backend)
    compiled = torch.compile(lambda x: step(s, x), backend=counter, fullgraph=True)
    capture, weights = LossCapture(s.model), torch.rand(B)
    for i in range(5):
        s.model.zero_grad()
        out, captured = capture.run(lambda: compiled(s.x), B)
        loss_of(out).backward()
        torch.testing.assert_close(captured.losses, expected.losses)
        torch.testing.assert_close(loss_of(out), loss_of(step(s, s.x)))
        assert counter.graphs == min(i, 1), "the probe runs uncompiled, the rest in one graph"
    grad = s.model.weight.grad.clone()
    s.model.zero_grad()
    loss_of(step(s, s.x)).backward()
    torch.testing.assert_close(grad, s.model.weight.grad)

    for _ in range(2):
        out, captured = capture.run(lambda: compiled(s.x), B, weights)
        torch.testing.assert_close(loss_of(out), (weights * captured.losses).mean())
    torch.testing.assert_close(capture.score(lambda: compiled(s.x), B).losses, expected.losses)
    after = counter.graphs
    capture.run(lambda: compiled(s.x), B)
    assert counter.graphs == after, "each kind of step is compiled once"
    torch.testing.assert_close(loss_of(compiled(s.x)), loss_of(step(s, s.x)))


def test_a_compiled_part_of_an_eager_step(s: SimpleNamespace) -> None:
    counter = Counter("aot_eager")
    part = torch.compile(s.model, backend=counter)
    capture = LossCapture(s.model)
    for _ in range(4):
        s.model.zero_grad()
        loss, captured = capture.run(lambda: F.cross_entropy(part(s.x), s.y) + 0.1 * (part(s.x) - s.z).abs().mean(), B)
        loss.backward()
    expected = F.cross_entropy(s.model(s.x), s.y, reduction="none") + 0.1 * (s.model(s.x) - s.z).abs().mean(1)
    torch.testing.assert_close(captured.losses, expected.detach())
    assert torch.equal(captured.logits, s.model(s.x)) and counter.graphs == 1
    assert not capture.watches_calls, "eager means are seen by a patch"


def test_a_loss_compiled_with_the_model(s: SimpleNamespace) -> None:
    inner = torch.compile(lambda x: F.cross_entropy(s.model(x), s.y), backend="aot_eager")
    capture = LossCapture(s.model)
    for _ in range(3):
        loss, captured = capture.run(lambda: 3 * inner(s.x), B)
    torch.testing.assert_close(captured.losses, 3 * F.cross_entropy(s.model(s.x), s.y, reduction="none").detach())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_hand_written_loss_compiled_alone(s: SimpleNamespace, backend: str) -> None:
    mean = torch.compile(lambda out: (out - s.z).square().mean(), backend=backend)
    capture = LossCapture(s.model)
    for _ in range(3):
        _, captured = capture.run(lambda: mean(s.model(s.x)), B)
    torch.testing.assert_close(captured.losses, (s.model(s.x) - s.z).square().mean(1).detach())


def test_manual_optimization_under_compile(s: SimpleNamespace) -> None:
    capture = LossCapture(s.model)
    forward = torch.compile(lambda x: F.cross_entropy(s.model(x), s.y), backend="aot_eager")

    def step() -> None:
        for factor in (1, 2):
            capture.register_backward_loss(factor * forward(s.x)).backward()

    for _ in range(3):
        _, captured = capture.run(step, B)
    torch.testing.assert_close(captured.losses, 3 * F.cross_entropy(s.model(s.x), s.y, reduction="none").detach())


def test_hand_written_losses_of_several_roots_keep_their_turns(s: SimpleNamespace) -> None:
    """Sums that the capture itself makes at the first root do not count as a turn of the step."""
    capture, mask = LossCapture(s.model), (s.z > 0).float()

    def masked(x: Tensor) -> Tensor:
        return ((s.model(x) - s.z).abs() * mask).sum() / mask.sum()

    forward = torch.compile(masked, backend="aot_eager")

    def step() -> None:
        for factor in (1, 2):
            capture.register_backward_loss(factor * forward(s.x)).backward()

    own = ((s.model(s.x) - s.z).abs() * mask).sum(1) / mask.sum(1)
    for _ in range(3):
        _, captured = capture.run(step, B)
        torch.testing.assert_close(captured.losses, 3 * own.detach())


def test_a_term_that_compiled_code_adds_is_seen_in_the_next_epoch(s: SimpleNamespace) -> None:
    counter = Counter("aot_eager")

    def step(x: Tensor, late: bool) -> Tensor:
        loss = F.cross_entropy(s.model(x), s.y)
        return loss + s.model(x).abs().mean() if late else loss

    compiled, capture = torch.compile(step, backend=counter), LossCapture(s.model)
    own = F.cross_entropy(s.model(s.x), s.y, reduction="none").detach()
    for epoch, late in enumerate((False, False, True)):
        capture.start_epoch()
        for _ in range(3):
            loss, captured = capture.run(lambda late=late: compiled(s.x, late), B)
            torch.testing.assert_close(loss, step(s.x, late))
            torch.testing.assert_close(captured.losses, own + late * s.model(s.x).abs().mean(1).detach())
        assert counter.graphs == (1, 1, 2)[epoch], "to look anew compiles nothing anew"


Step = Callable[[nn.Module, Tensor, Tensor], Tensor]


def mean_of_classes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def sum_by_count(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="sum") / len(x)


def penalty_first(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    penalty = model.weight.pow(2).sum()  # over C rows, as many as one of the batches has
    return 1e-4 * penalty + (model(x) - F.one_hot(y, C)).pow(2).mean()


def mean_of_a_mask(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    mask = (x[:, :C] > -0.5).float()
    return (model(x).abs() * mask).sum() / mask.sum()


@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("step", [mean_of_classes, sum_by_count, penalty_first, mean_of_a_mask])
def test_a_compiled_step_of_batches_of_many_sizes(s: SimpleNamespace, step: Step, weighted: bool) -> None:
    """As the last batch of an epoch has, where the selected samples are another number each time."""
    sizes = (20, 20, 18, C, 12, 3, 17, 9, 14, 2, 7)
    plain, captured = Counter("aot_eager"), Counter("aot_eager")
    compiled = torch.compile(step, backend=plain)
    batches = [(torch.randn(size, D), torch.randint(C, (size,))) for size in sizes]
    for x, y in batches:
        compiled(s.model, x, y)
    torch._dynamo.reset()
    compiled, capture = torch.compile(step, backend=captured), LossCapture(s.model)
    penalty = 1e-4 * s.model.weight.pow(2).sum().detach() if step is penalty_first else 0
    for x, y in batches:
        weights = torch.rand(len(x)) if weighted else None
        _, found = capture.run(lambda x=x, y=y: compiled(s.model, x, y), len(x), weights)
        alone = [step(s.model, x[i : i + 1], y[i : i + 1]).detach() - penalty for i in range(len(x))]
        torch.testing.assert_close(found.losses, torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert plain.graphs == 2 and captured.graphs <= plain.graphs
