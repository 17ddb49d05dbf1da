"""Steps of every make: several terms, losses by any name, hand-written ones, manual optimization."""

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as ce_by_name

from lightning_dataselect.capture import Captured, CaptureError, LossCapture, NoLossError

B, C, D = 8, 5, 7


@pytest.fixture
def s() -> SimpleNamespace:
    torch.manual_seed(0)
    model = nn.Linear(D, C)
    x, y, z = torch.randn(B, D), torch.randint(C, (B,)), torch.randn(B, C)
    return SimpleNamespace(model=model, x=x, y=y, z=z)


def each(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none").detach()


def check(
    step: Callable[[], Any], expected: Tensor, model: nn.Module, batch_size: int = B, atol: float = 1e-5
) -> tuple[LossCapture, Captured]:
    """Three steps capture what is expected, and leave the loss and its gradient alone."""
    capture = LossCapture(model)
    model.zero_grad()
    alone = step()
    alone.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    for _ in range(3):
        model.zero_grad()
        loss, captured = capture.run(step, batch_size)
        loss.backward()
        torch.testing.assert_close(loss, alone, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close([p.grad for p in model.parameters()], grads, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(captured.losses, expected.detach(), rtol=1e-5, atol=atol)
    torch.testing.assert_close(capture.score(step, batch_size).losses, expected.detach(), rtol=1e-5, atol=atol)
    return capture, captured


def weighs(step: Callable[[], Tensor], shares: Callable[[], Tensor], model: nn.Module, rest: Any = 0.0) -> None:
    """With weights the loss is the weighted sum of the shares, from the first step on."""
    weights = torch.rand(B) * 2
    capture = LossCapture(model)
    model.zero_grad()
    expected = (weights * shares()).sum() + (rest() if callable(rest) else rest)
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    for _ in range(3):
        model.zero_grad()
        loss, _ = capture.run(step, B, weights)
        loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close([p.grad for p in model.parameters()], grads, rtol=1e-5, atol=1e-6)


def test_terms_enter_by_their_coefficients(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        out = s.model(s.x)
        return F.cross_entropy(out, s.y) + 0.4 * F.mse_loss(out, s.z)

    def shares() -> Tensor:
        out = s.model(s.x)
        return F.cross_entropy(out, s.y, reduction="none") / B + 0.4 * (out - s.z).pow(2).mean(1) / B

    _, captured = check(step, shares() * B, s.model)
    assert torch.equal(captured.targets, s.y) and torch.equal(captured.logits, s.model(s.x))
    weighs(step, shares, s.model)


def test_coefficients_may_change_from_step_to_step(s: SimpleNamespace) -> None:
    capture, out = LossCapture(), s.model(s.x)
    for a in (1.0, 0.0, 3.0):
        _, captured = capture.run(lambda a=a: F.cross_entropy(s.model(s.x), s.y) * a + F.mse_loss(s.model(s.x), s.z), B)
        torch.testing.assert_close(captured.losses, (a * each(out, s.y) + (out - s.z).pow(2).mean(1)).detach())


def test_a_loss_function_that_no_step_has_called_before_is_weighted_at_once(s: SimpleNamespace) -> None:
    capture, weights = LossCapture(), 0.5 + torch.rand(B)
    for _ in range(2):
        capture.run(lambda: F.cross_entropy(s.model(s.x), s.y), B)
    loss, _ = capture.run(lambda: F.mse_loss(s.model(s.x), s.z), B, weights)
    torch.testing.assert_close(loss, (weights * (s.model(s.x) - s.z).square().mean(1)).mean())


def test_from_import(s: SimpleNamespace) -> None:
    capture, _ = check(lambda: ce_by_name(s.model(s.x), s.y), each(s.model(s.x), s.y), s.model)
    assert not capture.watches_calls, "a name in the caller's globals can be patched"


def test_held_as_attribute(s: SimpleNamespace) -> None:
    s.model.fn = F.cross_entropy
    capture, _ = check(lambda: s.model.fn(s.model(s.x), s.y), each(s.model(s.x), s.y), s.model)
    assert not capture.watches_calls, "an attribute of the module can be patched"
    assert s.model.fn is F.cross_entropy


def test_held_where_no_patch_reaches(s: SimpleNamespace) -> None:
    fn = partial(F.cross_entropy, label_smoothing=0.1)
    smooth = F.cross_entropy(s.model(s.x), s.y, label_smoothing=0.1, reduction="none")
    capture, _ = check(lambda: fn(s.model(s.x), s.y), smooth, s.model)
    assert capture.watches_calls


def test_held_where_no_patch_reaches_and_called_for_each_sample(s: SimpleNamespace) -> None:
    fn = partial(F.cross_entropy, label_smoothing=0.1)
    smooth = F.cross_entropy(s.model(s.x), s.y, label_smoothing=0.1, reduction="none")
    capture, _ = check(
        lambda: sum(fn(s.model(x), y) for x, y in zip(s.x.split(1), s.y.split(1), strict=True)) / B, smooth, s.model
    )
    assert capture.watches_calls


def by_method(s: SimpleNamespace) -> Tensor:
    return (s.model(s.x) - s.z).pow(2).mean()


def by_function(s: SimpleNamespace) -> Tensor:
    return torch.mean((s.model(s.x) - s.z) ** 2)


def by_dim(s: SimpleNamespace) -> Tensor:
    return ((s.model(s.x) - s.z) ** 2).mean(1).mean(dim=0)


def by_hand_divided(s: SimpleNamespace) -> Tensor:
    return ((s.model(s.x) - s.z) ** 2).sum() / (B * C)


@pytest.mark.parametrize("step", [by_method, by_function, by_dim, by_hand_divided])
def test_hand_written_means(s: SimpleNamespace, step: Callable[[SimpleNamespace], Tensor]) -> None:
    capture, _ = check(lambda: step(s), (s.model(s.x) - s.z).pow(2).mean(1), s.model)
    assert not capture.watches_calls
    weighs(lambda: step(s), lambda: (s.model(s.x) - s.z).pow(2).mean(1) / B, s.model)


def test_unreduced_then_mean_keeps_the_logits(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        losses = F.cross_entropy(s.model(s.x), s.y, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()

    ce = each(s.model(s.x), s.y)
    _, captured = check(step, (1 - torch.exp(-ce)) ** 2 * ce, s.model)
    assert torch.equal(captured.logits, s.model(s.x)) and torch.equal(captured.targets, s.y)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_mixup_has_soft_targets(s: SimpleNamespace, reduction: str) -> None:
    other = s.y.roll(1)

    def step() -> Tensor:
        out = s.model(s.x)
        a, b = (F.cross_entropy(out, y, reduction=reduction) for y in (s.y, other))
        mixed = 0.3 * a + 0.7 * b
        return mixed if reduction == "mean" else mixed.mean()

    out = s.model(s.x)
    _, captured = check(step, 0.3 * each(out, s.y) + 0.7 * each(out, other), s.model)
    soft = 0.3 * F.one_hot(s.y, C) + 0.7 * F.one_hot(other, C)
    torch.testing.assert_close(captured.targets, soft)


def test_the_head_with_the_greatest_coefficient_gives_the_logits(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        return 0.3 * F.cross_entropy(s.model(s.z @ s.z.T[:, :D]), s.y) + F.cross_entropy(s.model(s.x), s.y)

    capture = LossCapture()
    for _ in range(2):
        _, captured = capture.run(step, B)
        assert torch.equal(captured.logits, s.model(s.x))


@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_binary_losses_give_two_logits(shape: tuple[int, ...]) -> None:
    x, y = torch.randn(shape, requires_grad=True), torch.randint(2, shape).float()
    for loss, given in ((F.binary_cross_entropy_with_logits, lambda: x), (F.binary_cross_entropy, x.sigmoid)):
        _, captured = LossCapture().run(lambda loss=loss, given=given: loss(given(), y), B)
        torch.testing.assert_close(captured.logits.softmax(1)[:, 1], x.detach().sigmoid().flatten())
        torch.testing.assert_close(captured.targets[:, 1], y.flatten())


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.0), (0.1, 0.1), (1 / B, 1.0)])
def test_sums_are_of_samples_unless_divided_like_a_mean(s: SimpleNamespace, scale: float, expected: float) -> None:
    own = (s.model(s.x) - s.z).abs().sum(1)
    check(lambda: F.l1_loss(s.model(s.x), s.z, reduction="sum") * scale, own * expected, s.model, atol=1e-4)


def test_a_sum_divided_by_tokens(s: SimpleNamespace) -> None:
    y = torch.randint(C, (B, 3))
    y[:, 0] = -100

    def step() -> Tensor:
        out = s.model(s.x)[:, None].expand(B, 3, C)
        return F.cross_entropy(out.reshape(-1, C), y.flatten(), reduction="sum") / (2 * B)

    losses = F.cross_entropy(s.model(s.x).repeat_interleave(3, 0), y.flatten(), reduction="none").view(B, 3)
    check(step, losses.sum(1) / 2, s.model)


def test_what_is_left_of_a_number_is_told_by_the_elements_that_count(s: SimpleNamespace) -> None:
    """A sample is divided by its own tokens if all tokens but the padded ones are counted."""
    y = torch.randint(C, (B, 3))
    y[::2, 0] = -100

    def step() -> Tensor:
        out = s.model(s.x)[:, None].expand(B, 3, C)
        n = y.numel() - (y == -100).sum()
        return F.cross_entropy(out.reshape(-1, C), y.flatten(), reduction="sum") / n

    losses = F.cross_entropy(s.model(s.x).repeat_interleave(3, 0), y.flatten(), reduction="none").view(B, 3)
    check(step, losses.sum(1) / (y != -100).sum(1), s.model)


def test_regularisers_are_no_losses_of_samples(s: SimpleNamespace) -> None:
    model = nn.Linear(D, B)  # its weight has as many rows as the batch

    def rest() -> Tensor:
        return 0.1 * (model.weight**2).sum() + F.mse_loss(model.weight, torch.nn.Parameter(torch.zeros(B, D)))

    y = torch.randint(B, (B,))
    check(lambda: F.cross_entropy(model(s.x), y) + rest(), each(model(s.x), y), model)
    weighs(
        lambda: F.cross_entropy(model(s.x), y) + rest(),
        lambda: F.cross_entropy(model(s.x), y, reduction="none") / B,
        model,
        rest,
    )


def test_the_squared_length_of_parameters_is_no_loss_of_samples(s: SimpleNamespace) -> None:
    model = nn.Linear(D, B)  # its bias has an entry for each sample of the batch
    y = torch.randint(B, (B,))
    check(lambda: F.cross_entropy(model(s.x), y) + 0.1 * model.bias @ model.bias, each(model(s.x), y), model)
    check(lambda: F.cross_entropy(model(s.x), y) + torch.dot(0.1 * model.bias, model.bias), each(model(s.x), y), model)


def test_metrics_are_left_alone(s: SimpleNamespace) -> None:
    seen: list[Tensor] = []

    def step() -> Tensor:
        out = s.model(s.x)
        with torch.no_grad():
            seen.append(F.mse_loss(out, s.z))
        seen.append(F.l1_loss(out, s.z))
        return F.cross_entropy(out, s.y)

    check(step, each(s.model(s.x), s.y), s.model)
    weighs(step, lambda: F.cross_entropy(s.model(s.x), s.y, reduction="none") / B, s.model)
    for metric in seen[::2]:
        assert torch.equal(metric, F.mse_loss(s.model(s.x), s.z).detach())
    for metric in seen[1::2]:
        assert torch.equal(metric, F.l1_loss(s.model(s.x), s.z))


def test_a_mean_that_only_normalises_does_not_count(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        losses = (s.model(s.x) - s.z).pow(2).mean(1)
        return (losses / losses.mean()).mean()

    own = (s.model(s.x) - s.z).pow(2).mean(1)
    check(step, own / own.mean(), s.model)


def test_a_mean_over_loss_terms_does_not_count() -> None:
    model, x, y = nn.Linear(D, C), torch.randn(2, D), torch.randint(C, (2,))

    def step() -> Tensor:  # two terms, and a batch of two
        return torch.stack([F.cross_entropy(model(x), y), F.mse_loss(model(x), model.bias.detach().expand(2, C))]).sum()

    own = each(model(x), y) + (model(x) - model.bias).pow(2).mean(1).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(step, own, model, batch_size=2)


def test_time_major_tokens_go_to_their_samples() -> None:
    model, steps = nn.Linear(D, C), 3
    x, y = torch.randn(steps, B, D), torch.randint(C, (steps, B))
    own = F.cross_entropy(model(x).reshape(-1, C), y.flatten(), reduction="none").view(steps, B).mean(0)
    check(lambda: F.cross_entropy(model(x).reshape(-1, C), y.flatten()), own, model)


def test_concatenated_views_go_to_their_samples(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        return F.cross_entropy(s.model(torch.cat([s.x, s.x + 1])), s.y.repeat(2))

    check(step, (each(s.model(s.x), s.y) + each(s.model(s.x + 1), s.y)) / 2, s.model)
    weighs(step, lambda: sum(F.cross_entropy(s.model(s.x + i), s.y, reduction="none") for i in (0, 1)) / B / 2, s.model)


def test_manual_optimization_adds_up_the_roots(s: SimpleNamespace) -> None:
    capture = LossCapture()

    def step() -> None:
        for loss in (F.cross_entropy(s.model(s.x), s.y), 2 * by_method(s)):
            capture.register_backward_loss(loss).backward()

    own = each(s.model(s.x), s.y) + 2 * (s.model(s.x) - s.z).pow(2).mean(1).detach()
    weights = torch.rand(B)
    s.model.zero_grad()
    (
        (F.cross_entropy(s.model(s.x), s.y, reduction="none") + 2 * (s.model(s.x) - s.z).pow(2).mean(1)) @ weights
    ).backward()
    expected = s.model.weight.grad / B
    for _ in range(3):
        s.model.zero_grad()
        out, captured = capture.run(step, B, weights)
        assert out is None
        torch.testing.assert_close(captured.losses, own)
        torch.testing.assert_close(s.model.weight.grad, expected)


def test_a_mapping_keeps_its_other_keys(s: SimpleNamespace) -> None:
    capture, weights = LossCapture(), torch.rand(B)
    for _ in range(2):
        out, _ = capture.run(lambda: {"loss": F.cross_entropy(s.model(s.x), s.y), "n": 3}, B, weights)
        assert out["n"] == 3
        torch.testing.assert_close(out["loss"].detach(), (weights * each(s.model(s.x), s.y)).mean())


def test_patches_are_gone_after_the_step(s: SimpleNamespace) -> None:
    names = {name: getattr(F, name) for name in vars(F)}
    capture = LossCapture(s.model)
    during: list[bool] = []

    def step(fail: bool) -> Tensor:
        during.append(F.cross_entropy is not names["cross_entropy"])
        if fail:
            raise RuntimeError("mine")
        return by_method(s) + F.cross_entropy(s.model(s.x), s.y) + ce_by_name(s.model(s.x), s.y)

    for fail in (False, False, True):
        if fail:
            with pytest.raises(RuntimeError, match="mine"):
                capture.run(lambda: step(True), B)
        else:
            capture.run(lambda: step(False), B)
        assert {name: getattr(F, name) for name in names} == names
        assert "mean" not in vars(torch.Tensor) and ce_by_name is names["cross_entropy"]
        assert not torch.overrides._get_current_function_mode_stack()
    assert during == [True] * 3


def test_other_threads_are_not_captured(s: SimpleNamespace) -> None:
    capture = LossCapture()
    results: list[Tensor] = []

    def elsewhere() -> None:
        results.append(F.cross_entropy(s.model(s.z @ s.z.T[:, :D]), s.y))

    def step(threads: int) -> Tensor:
        for _ in range(threads):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        return F.cross_entropy(s.model(s.x), s.y)

    for threads in (0, 1, 2):
        _, captured = capture.run(lambda n=threads: step(n), B, torch.zeros(B))
        torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y))
    assert len(results) == 3 and all(r > 0 for r in results)


def test_a_step_that_changes_is_probed_again(s: SimpleNamespace) -> None:
    capture, seen = LossCapture(), []
    for i in range(8):
        with_aux = i % 2
        _, captured = capture.run(lambda a=with_aux: by_function(s) if a else by_method(s), B)
        seen.append(bool(captured.losses.isfinite().all()))
    assert seen == [True, False, *[True] * 6], "only the first step of the new kind may be missed"


def test_a_step_without_a_loss_is_no_error_later_on(s: SimpleNamespace) -> None:
    capture = LossCapture()
    capture.run(lambda: F.cross_entropy(s.model(s.x), s.y), B)
    out, captured = capture.run(lambda: None, B)
    assert out is None and captured.losses.isnan().all() and captured.losses.shape == (B,)
    _, captured = capture.run(lambda: F.cross_entropy(s.model(s.x), s.y), B)
    torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y))


def test_the_size_of_a_batch_may_change(s: SimpleNamespace) -> None:
    capture = LossCapture()
    for n in (B, 3, 1):
        _, captured = capture.run(lambda n=n: F.cross_entropy(s.model(s.x[:n]), s.y[:n]), n)
        torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y)[:n])


