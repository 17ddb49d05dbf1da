"""Losses that are divided by a number of the whole batch, or made of rows picked twice: against batches of one."""

import functools
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from capture_steps import Batch, C, Net, cut, make_batch
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture

Step = Callable[[Net, Batch], Tensor]


def value(net: Net, b: Batch) -> Tensor:
    return net.value(net.body(b["x"])).squeeze(1)


def binary(net: Net, b: Batch) -> tuple[Tensor, Tensor]:
    losses = F.binary_cross_entropy_with_logits(value(net, b), (b["y"] > 2).float(), reduction="none")
    return losses, (1 - torch.exp(-losses)) ** 2


def focal_normalized(net: Net, b: Batch, reduction: str = "mean") -> Tensor:
    """As in segmentation_models_pytorch, with normalized=True."""
    target = (b["segments"] == 1).float().flatten()
    logpt = F.binary_cross_entropy_with_logits(net.conv(b["image"])[:, 0].reshape(-1), target, reduction="none")
    focal_term = (1.0 - torch.exp(-logpt)).pow(2)
    loss = focal_term * logpt
    loss *= 0.25 * target + 0.75 * (1 - target)
    loss /= focal_term.sum().clamp_min(1e-6)
    return loss.mean() if reduction == "mean" else loss.sum()


