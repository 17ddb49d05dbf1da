"""A step that decides by the whole batch what its loss is made of: refused where a sample alone decides otherwise."""

import logging
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import B, C, N, Net, Step, captured, measured, samples
from torch import Tensor

from lightning_dataselect.capture import CaptureError

BRANCH = "decides by a number of the whole batch which way it takes, in line"
OPEN = "is read along the way that its batch takes"


def ce(net: Net, b: dict[str, Tensor], **how: str) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["y"], **how)


def halved_if_high(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    if loss > 1.7:
        loss = loss * 0.5
    return loss


def limited_by_its_value(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    if loss.item() > 1.7:
        loss = loss * (1.7 / loss.detach())
    return loss


def halved_by_a_float(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    value = float(loss.detach())
    return loss * 0.5 if value > 1.6 else loss


def halved_by_an_array(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    return loss * 0.5 if loss.detach().numpy() > 1.6 else loss


def halved_by_arithmetic(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    return loss * 0.5 if 2 - 0.5 * loss.item() < 1.2 else loss


def by_the_worst(net: Net, b: dict[str, Tensor]) -> Tensor:
    errors = net.single(b["x"]) - b["r"]
    return errors.abs().mean() if errors.abs().max() > 1 else errors.square().mean()


def both_if_close(net: Net, b: dict[str, Tensor]) -> Tensor:
    losses = [F.softplus(sign * net.single(b["x"])).mean() for sign in (1, -1)]
    return losses[0] + losses[1] if (losses[0] - losses[1]).abs() < 0.1 else losses[0]


def a_logarithm_if_high(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    return loss.log() + 1 if loss > 1.65 else loss


def another_term_if_low(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    return loss + 0.1 * F.mse_loss(net.single(b["x"]), b["r"]) if loss < 1.7 else loss


def another_loss_if_high(net: Net, b: dict[str, Tensor]) -> Tensor:
    size = (net.single(b["x"]) - b["r"]).abs().mean()
    return size if size < 1 else F.mse_loss(net.single(b["x"]), b["r"])


def left_out_if_high(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    return loss * 0 if loss.detach() > 1.8 else loss


def risks(net: Net, b: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    out, own = net.single(b["x"]), b["positive"].double()
    n, n_others = own.sum().clamp(min=1), (1 - own).sum().clamp(min=1)
    of_own = 0.4 * (own * torch.sigmoid(out)).sum() / n
    return 0.4 * (own * torch.sigmoid(-out)).sum() / n, ((1 - own) * torch.sigmoid(out)).sum() / n_others - of_own


def positive_and_unlabeled(net: Net, b: dict[str, Tensor]) -> Tensor:
    """As in Kiryo et al., 2017."""
    positive, negative = risks(net, b)
    if negative < 0:
        return -negative
    return positive + negative


def positive_less_negative(net: Net, b: dict[str, Tensor]) -> Tensor:
    positive, negative = risks(net, b)
    return positive - negative if negative.item() < 0 else positive + negative


def data_halved_if_large(net: Net, b: dict[str, Tensor]) -> Tensor:
    x = b["x"]
    if x.abs().max() > 3:
        x = x / 2
    return F.cross_entropy(net(x), b["y"])


def doubled_if_far(net: Net, b: dict[str, Tensor]) -> Tensor:
    """The three samples that are shown first agree, unlike the whole batch."""
    loss = ce(net, b)
    return loss * 2 if b["x"].abs().max() > 5 else loss


def doubled_if_far_by_a_float(net: Net, b: dict[str, Tensor]) -> Tensor:
    return ce(net, b) * (2 if float(b["x"].abs().max()) > 5 else 1)


def doubled_if_far_by_an_array(net: Net, b: dict[str, Tensor]) -> Tensor:
    return ce(net, b) * (2 if np.abs(b["x"].numpy()).max() > 5 else 1)


def doubled_if_any_is_last(net: Net, b: dict[str, Tensor]) -> Tensor:
    return ce(net, b) * (2 if (b["y"] == C - 1).any() else 1)


def doubled_if_some_are_found(net: Net, b: dict[str, Tensor]) -> Tensor:
    return ce(net, b) * (2 if (b["y"] == 3).nonzero().shape[0] > 1 else 1)


def data_halved_if_far(net: Net, b: dict[str, Tensor]) -> Tensor:
    x = b["x"]
    return F.cross_entropy(net(x / 2 if x.abs().max() > 4.5 else x), b["y"])


def those_of_a_class_if_there_are_any(net: Net, b: dict[str, Tensor]) -> Tensor:
    losses = ce(net, b, reduction="none")
    kept = losses[b["y"] == 3]
    return kept.mean() if len(kept) > 0 else losses.mean()


def hinge(net: Net, b: dict[str, Tensor]) -> Tensor:
    """As in torchmetrics: a softmax unless all outputs look like probabilities."""
    out = torch.sigmoid(net(b["x"])) * 1.55
    if not bool(((out >= 0) * (out <= 1)).all()):
        out = out.softmax(1)
    own = F.one_hot(b["y"], C).bool()
    return (1 - out[own] + out.masked_fill(own, -1).amax(1)).clamp(min=0).mean()


@pytest.mark.parametrize(
    "step",
    [
        doubled_if_far, doubled_if_far_by_a_float, doubled_if_far_by_an_array, doubled_if_any_is_last,
        doubled_if_some_are_found, data_halved_if_far,
        those_of_a_class_if_there_are_any, hinge,
        halved_if_high, halved_by_a_float, halved_by_an_array, halved_by_arithmetic, by_the_worst, both_if_close,
        limited_by_its_value, a_logarithm_if_high, another_term_if_low, another_loss_if_high,
        left_out_if_high, positive_and_unlabeled, positive_less_negative, data_halved_if_large,
    ],
)  # fmt: skip
def test_a_branch_that_samples_alone_take_otherwise_is_refused_by_its_line(step: Step) -> None:
    with pytest.raises(CaptureError, match=BRANCH):
        measured(step)


def test_a_term_that_a_word_in_the_batch_adds_for_all_samples_is_refused() -> None:
    def step(net: Net, b: dict[str, Any]) -> Tensor:
        loss = ce(net, b)
        return loss + 0.3 * F.mse_loss(net.single(b["x"]), b["r"]) if "c" in b["name"] else loss

    with pytest.raises(CaptureError, match="mse_loss is part of the loss of a batch, but not of that of its samples"):
        measured(step)


@pytest.mark.parametrize("read", [measured, captured])
def test_a_branch_that_all_samples_have_taken_so_far_is_named(read: type) -> None:
    losses, right, said = read(lambda net, b: loss if (loss := ce(net, b)) < 1e4 else 0 * loss)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
    assert said.count(OPEN) == 1


def test_a_bound_that_no_sample_has_met_so_far_is_named() -> None:
    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        x = b["x"]
        return F.cross_entropy(net(x / 2 if x.abs().max() > 7 else x), b["y"])

    assert measured(step)[2].count(OPEN) == 1


@pytest.mark.parametrize(
    "step",
    [
        halved_if_high, limited_by_its_value, halved_by_a_float, halved_by_an_array, halved_by_arithmetic,
        doubled_if_far, data_halved_if_far, hinge, by_the_worst,
    ],
)  # fmt: skip
def test_a_question_is_named_where_no_sample_shows_what_follows(step: Step) -> None:
    assert captured(step)[2].count(OPEN) == 1


@pytest.mark.parametrize("read", [measured, captured])
def test_no_step_is_told_what_would_end_it_or_enter_its_logs(read: type) -> None:
    seen: list[float] = []

    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        loss = ce(net, b)
        seen.append(loss.item())
        value = float(loss.detach())
        seen.append(value)
        if loss > 1e4:
            sys.exit(1)
        if value > 1e4:
            sys.exit(1)
        return loss

    losses, right, said = read(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
    assert OPEN not in said and 0 < min(seen) and max(seen) < 10


def test_what_a_step_says_along_a_way_that_it_has_not_taken_is_not_shown(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its samples are run along that way all the same, so that it is named."""

    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        loss = ce(net, b)
        if loss.item() > 1e4:
            print("the loss is very high")
            print("the loss is very high", file=sys.stderr)
            logging.getLogger("step").critical("the loss is very high")
            warnings.warn("the loss is very high", stacklevel=1)
            loss = loss * 0.5
        return loss

    said = measured(step)[2]
    assert said.count(OPEN) == 1 and "very high" not in said
    assert not any("very high" in text for text in (*capfd.readouterr(), caplog.text))


def test_a_step_that_another_answer_would_end_is_named() -> None:
    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        loss = ce(net, b)
        if loss > 1e4:
            loss = loss * 0
            sys.exit(1)
        return loss * 0.5 if loss.item() > 1e4 else loss

    assert measured(step)[2].count(OPEN) == 1


def test_what_is_made_of_a_number_shows_once_the_coefficient_changes() -> None:
    assert captured(halved_by_a_float)[2].count("If it depends on a number that is taken out of torch") == 1


def without_what_is_no_number(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    if not torch.isfinite(loss):
        raise ValueError
    return torch.zeros_like(loss) if torch.isnan(loss) else loss


def counts_high_ones(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    net.n_high = getattr(net, "n_high", 0) + (loss.item() > 1.6)
    net.mean = 0.9 * getattr(net, "mean", 1.0) + 0.1 * float(loss)
    return loss


def balanced_by_its_value(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss, other = ce(net, b), net.code(net.body(b["x"])).square().mean()
    return loss + 0.0 * other / other.item()


def looks_at_hits(net: Net, b: dict[str, Tensor]) -> Tensor:
    out = net(b["x"])
    net.is_good = bool((out.argmax(1) == b["y"]).double().mean() > 0.5)
    if net.log_scale.exp() > 100:
        net.log_scale.data.zero_()
    return F.cross_entropy(out, b["y"])


def remembers_the_best(net: Net, b: dict[str, Tensor]) -> Tensor:
    loss = ce(net, b)
    net.best = min(getattr(net, "best", 1e9), loss.item())
    if loss.item() < net.best + 1:
        net.n_good = getattr(net, "n_good", 0) + 1
    return loss


def checks_its_numbers(net: Net, b: dict[str, Tensor]) -> Tensor:
    assert b["x"].abs().max() < 100 and b["y"].max().item() < C
    loss = ce(net, b)
    assert loss >= 0
    if not torch.isfinite(loss):
        return None
    return loss


def without_a_mask_if_nothing_is_padded(net: Net, b: dict[str, Tensor]) -> Tensor:
    words, mask = net.embed(b["tokens"]), b["mask"]
    words, mask = words[:, : int(b["n"].max())], mask[:, : int(b["n"].max())]
    if mask.all():
        pooled = words.mean(1)
    else:
        pooled = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return F.cross_entropy(net.head(pooled), b["y"])


def measures_itself(net: Net, b: dict[str, Tensor]) -> Tensor:
    out = net(b["x"])
    hits = out.detach().argmax(1).numpy() == b["y"].numpy()
    net.counts = np.bincount(b["y"].tolist(), minlength=C)
    if hits.mean() > 0.3 or len(out[out > 0]) > 5:
        net.is_good = True
    size = sum(weight.norm().item() ** 2 for weight in net.parameters()) ** 0.5
    return F.cross_entropy(out, b["y"]) if size < 1e9 else out.sum()


def balanced_by_counts(net: Net, b: dict[str, Tensor]) -> Tensor:
    """A factor of the whole batch, which a sample's loss keeps, beside a question that changes nothing."""
    losses, n = ce(net, b, reduction="none"), torch.bincount(b["y"], minlength=C)
    if (n > 2).any():
        net.is_uneven = True
    return (losses * (n.max() / n)[b["y"]]).mean()


def mean_over_counts(net: Net, b: dict[str, Tensor]) -> Tensor:
    losses, own = ce(net, b, reduction="none"), b["positive"].double()
    return (losses * own).sum() / max(own.sum(), 1) if own.sum() > 0 else 0 * losses.sum()


INNOCENT = [
    without_what_is_no_number, counts_high_ones, balanced_by_its_value, looks_at_hits, remembers_the_best,
    checks_its_numbers, without_a_mask_if_nothing_is_padded, measures_itself, mean_over_counts,
]  # fmt: skip


@pytest.mark.parametrize("read", [measured, captured])
@pytest.mark.parametrize("step", INNOCENT)
def test_a_branch_that_changes_no_loss_is_none(step: Step, read: type) -> None:
    losses, right, said = read(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)
    assert OPEN not in said


def test_a_factor_of_the_whole_batch_is_kept_beside_a_branch_that_changes_no_loss() -> None:
    assert measured(balanced_by_counts)[0].isfinite().all()


# ---- the hardest, but not too few of them ----------------------------------------------------------------------------


def pixels(net: Net, b: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(net.conv(b["image"]), b["segments"], reduction="none").flatten()


def at_least(n: int, above: float, losses: Tensor) -> Tensor:
    kept = losses[losses > above]
    if len(kept) < n:
        kept = losses.topk(min(n, len(losses)))[0]
    return kept.mean()


def at_least_by_a_mask(losses: Tensor) -> Tensor:
    kept = losses > 1.5
    if kept.sum() < 4:
        kept = losses >= losses.topk(min(4, len(losses)))[0][-1]
    return (losses * kept).sum() / kept.sum()


def all_if_none(losses: Tensor) -> Tensor:
    index = (losses > 0.2).nonzero().squeeze(1)
    return losses[index].mean() if len(index) else losses.mean()


HARDEST: dict[str, Step] = {
    "samples": lambda net, b: at_least(4, 1.5, ce(net, b, reduction="none")),
    "pixels": lambda net, b: at_least(30, 1.5, pixels(net, b)),
    "a share of the pixels, all of them hard": lambda net, b: at_least(
        b["segments"].numel() // 16, 0.2, pixels(net, b)
    ),
    "a mask": lambda net, b: at_least_by_a_mask(ce(net, b, reduction="none")),
    "all if none is hard": lambda net, b: all_if_none(pixels(net, b)),
}


def above_a_quantile_by_numpy(net: Net, b: dict[str, Tensor]) -> Tensor:
    losses = ce(net, b, reduction="none")
    bound = float(np.quantile(losses.detach().numpy(), 0.5))
    return (losses * (losses >= bound)).mean()


@pytest.mark.parametrize("read", [measured, captured])
def test_a_bound_that_numpy_makes_of_all_losses_is_refused(read: type) -> None:
    with pytest.raises(CaptureError, match="selects rows of the batch by the model's outputs"):
        read(above_a_quantile_by_numpy)


@pytest.mark.parametrize("read", [measured, captured])
def test_a_bound_that_is_written_down_is_read_beside_a_metric_by_numpy(read: type) -> None:
    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        losses = ce(net, b, reduction="none")
        net.mean = losses.detach().numpy().mean()
        return (losses * (losses >= 1.55)).mean()

    losses, right, _ = read(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HARDEST)
def test_the_hardest_rows_are_refused_where_others_take_their_place(name: str) -> None:
    with pytest.raises(CaptureError, match="selects rows of the batch by the model's outputs"):
        measured(HARDEST[name])


def test_rows_above_a_bound_are_read_where_nothing_takes_their_place() -> None:
    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        kept = pixels(net, b)[pixels(net, b) > 1.6]
        return kept.sum() / max(1, len(kept))

    losses, right, _ = measured(step)
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=1e-5)


def by_a_threshold_of_the_batch(net: Net, b: dict[str, Tensor]) -> Tensor:
    """As in HRNet."""
    out = net.conv(b["image"])
    losses = F.cross_entropy(out, b["segments"], reduction="none").flatten()
    own = out.softmax(1).gather(1, b["segments"][:, None]).flatten()
    return losses[own < max(own.sort().values[len(own) // 16], 0.9)].mean()


def test_a_threshold_that_the_order_of_the_batch_may_move_is_named() -> None:
    assert OPEN in measured(by_a_threshold_of_the_batch)[2]


def test_a_factor_of_the_whole_batch_that_is_bounded_keeps_the_value_that_it_has_for_it() -> None:
    def step(net: Net, b: dict[str, Tensor]) -> Tensor:
        scale = 1 + float(b["r"].abs().max())
        if scale > 100:
            scale = 100.0
        return scale * ce(net, b)

    losses, right, _ = measured(step)
    plain = right / (1 + torch.stack([sample["r"] for sample in samples()]).abs())
    assert len((losses / plain).round(decimals=4).unique()) == N // B