def test_score_of_a_larger_batch(s: SimpleNamespace) -> None:
    def step(n: int) -> Tensor:
        out = s.model(s.x[:n])
        assert out.requires_grad == torch.is_grad_enabled()
        return 0.5 * F.cross_entropy(out, s.y[:n]) + (out - s.z[:n]).pow(2).sum() * 0.1

    capture = LossCapture()
    capture.run(lambda: step(4), 4)
    _, captured = capture.run(lambda: step(4), 4)
    scored = capture.score(lambda: step(B), B)
    torch.testing.assert_close(scored.losses[:4], captured.losses)
    assert scored.logits.shape == (B, C)


def test_autocast_losses_are_float32_and_the_dtype_stays(s: SimpleNamespace) -> None:
    model = s.model.bfloat16()
    capture = LossCapture()
    for step in (
        lambda: F.smooth_l1_loss(model(s.x.bfloat16()), s.z.bfloat16()),
        lambda: (model(s.x.bfloat16()) - s.z.bfloat16()).abs().mean(),
    ):
        capture = LossCapture()
        for weights in (None, None, torch.ones(B)):
            loss, captured = capture.run(step, B, weights)
            assert captured.losses.dtype == torch.float32 and loss.dtype == torch.bfloat16
            torch.testing.assert_close(loss, step(), rtol=1e-2, atol=1e-2)
    capture = LossCapture()
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(s.model(s.x), s.y)
        for _ in range(2):
            loss, captured = capture.run(lambda: F.cross_entropy(s.model(s.x), s.y), B)
            assert loss.dtype == expected.dtype and captured.losses.dtype == torch.float32


