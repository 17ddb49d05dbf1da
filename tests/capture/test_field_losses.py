"""Losses as they are written in the field: read as batches of one have them, or refused for what is so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import B, C, Net, Step, captured, measured
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_dataselect.capture import CaptureError

Read = Callable[[Step], tuple[Tensor, Tensor, str]]


def each(net: Net, b: Any) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["y"], reduction="none")


# ---- served ----------------------------------------------------------------------------------------------------------


def mean_of_two_groups(net: Net, b: Any) -> Tensor:
    losses, own = each(net, b), b["positive"]
    return 0.5 * (losses[own].sum() / own.sum().clamp(min=1) + losses[~own].sum() / (~own).sum().clamp(min=1))


def among_those_of_other_classes(net: Net, b: Any) -> Tensor:
    kept = (b["y"] != 2).double()
    n = sum(label != 2 for label in b["y"].tolist())
    return (each(net, b) * kept).sum() / max(n, 1)


def zero_if_none(net: Net, b: Any) -> Tensor:
    kept = (b["y"] != 2).double()
    total, n = (each(net, b) * kept).sum(), kept.sum()
    return torch.where(n > 0, total / n.clamp(min=1), 0.0)


def zero_if_none_by_a_sum(net: Net, b: Any) -> Tensor:
    kept = b["y"] != 2
    total, n = (each(net, b) * kept).sum(), kept.sum()
    return torch.where(n == 0, total * 0, total / (n + (n == 0)))


def selected_frames(net: Net, b: Any) -> Tensor:
    """As in a text-to-speech model: a mask with one entry for all features of a frame."""
    frames, own = net.embed(b["tokens"]), b["mask"][..., None]
    return F.l1_loss(frames.masked_select(own), torch.zeros_like(frames).masked_select(own))


def times_the_samples(net: Net, b: Any) -> Tensor:
    """As in YOLO."""
    out, own = net.single(b["x"]), b["positive"]
    loss = bce(out, own.double())
    if own.any():
        loss = loss + 0.5 * F.mse_loss(out[own], b["r"][own])
    return loss * len(out)


def times_the_samples_of_all_terms(net: Net, b: Any) -> Tensor:
    n = b["x"].shape[0]
    return n * (0.7 * F.cross_entropy(net(b["x"]), b["y"]) + 0.1 * F.mse_loss(net.single(b["x"]), b["r"])) / 4


def next_items(net: Net, b: Any) -> Tensor:
    """As in SASRec: a pair of indices takes entries out of a matrix, of one sample too."""
    items = net.embed(b["tokens"])
    scores, index = (items[:, 1:] * items[:, :-1]).sum(-1), torch.where(b["mask"][:, 1:])
    return bce(scores[index], torch.ones_like(scores[index]))


def next_items_by_numpy(net: Net, b: Any) -> Tensor:
    """As its authors write it, where the positions are arrays."""
    items = net.embed(b["tokens"])
    scores, index = (items[:, 1:] * items[:, :-1]).sum(-1), np.where(b["mask"].numpy()[:, 1:] != 0)
    return bce(scores[index], torch.ones_like(scores[index]))


def tokens_by_a_mask_of_numpy(net: Net, b: Any) -> Tensor:
    out, own = net.words(net.embed(b["tokens"])), np.asarray(b["mask"])
    return F.cross_entropy(out[own], b["tokens"][own])


def one_term_of_some(net: Net, b: Any) -> Tensor:
    loss, own = F.mse_loss(net.code(net.body(b["x"])), b["x"][:, :3]), b["positive"]
    if own.any():
        loss = loss + 0.3 * (net.single(b["x"])[own] - b["r"][own]).abs().mean()
    return loss


def one_call_of_several_for_some(net: Net, b: Any) -> Tensor:
    """Let the batch decide which call of a function is which."""
    out, own = net.single(b["x"]), b["positive"]
    loss = F.mse_loss(net.code(net.body(b["x"])), b["x"][:, :3])
    if own.any():
        loss = loss + 2 * F.mse_loss(out[own], b["r"][own])
    return loss + 0.5 * F.mse_loss(net(b["x"]), b["x"][:, 1 : C + 1])


def losses_of_tasks(net: Net, b: Any) -> list[Tensor]:
    """As where samples have labels of some tasks: one head after the other, but for those that no label is there of."""
    h, losses = net.body(b["x"]), []
    for task, weight in enumerate(net.code.weight.split(1)):
        own = b["tokens"][:, task] > (6 if task < 2 else -1)
        if own.sum() == 0:
            continue
        losses.append(F.mse_loss(F.linear(h, weight)[own].squeeze(-1), b["r"][own]))
    return losses


def tasks_with_missing_labels(net: Net, b: Any) -> Tensor:
    return torch.stack(losses_of_tasks(net, b)).sum()


BOTH: list[Read] = [measured, captured]


@pytest.mark.parametrize("read", BOTH)
@pytest.mark.parametrize(
    "step",
    [
        mean_of_two_groups, among_those_of_other_classes, zero_if_none, zero_if_none_by_a_sum, next_items,
        next_items_by_numpy, tokens_by_a_mask_of_numpy,
        one_term_of_some, one_call_of_several_for_some, times_the_samples_of_all_terms, tasks_with_missing_labels,
    ],
)  # fmt: skip
def test_losses_are_those_of_batches_of_one(step: Step, read: Read) -> None:
    losses, right, _ = read(step)
    known = losses.isfinite()  # but for the batches before one that shows that they were misread
    assert known.sum() >= B
    torch.testing.assert_close(losses[known], right[known], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [selected_frames, times_the_samples])
def test_single_samples_show_what_sizes_leave_open(step: Step) -> None:
    losses, right, _ = measured(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)


# ---- refused ---------------------------------------------------------------------------------------------------------


def groups_in_lines_of_their_own(net: Net, b: Any) -> Tensor:
    losses, own, means = each(net, b), b["positive"], []
    if own.any():
        means.append(losses[own].mean())
    if not own.all():
        means.append(losses[~own].mean())
    return sum(means) / len(means)


def mean_over_the_tasks_that_are_there(net: Net, b: Any) -> Tensor:
    return torch.stack(losses_of_tasks(net, b)).mean()


def one_step_after_the_other(net: Net, b: Any) -> Tensor:
    out, longest = net.words(net.embed(b["tokens"])), int(b["n"].max())
    labels = b["tokens"].masked_fill(~b["mask"], -100)
    return sum(F.cross_entropy(out[:, i], labels[:, i]) for i in range(longest)) / longest


def slopes_of_a_mean(net: Net, b: Any) -> Tensor:
    x = b["x"].clone().requires_grad_()
    loss = F.cross_entropy(net(x), b["y"])
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + 0.1 * slope.square().sum(1).mean()


def unexplained_variance(net: Net, b: Any) -> Tensor:
    return (net.single(b["x"]) - b["r"]).square().sum() / (b["r"] - b["r"].mean()).square().sum()


def mean_over_a_python_count(net: Net, b: Any) -> Tensor:
    kept = (b["y"] != 2).double()
    return (each(net, b) * kept).mean() / max(int((b["y"].numpy() != 2).sum()), 1) * len(kept)


def the_hardest_half(net: Net, b: Any) -> Tensor:
    return each(net, b).topk(max(1, len(b["y"]) // 2))[0].mean()


def the_hardest_half_in_order(net: Net, b: Any) -> Tensor:
    """As losses are bootstrapped online."""
    losses, _ = each(net, b).sort(descending=True)
    return losses[: max(1, len(losses) // 2)].mean()


def the_easiest_of_another_model(net: Net, b: Any) -> Tensor:
    """As two models teach each other."""
    out, losses = net(b["x"]), F.cross_entropy(net(b["x"] + 1), b["y"], reduction="none")
    easy = np.argsort(losses.data.numpy())[: max(1, int(0.75 * len(losses)))]
    return F.cross_entropy(out[easy], b["y"][easy])


def rows_above_a_quantile_of_numpy(net: Net, b: Any) -> Tensor:
    out, losses = net(b["x"]), np.array([loss.item() for loss in each(net, b)])
    hard = losses >= np.quantile(losses, 0.5)
    return F.cross_entropy(out[hard], b["y"][hard])


def captions_by_length(net: Net, b: Any) -> Tensor:
    """As captions are sorted within the step, to be packed."""
    lengths, order = b["n"].sort(descending=True)
    tokens = b["tokens"][order]
    out = net.words(net.embed(tokens))
    packed = [pack_padded_sequence(part, lengths.tolist(), batch_first=True).data for part in (out, tokens)]
    return F.cross_entropy(*packed)


def detections(net: Net, b: Any) -> Tensor:
    """As in FCOS: all losses over the number of those that are none of the background, counted by their indices."""
    out = net.words(net.embed(b["tokens"])).flatten(0, 1)
    index = (b["tokens"].flatten() > 8).nonzero().squeeze(1)
    return F.cross_entropy(out, b["tokens"].flatten(), reduction="sum") / max(1, len(index))


def groups_of_their_own_pass(net: Net, b: Any) -> Tensor:
    own = b["positive"]
    masks = [mask for mask in (own, ~own) if mask.any()]
    return sum(F.cross_entropy(net(b["x"][mask]), b["y"][mask]) for mask in masks) / len(masks)


def one_by_one_but_for_some(net: Net, b: Any) -> Tensor:
    pairs = zip(net(b["x"]), b["y"], b["positive"], strict=True)
    losses = [F.cross_entropy(out[None], label[None]) for out, label, counts in pairs if counts]
    return torch.stack(losses).mean() if losses else 0 * net(b["x"]).sum()


def losses_of(net: Net, b: Any) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["y"], reduction="none")


HARDEST = "selects rows of the batch by the model's outputs"
GROUPS, COUNT, SCALE = "mean over groups", "counted outside of torch", "not a sum over the samples"
REFUSED: dict[str, tuple[Step, str]] = {
    "groups": (groups_in_lines_of_their_own, GROUPS),
    "tasks": (mean_over_the_tasks_that_are_there, GROUPS),
    "the longest": (one_step_after_the_other, SCALE),
    "slopes of a mean": (slopes_of_a_mean, SCALE),
    "over their number": (lambda net, b: (losses_of(net, b) / len(b["y"])).mean(), SCALE),
    "over its root": (lambda net, b: (losses_of(net, b) / len(b["y"]) ** 0.5).mean(), SCALE),
    "outputs over it": (lambda net, b: (net(b["x"]) / len(b["y"])).square().mean(), SCALE),
    "unexplained variance": (unexplained_variance, "numbers that are made of the whole batch"),
    "a count by NumPy": (mean_over_a_python_count, COUNT),
    "groups of their own pass": (groups_of_their_own_pass, "masks out some samples of its batch before the model"),
    "one by one": (one_by_one_but_for_some, "computed sample by sample, but this time for . of 8"),
    "topk": (the_hardest_half, HARDEST),
    "sort": (the_hardest_half_in_order, HARDEST),
    "argsort by NumPy": (the_easiest_of_another_model, HARDEST),
    "a quantile by NumPy": (rows_above_a_quantile_of_numpy, HARDEST),
    "captions": (captions_by_length, "reorders the samples of a batch"),
    "detections": (detections, COUNT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_sample_alone_does_not_lose_is_refused_for_what_it_is(name: str) -> None:
    step, words = REFUSED[name]
    with pytest.raises(CaptureError, match=words):
        measured(step)


@pytest.mark.parametrize(
    "step",
    [slopes_of_a_mean, unexplained_variance, the_hardest_half, the_hardest_half_in_order, the_easiest_of_another_model],
)
def test_some_of_it_shows_without_single_samples(step: Step) -> None:
    with pytest.raises(CaptureError):
        captured(step)


@pytest.mark.parametrize("read", BOTH)
def test_what_is_bounded_after_the_mean_is_left_out_with_a_warning(read: Read) -> None:
    """As a variational autoencoder's free bits are."""

    def step(net: Net, b: Any) -> Tensor:
        code = net.code(net.body(b["x"]))
        return F.cross_entropy(net(b["x"]), b["y"]) + code.square().mean(0).clamp(min=0.5).sum()

    assert "depends on the batch through something other than" in read(step)[2]