def shared_out(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    weights = weights / weights.sum()
    return (weights * losses).sum()


def by_the_mean(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    return (losses * (weights / weights.mean()).detach()).mean()


def by_its_inverse(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    return (weights * losses * (1 / weights.sum(0, keepdim=True))).sum()


def decoupled_distillation(net: Net, b: Batch) -> Tensor:
    student, teacher = net(b["x"]), net.aux(net.body(b["x"])).detach()
    own = torch.zeros_like(student).scatter_(1, b["y"][:, None], 1).bool()
    p, q = student.softmax(1), teacher.softmax(1)
    of_class, of_teacher = (torch.stack([each[own], 1 - each[own]], 1) for each in (p, q))
    others, of_teacher_too = (each[~own].view(len(p), -1) for each in (student, teacher))
    first = F.kl_div(of_class.log(), of_teacher, reduction="batchmean")
    return first + 8 * F.kl_div(others.log_softmax(1), of_teacher_too.softmax(1), reduction="batchmean")


def besides_its_mean(net: Net, b: Batch) -> Tensor:
    losses, _ = binary(net, b)
    return 0.3 * (losses / losses.mean()).mean() + 0.5 * losses.mean()


SERVED: dict[str, Step] = {
    "focal, normalized": focal_normalized,
    "focal, normalized, sum": functools.partial(focal_normalized, reduction="sum"),
    "shared out": shared_out,
    "by the mean": by_the_mean,
    "by its inverse": by_its_inverse,
    "besides its mean": besides_its_mean,
    "decoupled distillation": decoupled_distillation,
}


@pytest.mark.parametrize("name", SERVED)
def test_a_sample_loses_what_a_batch_of_it_alone_loses(name: str) -> None:
    torch.manual_seed(0)
    net, step = Net(), SERVED[name]
    capture = LossCapture(net)
    for seed, size in enumerate((8, 8, 5, 7)):
        batch = cut(make_batch(seed), slice(size))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss, captured = capture.run(functools.partial(step, net, batch), size)
        alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach().reshape(()) for i in range(size)])
        torch.testing.assert_close(captured.losses, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loss, step(net, batch))


def less_their_mean(net: Net, b: Batch) -> Tensor:
    losses, _ = binary(net, b)
    return (losses - losses.mean()).square().mean()


def by_a_root(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    return (weights * losses / weights.sum().sqrt()).mean()


def by_one_more(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    return (weights * losses / (weights.sum() + 1)).sum()


def by_two(net: Net, b: Batch) -> Tensor:
    losses, weights = binary(net, b)
    return (weights / weights.sum() * losses / losses.mean()).sum()


OTHERS = "depends on the other samples of its batch"


@pytest.mark.parametrize("step", [less_their_mean, by_a_root, by_one_more, by_two])
def test_rows_with_a_number_of_the_batch_in_them_that_is_no_divisor_are_refused(step: Step) -> None:
    net, batch = Net(), make_batch()
    with pytest.raises(CaptureError, match=OTHERS):
        LossCapture(net).run(lambda: step(net, batch), len(batch["y"]))


def corn(net: Net, b: Batch) -> Tensor:
    """As in coral_pytorch: some of the samples in each task, and their number by len()."""
    logits, losses, n = net(b["x"]), torch.zeros(()), 0
    for task in range(C):
        mask = b["y"] > task - 1
        labels = (b["y"][mask] > task).float()
        n += len(labels)
        logs = F.logsigmoid(logits[mask, task])
        losses = losses - (logs * labels + (logs - logits[mask, task]) * (1 - labels)).sum()
    return losses / n


def token_losses(net: Net, b: Batch) -> Tensor:
    return ((net.tokens(b) - 1).square().mean(-1) * b["mask"]).sum(1)


COUNTED: dict[str, Step] = {
    "CORN": corn,
    "indices": lambda net, b: token_losses(net, b).sum() / len(b["mask"].nonzero()),
    "classes": lambda net, b: token_losses(net, b).sum() / len(b["y"].unique()),
    "classes in a row": lambda net, b: token_losses(net, b).sum() / len(b["y"].sort().values.unique_consecutive()),
    "list": lambda net, b: token_losses(net, b).sum() / sum(b["mask"].sum(1).tolist()),
    "longest": lambda net, b: token_losses(net, b).sum() / b["mask"].sum(1).max(),
    "by step first": lambda net, b: token_losses(net, b).sum() / b["mask"].sum(0).sum(),
    "steps": lambda net, b: token_losses(net, b).sum() / sum(b["mask"][:, i].sum() for i in range(6)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_numbers_that_are_counted_out_of_sight_are_refused(name: str) -> None:
    net, batch = Net(), make_batch()
    with pytest.raises(CaptureError, match="divided by a number that was counted outside of torch"):
        LossCapture(net).run(lambda: COUNTED[name](net, batch), len(batch["y"]))


def test_rows_that_a_mask_picks_are_divided_by_their_number() -> None:
    net, batch = Net(), make_batch()

    def step(b: Batch) -> Tensor:
        own = b["y"] > 1
        return F.softplus(net(b["x"])[own, 0]).sum() / max(1, len(b["y"][own]))

    captured = LossCapture(net).run(lambda: step(batch), len(batch["y"]))[1]
    alone = torch.stack([step(cut(batch, slice(i, i + 1))).detach() for i in range(len(batch["y"]))])
    torch.testing.assert_close(captured.losses, alone)


def groups(net: Net, b: Batch) -> list[Tensor]:
    losses, _ = binary(net, b)
    return [losses[b["y"] == own].mean() for own in b["y"].unique()]


def groups_by_their_masks(net: Net, b: Batch) -> Tensor:
    losses, total, n = binary(net, b)[0], torch.zeros(()), 0
    for own in (b["y"] == c for c in range(C)):
        if own.any():
            total, n = total + (losses * own).sum() / own.sum(), n + 1
    return total / n


GROUPED: dict[str, Step] = {
    "by their number": lambda net, b: sum(groups(net, b)) / len(groups(net, b)),
    "their mean": lambda net, b: torch.stack(groups(net, b)).mean(),
    "beside another term": lambda net, b: torch.stack(groups(net, b)).mean() + F.mse_loss(net(b["x"]), b["z"]),
    "by their masks": groups_by_their_masks,
}


@pytest.mark.parametrize("name", GROUPED)
def test_means_over_groups_of_samples_are_refused_without_a_witness(name: str) -> None:
    net, batch = Net(), make_batch()
    with pytest.raises(CaptureError, match="The loss is a mean over groups of samples"):
        LossCapture(net).run(lambda: GROUPED[name](net, batch), len(batch["y"]))


def sums_by_class(net: Net, b: Batch) -> Tensor:
    losses, _ = binary(net, b)
    return sum((losses * (b["y"] == own)).sum() for own in range(C)) / len(losses)


def means_of_each_sample(net: Net, b: Batch) -> Tensor:
    losses, n = (net.tokens(b) - 1).square().mean(-1), len(b["x"])
    sample = torch.arange(n).repeat_interleave(losses.shape[1])
    return torch.stack([losses.flatten()[sample == i].mean() for i in range(n)]).mean()


@pytest.mark.parametrize("step", [sums_by_class, means_of_each_sample])
def test_sums_over_groups_of_samples_and_means_of_each_are_read(step: Step) -> None:
    net, batch = Net(), make_batch()
    captured = LossCapture(net).run(lambda: step(net, batch), len(batch["y"]))[1]
    alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach() for i in range(len(batch["y"]))])
    torch.testing.assert_close(captured.losses, alone)


def mean(net: Net, b: Batch) -> Tensor:
    return binary(net, b)[0].mean()


BOUNDED: dict[str, Step] = {
    "a share beyond it": lambda net, b: torch.where((loss := mean(net, b)) > 0.5, loss, 0.1 * loss),
    "without its gradient": lambda net, b: torch.where((loss := mean(net, b)).detach() < 0.5, 0.1 * loss, loss),
    "a method": lambda net, b: (loss := mean(net, b)).where(loss > 0.5, torch.full_like(loss, 0.5)),
    "beside another term": lambda net, b: torch.where((loss := mean(net, b)) > 0, loss, -loss) + net(b["x"]).mean(),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_mean_that_one_of_two_numbers_takes_the_place_of_is_refused(name: str) -> None:
    net, batch = Net(), make_batch()
    with pytest.raises(CaptureError, match="The loss is clipped, by clamp, relu, maximum or where"):
        LossCapture(net).run(lambda: BOUNDED[name](net, batch), len(batch["y"]))


GUARDED: dict[str, Step] = {
    "not a number": lambda net, b: torch.where((loss := mean(net, b)).isnan(), torch.zeros(()), loss),
    "nothing left": lambda net, b: torch.where(
        (n := (binary(net, b)[1].detach() > 0).float().sum()) > 0, binary(net, b)[0].sum() / len(b["y"]), n
    ),
}


@pytest.mark.parametrize("name", GUARDED)
def test_a_guard_is_no_bound(name: str) -> None:
    net, batch = Net(), make_batch()
    captured = LossCapture(net).run(lambda: GUARDED[name](net, batch), len(batch["y"]))[1]
    torch.testing.assert_close(captured.losses, binary(net, batch)[0].detach())


def eightfold(net: Net, b: Batch) -> Tensor:
    return 8 * mean(net, b)


def as_often_as_there_are_samples(net: Net, b: Batch) -> Tensor:
    return mean(net, b) * b["y"].shape[0]


@pytest.mark.parametrize("step", [eightfold, as_often_as_there_are_samples])
def test_a_weight_that_is_written_down_is_not_the_number_of_samples(step: Step) -> None:
    net = Net()
    capture = LossCapture(net)
    for size in (8, 8, 5):
        batch = cut(make_batch(size), slice(size))
        captured = capture.run(functools.partial(step, net, batch), size)[1]
        alone = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach() for i in range(size)])
        torch.testing.assert_close(captured.losses, alone)
    assert not capture.has_misread()


def test_a_size_that_comes_from_elsewhere_shows_in_a_batch_of_another_size() -> None:
    net = Net()
    capture = LossCapture(net)
    for size in (8, 5):
        batch, n = cut(make_batch(size), slice(size)), size
        losses = capture.run(lambda batch=batch, n=n: mean(net, batch) * n, size)[1].losses
    assert capture.has_misread()
    torch.testing.assert_close(losses, binary(net, batch)[0].detach())