def test_gradients_of_parameters_are_not_touched_by_the_capture(s: SimpleNamespace) -> None:
    fired: list[int] = []
    for p in s.model.parameters():
        p.register_hook(lambda g: fired.append(1))
    capture = LossCapture()
    for _ in range(2):
        capture.run(lambda: F.cross_entropy(s.model(s.x), s.y) + 0.1 * F.mse_loss(s.model(s.x), s.z), B)
    assert not fired and s.model.weight.grad is None


def test_a_copy_starts_anew(s: SimpleNamespace) -> None:
    capture = LossCapture(s.model)
    capture.run(lambda: by_method(s), B)
    for other in (copy.deepcopy(capture), pickle.loads(pickle.dumps(capture))):
        _, captured = other.run(lambda: F.cross_entropy(s.model(s.x), s.y), B)
        torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y))


ERRORS: dict[str, tuple[Callable[[SimpleNamespace], Any], str]] = {
    "none": (lambda s: None, "returned None in place of a loss.*Return the loss"),
    "mapping": (lambda s: {"logits": s.x}, r"a mapping with the keys \['logits'\].*a dict with the key 'loss'"),
    "no gradient": (lambda s: F.cross_entropy(s.model(s.x), s.y).detach(), "has no gradient.*without detach"),
    "nothing found": (lambda s: s.model(s.x).norm(), f"each of the batch's {B} samples.*RandomPruning"),
    "not contributing": (
        lambda s: s.model(s.x).norm() + F.mse_loss(s.model(s.x), s.z).detach(),
        "0 of them part.*sample_loss=",
    ),
    "regulariser only": (lambda s: (s.model.weight**2).sum(), f"each of the batch's {B} samples.*RandomPruning"),
    "leading axis": (
        lambda s: F.cross_entropy(s.model(s.x[:3]), s.y[:3]),
        rf"\(3,\).*multiple of the batch's {B}.*sample_loss=",
    ),
    "contrastive": (
        lambda s: F.cross_entropy(s.model(s.x) @ s.model(s.x + 1).T, torch.arange(B)),
        "depends on the other samples.*sample_loss=.*RandomPruning",
    ),
    "covariance": (
        lambda s: (s.model(s.x).T @ s.model(s.x)).new_zeros(B, 1).add((s.model(s.x).mean(0) ** 2).sum()).mean(),
        "depends on the other samples.*sample_loss=.*RandomPruning",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_unsound_losses_are_refused_at_once_with_a_way_out(s: SimpleNamespace, name: str) -> None:
    step, message = ERRORS[name]
    with pytest.raises(CaptureError, match=message):
        LossCapture(s.model).run(lambda: step(s), B)


def test_a_partly_unsound_loss_warns_and_keeps_the_rest(s: SimpleNamespace) -> None:
    def step() -> Tensor:
        out = s.model(s.x)
        return F.cross_entropy(out, s.y) + F.cross_entropy(out @ out.T, torch.arange(B))

    capture = LossCapture()
    with pytest.warns(UserWarning, match="1 of 2 loss terms depend on several samples"):
        capture.run(step, B)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, captured = capture.run(step, B)
    torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y))