@pytest.mark.parametrize("read", [measured, captured])
def test_the_spread_of_losses_is_left_out_with_a_warning_and_their_mean_is_read(read: Read) -> None:
    def step(net: Net, b: Any) -> Tensor:
        losses = losses_of(net, b)
        mean = losses.mean()
        return mean + 0.1 * (losses - mean).square().mean()

    losses, right, said = read(step)
    torch.testing.assert_close(losses, right, rtol=1e-4, atol=1e-6)
    assert "1 of 2 loss terms depend on several samples at once" in said


# ---- coefficients that change where no sample shows why --------------------------------------------------------------

CHANGES = "changes from batch to batch, and nothing shows why"


def test_a_coefficient_that_may_be_a_count_of_pythons_is_named() -> None:
    said = captured(mean_over_a_python_count)[2]
    assert said.count(CHANGES) == 1


def test_a_sum_over_a_number_of_the_collate_function_is_named_once_it_changes() -> None:
    def step(net: Net, b: Any) -> Tensor:
        losses = (net.words(net.embed(b["tokens"])).square().mean(-1) * b["mask"]).sum(1)
        return losses.sum() / (float(b["n"].sum()) + 3.5)

    assert captured(step)[2].count(CHANGES) == 1


def scaled_by_what_is_learned(net: Net, b: Any) -> Tensor:
    b["y"].tolist()
    net.log_scale.data += 0.1
    return net.log_scale.exp() * each(net, b).sum()


def drawn(net: Net, b: Any) -> Tensor:
    return torch.rand(()) * F.cross_entropy(net(b["x"]), b["y"])


@pytest.mark.parametrize("step", [scaled_by_what_is_learned, drawn])
def test_learned_and_drawn_coefficients_are_none_of_these(step: Step) -> None:
    assert CHANGES not in captured(step)[2]


def test_samples_that_show_why_leave_nothing_to_say() -> None:
    def step(net: Net, b: Any) -> Tensor:
        kept = (b["y"] < C - 1).double()
        return F.mse_loss(net.single(b["x"]), b["r"]) + (each(net, b) * kept).sum() / (kept.sum() + 1e-8)

    losses, right, said = measured(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
    assert CHANGES not in said
