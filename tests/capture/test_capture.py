"""Every loss function of the table: what a sample loses is what a batch of it alone would."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_dataselect.capture import LossCapture
from lightning_dataselect.capture.loss.loss_functions import LOSSES
from lightning_dataselect.capture.loss.reductions import reduce

B, C = 6, 5
CLASS_WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.25])


class Case(NamedTuple):
    make: Callable[[str], Callable[..., Tensor]]  # reduction -> the loss
    inputs: Callable[[], tuple[Any, ...]]
    divisor: Callable[..., Any] | None = None  # of the mean; None: the number of elements
    rows: int = 1  # rows of a sample


def labels(*shape: int) -> Tensor:
    return torch.randint(C, shape)


def with_ignored(target: Tensor, ignored: int) -> Tensor:
    target = target.clone()
    target.view(-1)[::4] = ignored
    return target


def signs(*shape: int) -> Tensor:
    return torch.randint(2, shape) * 2.0 - 1


def valid(ignored: int) -> Callable[..., Any]:
    return lambda x, y: (y != ignored).sum()


def weighted(ignored: int) -> Callable[..., Any]:
    def divisor(x: Tensor, y: Tensor) -> Any:
        return sum(CLASS_WEIGHT[int(t)] for t in y.flatten() if t != ignored)

    divisor.counted = valid(ignored)  # what a sample alone is divided by: its class's weight counts
    return divisor


def ctc_inputs() -> tuple[Any, ...]:
    return (
        torch.randn(9, B, C).log_softmax(-1),
        torch.randint(1, C, (B, 4)),
        torch.full((B,), 9),
        torch.tensor([4, 3, 2, 1, 4, 2]),
    )


def mse_weighted(reduction: str) -> Callable[..., Tensor]:
    return lambda x, y, w: F.mse_loss(x, y, weight=w, reduction=reduction)


def l1_weighted(reduction: str) -> Callable[..., Tensor]:
    return lambda x, y, w: F.l1_loss(x, y, weight=w, reduction=reduction)


def far(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(-1)


CASES = {
    "cross_entropy": Case(lambda r: nn.CrossEntropyLoss(reduction=r), lambda: (torch.randn(B, C), labels(B))),
    "cross_entropy-weight": Case(
        lambda r: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction=r), lambda: (torch.randn(B, C), labels(B)), weighted(-100)
    ),
    "cross_entropy-smooth-weight": Case(
        lambda r: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction=r, label_smoothing=0.2),
        lambda: (torch.randn(B, C), labels(B)),
        weighted(-100),
    ),
    "cross_entropy-ignore-tokens": Case(
        lambda r: nn.CrossEntropyLoss(reduction=r),
        lambda: (torch.randn(B * 3, C), with_ignored(labels(B * 3), -100)),
        valid(-100),
        rows=3,
    ),
    "cross_entropy-ignore-weight-smooth-tokens": Case(
        lambda r: nn.CrossEntropyLoss(CLASS_WEIGHT, ignore_index=1, reduction=r, label_smoothing=0.1),
        lambda: (torch.randn(B * 3, C), with_ignored(labels(B * 3), 1)),
        weighted(1),
        rows=3,
    ),
    "cross_entropy-dense": Case(
        lambda r: nn.CrossEntropyLoss(CLASS_WEIGHT, ignore_index=2, reduction=r),
        lambda: (torch.randn(B, C, 4, 3), with_ignored(labels(B, 4, 3), 2)),
        weighted(2),
    ),
    "cross_entropy-soft": Case(
        lambda r: nn.CrossEntropyLoss(CLASS_WEIGHT, reduction=r, label_smoothing=0.1),
        lambda: (torch.randn(B, C), torch.rand(B, C).softmax(-1)),
    ),
    "nll_loss": Case(
        lambda r: nn.NLLLoss(CLASS_WEIGHT, ignore_index=0, reduction=r),
        lambda: (torch.randn(B * 2, C).log_softmax(-1), with_ignored(labels(B * 2), 0)),
        weighted(0),
        rows=2,
    ),
    "binary_cross_entropy": Case(
        lambda r: nn.BCELoss(CLASS_WEIGHT, reduction=r),
        lambda: (torch.rand(B, C), torch.rand(B, C)),
    ),
    "binary_cross_entropy_with_logits": Case(
        lambda r: nn.BCEWithLogitsLoss(CLASS_WEIGHT, reduction=r, pos_weight=CLASS_WEIGHT.flip(0)),
        lambda: (torch.randn(B, C), torch.rand(B, C)),
    ),
    "mse_loss-dense": Case(
        lambda r: nn.MSELoss(reduction=r), lambda: (torch.randn(B, 2, 4, 3), torch.randn(B, 2, 4, 3))
    ),
    "mse_loss-weight": Case(
        mse_weighted, lambda: (torch.randn(B, C), torch.randn(B, C), torch.rand(B, C)), lambda x, y, w: w.sum()
    ),
    "l1_loss": Case(lambda r: nn.L1Loss(reduction=r), lambda: (torch.randn(B * 2), torch.randn(B * 2)), rows=2),
    "l1_loss-weight": Case(
        l1_weighted, lambda: (torch.randn(B, C), torch.randn(B, C), torch.rand(B, C)), lambda x, y, w: w.sum()
    ),
    "smooth_l1_loss": Case(
        lambda r: nn.SmoothL1Loss(reduction=r, beta=0.3), lambda: (torch.randn(B, C), torch.randn(B, C))
    ),
    "huber_loss": Case(lambda r: nn.HuberLoss(reduction=r, delta=0.3), lambda: (torch.randn(B, C), torch.randn(B, C))),
    "kl_div": Case(
        lambda r: nn.KLDivLoss(reduction=r), lambda: (torch.randn(B, C).log_softmax(-1), torch.rand(B, C).softmax(-1))
    ),
    "kl_div-batchmean": Case(
        lambda r: nn.KLDivLoss(reduction="batchmean" if r == "mean" else r, log_target=True),
        lambda: (torch.randn(B * 2, C).log_softmax(-1), torch.randn(B * 2, C).log_softmax(-1)),
        lambda x, y: len(x),
        rows=2,
    ),
    "poisson_nll_loss": Case(
        lambda r: nn.PoissonNLLLoss(full=True, reduction=r), lambda: (torch.randn(B, C), torch.rand(B, C) * 5)
    ),
    "gaussian_nll_loss": Case(
        lambda r: nn.GaussianNLLLoss(full=True, reduction=r),
        lambda: (torch.randn(B, C), torch.randn(B, C), torch.rand(B, C) + 0.1),
    ),
    "soft_margin_loss": Case(lambda r: nn.SoftMarginLoss(reduction=r), lambda: (torch.randn(B, C), signs(B, C))),
    "multilabel_margin_loss": Case(
        lambda r: nn.MultiLabelMarginLoss(reduction=r),
        lambda: (torch.randn(B, C), torch.tensor([[3, 0, -1, 1, 2], [1, -1, 0, 0, 0]] * 3)),
    ),
    "multilabel_soft_margin_loss": Case(
        lambda r: nn.MultiLabelSoftMarginLoss(CLASS_WEIGHT, reduction=r),
        lambda: (torch.randn(B, C), torch.randint(2, (B, C)).float()),
    ),
    "multi_margin_loss": Case(
        lambda r: nn.MultiMarginLoss(p=2, weight=CLASS_WEIGHT, reduction=r), lambda: (torch.randn(B, C), labels(B))
    ),
    "hinge_embedding_loss": Case(
        lambda r: nn.HingeEmbeddingLoss(0.7, reduction=r), lambda: (torch.randn(B, C), signs(B, C))
    ),
    "cosine_embedding_loss": Case(
        lambda r: nn.CosineEmbeddingLoss(0.2, reduction=r), lambda: (torch.randn(B, C), torch.randn(B, C), signs(B))
    ),
    "margin_ranking_loss": Case(
        lambda r: nn.MarginRankingLoss(0.2, reduction=r), lambda: (torch.randn(B), torch.randn(B), signs(B))
    ),
    "triplet_margin_loss": Case(
        lambda r: nn.TripletMarginLoss(swap=True, reduction=r), lambda: tuple(torch.randn(3, B, C).unbind())
    ),
    "triplet_margin_with_distance_loss": Case(
        lambda r: nn.TripletMarginWithDistanceLoss(distance_function=far, reduction=r),
        lambda: tuple(torch.randn(3, B, C).unbind()),
    ),
    "ctc_loss": Case(lambda r: nn.CTCLoss(reduction=r, zero_infinity=True), ctc_inputs),
}


def sample(inputs: tuple[Any, ...], i: int, case: Case) -> tuple[Any, ...]:
    if inputs[0].dim() == 3 and inputs[0].shape[1] == B and inputs[0].shape[0] == 9:  # ctc is time-major
        return inputs[0][:, i : i + 1], *(t[i : i + 1] for t in inputs[1:])
    return tuple(t[i * case.rows : (i + 1) * case.rows] for t in inputs)


def laid_out(x: Tensor, case: Case) -> Tensor:
    """The rows of a sample on an axis of their own, as models have them before they are flattened."""
    return x.clone().view(B, case.rows, *x.shape[1:]) if case.rows > 1 else x.clone()


def flat(x: Tensor, case: Case) -> Tensor:
    return x.flatten(0, 1) if case.rows > 1 else x


def ran(step: Callable[[], Tensor], x: Tensor, weights: Tensor | None = None, steps: int = 2) -> tuple[Any, Any, Any]:
    """The second of two steps under capture, which no longer is a probe."""
    capture = LossCapture()
    for _ in range(steps):
        x.grad = None
        loss, captured = capture.run(step, B, weights)
        loss.backward()
    return loss.detach(), x.grad, captured


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [1, 2])
def test_losses_are_those_of_batches_of_one_and_the_step_is_unchanged(name: str, reduction: str, steps: int) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    inputs = case.inputs()
    x = laid_out(inputs[0], case).requires_grad_()
    loss = case.make(reduction)
    expected_value = loss(flat(x, case), *inputs[1:])
    expected_value.backward()
    expected_grad = x.grad
    parts = [sample(inputs, i, case) for i in range(B)]
    if reduction == "mean" and hasattr(case.divisor, "counted"):
        alone = torch.stack([case.make("sum")(*part) / case.divisor.counted(*part) for part in parts])
    else:
        alone = torch.stack([loss(*part) for part in parts])

    value, grad, captured = ran(lambda: loss(flat(x, case), *inputs[1:]), x, steps=steps)

    torch.testing.assert_close(value, expected_value.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(captured.losses, torch.nan_to_num(alone), rtol=1e-5, atol=1e-5)
    assert captured.losses.dtype == torch.float32 and not captured.losses.requires_grad


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("steps", [1, 2])
def test_weights_multiply_each_samples_share(name: str, reduction: str, steps: int) -> None:
    torch.manual_seed(1)
    case = CASES[name]
    inputs = case.inputs()
    weights = torch.rand(B) * 2
    wide = tuple(t.double() if t.is_floating_point() else t for t in inputs)
    x64 = wide[0].clone().requires_grad_()
    total = case.make("sum")
    shares = []
    for i in range(B):
        one = sample((x64, *wide[1:]), i, case)
        try:
            share = total(*one)
        except RuntimeError:  # class weights are float32
            share = total(one[0].float(), *one[1:]).double()
        if name == "ctc_loss" and reduction == "mean":
            share = share / inputs[3][i]
        shares.append(share)
    divisor: Any = 1
    if reduction == "mean":
        divisor = case.divisor(*inputs) if case.divisor else case.make("none")(*inputs).numel()
    expected = sum(w * s for w, s in zip(weights.double(), shares, strict=True)) / divisor
    expected.backward()

    x = laid_out(inputs[0], case).requires_grad_()
    loss = case.make(reduction)
    value, grad, _ = ran(lambda: loss(flat(x, case), *inputs[1:]), x, weights, steps)

    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flat(grad, case).double(), x64.grad, rtol=1e-5, atol=1e-5)


def test_every_loss_function_of_torch_is_in_the_table_and_has_a_case() -> None:
    tested = {name.split("-")[0] for name in CASES} | {"linear_cross_entropy"}
    known = {loss.name for loss in LOSSES}
    reducing = {
        name
        for name, function in vars(F).items()
        if callable(function) and not name.startswith("_") and "reduction" in _parameters(function)
    }
    assert reducing <= known <= tested


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some that are written in C; none of them reduces
        return ()


def test_every_loss_class_of_torch_has_a_case() -> None:
    classes = {name for name, value in vars(nn).items() if inspect.isclass(value) and "Loss" in name}
    made = {type(case.make("mean")).__name__ for case in CASES.values()}
    # the first is tested below, the second is a name that torch itself calls deprecated, for NLLLoss
    assert classes - made - {"AdaptiveLogSoftmaxWithLoss", "NLLLoss2d"} <= {"LinearCrossEntropyLoss"}


def test_adaptive_softmax() -> None:
    torch.manual_seed(0)
    model = nn.AdaptiveLogSoftmaxWithLoss(7, 30, [5, 15])
    x, y = torch.randn(B, 7, requires_grad=True), torch.tensor([0, 29, 7, 4, 16, 3])
    value, _, captured = ran(lambda: model(x, y).loss, x)
    alone = torch.stack([model(x[i : i + 1], y[i : i + 1]).loss for i in range(B)]).detach()
    torch.testing.assert_close(captured.losses, alone)
    torch.testing.assert_close(value, model(x, y).loss.detach())


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="newer than this torch")
@pytest.mark.parametrize("ignored", [-100, 2])
def test_linear_cross_entropy(ignored: int) -> None:
    torch.manual_seed(0)
    x, w, y = torch.randn(B, 2, 7, requires_grad=True), torch.randn(C, 7), with_ignored(labels(B * 2), ignored)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.linear_cross_entropy(x.flatten(0, -2), w, y, ignore_index=ignored)

    value, _, captured = ran(lambda: loss(x, y), x)
    alone = torch.stack([loss(x[i], y[2 * i : 2 * i + 2]) for i in range(B)]).detach()
    torch.testing.assert_close(value, loss(x, y).detach())
    torch.testing.assert_close(captured.losses, torch.nan_to_num(alone))


@pytest.mark.parametrize(
    ("legacy", "reduction"), [({"size_average": False}, "sum"), ({"reduce": True}, "mean"), ({"reduce": False}, "none")]
)
def test_legacy_arguments_mean_what_torch_says(legacy: dict[str, bool], reduction: str) -> None:
    x = torch.randn(B, C, requires_grad=True)
    y = labels(B)
    value, _, captured = ran(lambda: F.cross_entropy(x, y, **legacy).sum(), x)
    torch.testing.assert_close(value, F.cross_entropy(x, y, reduction=reduction).sum().detach())
    torch.testing.assert_close(captured.losses, F.cross_entropy(x, y, reduction="none").detach())


def test_a_sample_of_ignored_tokens_loses_nothing() -> None:
    x, y = torch.randn(B, 2, C, requires_grad=True), labels(B * 2)
    y[:2] = -100
    _, _, captured = ran(lambda: F.cross_entropy(x.flatten(0, 1), y), x)
    assert captured.losses[0] == 0 and (captured.losses[1:] > 0).all()


def test_nan_passes_through() -> None:
    x, y = torch.randn(B, C), labels(B)
    x[2] = torch.nan
    x.requires_grad_()
    value, _, captured = ran(lambda: F.cross_entropy(x, y), x)
    assert value.isnan() and captured.losses.isnan().tolist() == [i == 2 for i in range(B)]


def test_steady_steps_change_no_bit_of_value_or_gradient() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 10, requires_grad=True), torch.randint(10, (64,))
    F.cross_entropy(x, y).backward()
    expected, x.grad = x.grad, None
    capture = LossCapture()
    for _ in range(2):
        x.grad = None
        loss, _ = capture.run(lambda: F.cross_entropy(x, y), 64)
        loss.backward()
    assert torch.equal(loss, F.cross_entropy(x, y)) and torch.equal(x.grad, expected)


def test_half_precision_means_do_not_overflow() -> None:
    losses = torch.full((50_000,), 2.0, dtype=torch.float16)
    assert reduce(losses, torch.ones(50_000, dtype=torch.bool)).item() == 2.0
    assert reduce(losses, weights=torch.ones(50_000)).item() == 2.0


def test_tensors_are_no_sequences_to_torch_in_or_after_a_step_that_picks_rows() -> None:
    model, x, keep = nn.Linear(3, 1), torch.randn(B, 3), torch.tensor([True, False, True, True, False, True])
    capture, n = LossCapture(model), torch.tensor(2)

    def step() -> Tensor:
        assert torch.tensor([n, n]).tolist() == [2, 2]
        return model(x).square().squeeze(1)[keep].mean()

    for _ in range(3):
        losses = capture.run(step, B)[1].losses
        torch.testing.assert_close(losses, model(x).detach().square().squeeze(1) * keep)
    assert torch.tensor([n, n]).tolist() == [2, 2]