def test_score_looks_again_where_other_terms_are_computed(s: SimpleNamespace) -> None:
    capture, own = LossCapture(), (s.model(s.x) - s.z).pow(2).mean(1).detach()
    for step in (by_method, by_function, by_method):
        torch.testing.assert_close(capture.score(lambda step=step: step(s), B).losses, own)


def test_score_enters_terms_by_the_coefficients_of_its_own_pass(s: SimpleNamespace) -> None:
    """As mixup and drawn task weights need it; a loss that is logged now and then changes no other."""
    capture = LossCapture()

    def step(share: float, logs: bool) -> Tensor:
        if logs:
            F.cross_entropy(s.model(s.x + 1), s.y).detach()
        out = s.model(s.x)
        return share * F.cross_entropy(out, s.y) + (1 - share) * F.cross_entropy(out, s.y.roll(1))

    out = s.model(s.x)
    for share, logs in ((0.3, True), (0.8, True), (0.6, True), (0.1, True), (0.4, False), (0.5, True)):
        captured = capture.score(lambda share=share, logs=logs: step(share, logs), B)
        expected = share * each(out, s.y) + (1 - share) * each(out, s.y.roll(1))
        torch.testing.assert_close(captured.losses, expected)


def test_score_keeps_no_activations(s: SimpleNamespace) -> None:
    """But a whole graph where the step itself takes derivatives."""
    big, capture = nn.Sequential(nn.Linear(D, 300), nn.Tanh(), nn.Linear(300, C)), LossCapture()

    def step() -> Tensor:
        return 0.5 * F.cross_entropy(big(s.x), s.y)

    capture.run(step, B)
    kept: list[Tensor] = []

    def observed() -> Tensor:
        loss = step()
        with pytest.raises((RuntimeError, TypeError)):
            torch.autograd.grad(loss, list(big.parameters()), retain_graph=True)
        kept.append(loss)
        return loss

    torch.testing.assert_close(capture.score(observed, B).losses, 0.5 * each(big(s.x), s.y))
    assert kept


def test_a_batch_that_the_step_passes_over_is_no_probe(s: SimpleNamespace) -> None:
    """Nor is one whose loss is not finite; a loss that is computed and not returned is an error."""
    capture, nan = LossCapture(), torch.full_like(s.x, torch.nan)

    def nothing_for_nan(x: Tensor) -> Tensor | None:
        loss = F.cross_entropy(s.model(x), s.y)
        return loss if loss.isfinite() else None

    for step in (lambda: None, lambda: nothing_for_nan(nan)):
        with pytest.raises(NoLossError):
            capture.run(step, B)
    _, captured = capture.run(lambda: nothing_for_nan(s.x), B)
    torch.testing.assert_close(captured.losses, each(s.model(s.x), s.y))
    with pytest.raises(CaptureError) as error:
        LossCapture().run(lambda: nothing_for_nan(s.x) and None, B)
    assert not isinstance(error.value, NoLossError)


def test_weights_of_another_length_are_refused(s: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=rf"\({B - 1},\).*{B} samples"):
        LossCapture().run(lambda: by_method(s), B, torch.ones(B - 1))


def test_normalising_the_batch_at_the_end_is_not_contrastive(s: SimpleNamespace) -> None:
    model = nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C, affine=False))
    check(lambda: F.cross_entropy(model(s.x), s.y), each(model(s.x), s.y), model)


def test_a_missed_step_leaves_the_factors_for_scoring(s: SimpleNamespace) -> None:
    capture = LossCapture()
    capture.run(lambda: by_method(s), B)
    _, missed = capture.run(lambda: by_function(s), B)
    assert missed.losses.isnan().all()
    own = (s.model(s.x) - s.z).pow(2).mean(1).detach()
    torch.testing.assert_close(capture.score(lambda: by_method(s), B).losses, own)


def test_a_code_that_one_loss_takes_directly_and_another_through_a_normalised_decoder() -> None:
    torch.manual_seed(0)
    encoder, norm, decoder = nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 6)
    x = torch.randn(8, 6)

    def losses() -> torch.Tensor:
        code = encoder(x)
        return (decoder(norm(code)) - x).square().sum(1) + 0.1 * code.square().sum(1)

    _, captured = LossCapture().run(lambda: losses().mean(), batch_size=8)
    torch.testing.assert_close(captured.losses, losses().detach())


def test_a_code_that_mixes_by_the_direct_way_is_refused_all_the_same() -> None:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(6, 3), nn.Linear(3, 6)
    x = torch.randn(8, 6)

    def step() -> torch.Tensor:
        code = encoder(x)
        return ((decoder(code) - x).square().sum(1) + (code @ code.T).square().sum(1)).mean()

    with pytest.raises(CaptureError, match="depends on the other samples"):
        LossCapture().run(step, batch_size=8)
