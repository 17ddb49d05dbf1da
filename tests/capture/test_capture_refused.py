"""Losses in which no sample has a share of its own, or not only: said on the first batch, in words."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from capture_steps import B, Batch, C, Net, alone, ce, cut, make_batch, token_losses
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture

Step = Callable[[Net, Batch], Tensor]


class Fused(torch.autograd.Function):
    """A linear layer and its cross entropy in one kernel, which keeps the gradient and not the logits."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = h.detach().requires_grad_(), weight.detach().requires_grad_()
            loss = F.cross_entropy(inputs[0] @ inputs[1].T, y)
            ctx.save_for_backward(*torch.autograd.grad(loss, inputs))
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return *(slope * saved for saved in ctx.saved_tensors), None


class Linear(torch.autograd.Function):
    """A layer that no mode looks into, like one of a scripted module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return slope @ weight, slope.T @ x


class Scores(torch.autograd.Function):
    """Likewise, of one number for each sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (x * weight).sum(1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return slope[:, None] * weight, slope @ x


def views(net: Net, b: Batch) -> tuple[Tensor, Tensor]:
    return F.normalize(net.body(b["x"])), F.normalize(net.body(b["x"] + 1))


def contrastive(net: Net, b: Batch) -> Tensor:
    first, second = views(net, b)
    return F.cross_entropy(first @ second.T / 0.1, torch.arange(B))


def contrastive_both_ways(net: Net, b: Batch) -> Tensor:
    first, second = views(net, b)
    similar, own = first @ second.T, torch.arange(B)
    return (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2


def contrastive_after_one_pass(net: Net, b: Batch) -> Tensor:
    first, second = F.normalize(net.body(torch.cat([b["x"], b["x"] + 1]))).chunk(2)
    return F.cross_entropy(first @ second.T / 0.1, torch.arange(B))


def contrastive_against_what_is_frozen(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net(b["x"]) @ b["z"].T, torch.arange(B))


def contrastive_of_hidden_layers(net: Net, b: Batch) -> Tensor:
    first, second = (F.normalize(Linear.apply(x, net.body[0].weight)) for x in (b["x"], b["x"] + 1))
    similar = first @ second.T
    return (similar.logsumexp(1) - similar.diagonal()).mean()


def contrastive_of_hidden_layers_each_on_its_own(net: Net, b: Batch) -> Tensor:
    first, second = (F.normalize(Linear.apply(x, net.body[0].weight)) for x in (b["x"], b["x"] + 1))
    return F.cross_entropy(first @ second.T, torch.arange(B), reduction="none").mean()


def contrastive_among_all_views(net: Net, b: Batch) -> Tensor:
    h = torch.cat(views(net, b))
    similar = (h @ h.T).masked_fill(torch.eye(2 * B, dtype=torch.bool), -1e9)
    return F.cross_entropy(similar, (torch.arange(2 * B) + B) % (2 * B))


def mined_triplets(net: Net, b: Batch) -> Tensor:
    h = net.body(b["x"])
    far, same = torch.cdist(h, h), b["y"][:, None] == b["y"]
    return F.relu((far * same).amax(1) - far.masked_fill(same, 1e9).amin(1) + 0.2).mean()


def partial_likelihood(net: Net, b: Batch) -> Tensor:
    risk = net.value(net.body(b["x"])).squeeze(1)
    return -(risk - torch.logcumsumexp(risk, 0)).mean()


def partial_likelihood_by_a_mask(net: Net, b: Batch) -> Tensor:
    """Those at risk are told by the data, and the mask merely laid out like the model's outputs."""
    risk = net.value(net.body(b["x"])).squeeze(1)
    at_risk = (b["r"][None] >= b["r"][:, None]).to(risk)
    return -((risk - (at_risk * risk.exp()[None]).sum(1).log()) * b["several"][:, 0]).mean()


def partial_likelihood_of_hidden_scores(net: Net, b: Batch) -> Tensor:
    risk = Scores.apply(b["x"], net.body[0].weight[0])
    return -(risk - torch.logcumsumexp(risk, 0)).mean()


def as_many_views_as_samples(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net(torch.cat([b["x"] + i for i in range(B)])), b["y"].repeat(B))


def scores_of_drawn_classes(net: Net, b: Batch) -> Tensor:
    """Each of the others, by numbers that are drawn first and samples second."""
    chosen = torch.arange(B) < 3
    return net(b["x"])[chosen, torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])].square().mean()


def sorted_losses(net: Net, b: Batch) -> Tensor:
    return ce(net, b, reduction="none").sort().values.mean()


def barlow_twins(net: Net, b: Batch) -> Tensor:
    first, second = ((out - out.mean(0)) / out.std(0) for out in (net(b["x"]), net(b["x"] + 1)))
    return (first.T @ second / B - torch.eye(C)).pow(2).sum()


def hardest_half(net: Net, b: Batch) -> Tensor:
    return ce(net, b, reduction="none").topk(B // 2).values.mean()


def median(net: Net, b: Batch) -> Tensor:
    return ce(net, b, reduction="none").median()


def one_norm_of_all(net: Net, b: Batch) -> Tensor:
    return torch.linalg.norm(net(b["x"]) - b["z"])


def supervised_contrastive(net: Net, b: Batch) -> Tensor:
    h, same = F.normalize(net.body(b["x"])), b["y"][:, None] == b["y"]
    logs = (h @ h.T / 0.1).masked_fill(torch.eye(B, dtype=torch.bool), -1e9).log_softmax(1)
    has_another = same.sum(1) > 1
    losses = -(logs * same.fill_diagonal_(False)).sum(1) / same.sum(1).clamp(min=1)
    return losses[has_another].mean()


def jaccard(net: Net, b: Batch) -> Tensor:
    p, t = net.conv(b["image"]).softmax(1), F.one_hot(b["segments"], C).movedim(-1, 1)
    overlap, union = (p * t).sum((0, 2, 3)), (p + t - p * t).sum((0, 2, 3))
    present = t.sum((0, 2, 3)) > 0
    return (1 - overlap / union)[present].mean()


def fused_kernel(net: Net, b: Batch) -> Tensor:
    return Fused.apply(net.body(b["x"]), net.head.weight, b["y"])


def dice_of_the_batch(net: Net, b: Batch) -> Tensor:
    p, t = net.conv(b["image"]).softmax(1)[:, 1], (b["segments"] == 1).float()
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def product(net: Net, b: Batch) -> Tensor:
    return ce(net, b) * F.mse_loss(net(b["x"]), b["z"])


def correlation(net: Net, b: Batch) -> Tensor:
    out, r = net.value(net.body(b["x"])).squeeze(1), b["r"]
    out, r = out - out.mean(), r - r.mean()
    return 1 - (out * r).sum() / (out.norm() * r.norm())


def nodes_of_all_samples(net: Net, b: Batch) -> Tensor:
    """Of 16 nodes, two for each sample by chance, but they are not."""
    own = (torch.arange(4) < b["n_boxes"][:, None]).flatten().nonzero().squeeze(1)
    boxes, targets = (b[name].flatten(0, 1).index_select(0, own) for name in ("boxes", "targets"))
    return F.smooth_l1_loss(net.head(boxes), targets)


def weighted_errors_of_outputs(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]).square().mean(0) * torch.arange(1.0, C + 1)).sum()


def errors_of_outputs_one_by_one(net: Net, b: Batch) -> Tensor:
    return sum(weight * error for weight, error in enumerate((net(b["x"]) - b["z"]).abs().sum(0))) / B


def mined_negatives(net: Net, b: Batch) -> Tensor:
    """As in a detector: the boxes are read image by image, the class losses are picked across the batch."""
    boxes = torch.stack([F.smooth_l1_loss(net(x[None]), z[None]) for x, z in zip(b["x"], b["z"], strict=True)])
    losses = token_losses(net, b)
    return boxes.mean() + losses[losses > losses.median()].sum() / B


def decay(net: Net) -> Tensor:
    return 10 * torch.stack([p.square().sum() for p in net.body.parameters()]).sum()


def and_a_term_of_no_weight(net: Net, b: Batch) -> Tensor:
    return contrastive(net, b) + 0.01 * F.mse_loss(net(b["x"]), b["z"])


def and_a_negative_term_of_no_weight(net: Net, b: Batch) -> Tensor:
    """Weight decay counts on neither side, however large."""
    return contrastive(net, b) - 0.01 * F.mse_loss(net(b["x"]), b["z"]) + decay(net)


OTHER_SAMPLES = "depends on the other samples"
NOTHING = "No loss was found for each of the batch's 8 samples"
KERNEL = f"{NOTHING} .* by lightning_dataselect.capture.register_loss"
QUOTIENT = "a quotient or product"


def hardest_by_rank(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b, reduction="none")
    return losses[losses.sort(descending=True)[1].sort()[1] < B // 2].mean()


def hardest_by_threshold(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b, reduction="none")
    return losses[losses.detach() >= losses.detach().topk(B // 2).values.min()].mean()


def hardest_by_a_mask(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b, reduction="none")
    is_hard = torch.zeros(B)
    is_hard[losses.detach().topk(B // 2).indices] = 1
    return (losses * is_hard).sum() / is_hard.sum()


def harder_than_the_mean(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b, reduction="none")
    return torch.where(losses.detach() > losses.detach().mean(), losses, 0).mean()


def all_but_the_easiest(net: Net, b: Batch) -> Tensor:
    losses = ce(net, b, reduction="none").clone()
    losses[losses.detach() < losses.detach().quantile(0.25)] = 0
    return losses.sum() / B


JUDGED = "by the model's outputs, possibly those of other samples.*sample_loss=.*SelectiveBackprop"
PICKED = "selects rows of the batch by a mask or an index.*ignore_index, or multiply the losses by the mask"
RAGGED = "nothing shows which rows belong to which sample"
UNEVEN = "not a multiple of the batch's 8"
FOLDED = "takes the mean or the sum over its samples first"
SMALL = "1 of 2 loss terms.*mse_loss, is [12]% of the loss, too little"
REFUSED: dict[Step, str] = {
    contrastive: OTHER_SAMPLES,
    contrastive_both_ways: OTHER_SAMPLES,
    contrastive_after_one_pass: OTHER_SAMPLES,
    contrastive_against_what_is_frozen: OTHER_SAMPLES,
    contrastive_of_hidden_layers: OTHER_SAMPLES,
    contrastive_of_hidden_layers_each_on_its_own: OTHER_SAMPLES,
    contrastive_among_all_views: OTHER_SAMPLES,
    mined_triplets: OTHER_SAMPLES,
    partial_likelihood: OTHER_SAMPLES,
    partial_likelihood_by_a_mask: OTHER_SAMPLES,
    partial_likelihood_of_hidden_scores: OTHER_SAMPLES,
    sorted_losses: OTHER_SAMPLES,
    barlow_twins: QUOTIENT,
    hardest_half: JUDGED,
    hardest_by_rank: JUDGED,
    hardest_by_threshold: JUDGED,
    hardest_by_a_mask: JUDGED,
    harder_than_the_mean: JUDGED,
    all_but_the_easiest: JUDGED,
    median: NOTHING,
    one_norm_of_all: NOTHING,
    fused_kernel: KERNEL,
    dice_of_the_batch: QUOTIENT,
    product: QUOTIENT,
    correlation: QUOTIENT,
    supervised_contrastive: OTHER_SAMPLES,
    jaccard: QUOTIENT,
    nodes_of_all_samples: RAGGED,
    as_many_views_as_samples: RAGGED,
    scores_of_drawn_classes: PICKED,
    mined_negatives: JUDGED,
    weighted_errors_of_outputs: FOLDED,
    errors_of_outputs_one_by_one: FOLDED,
    and_a_term_of_no_weight: SMALL,
    and_a_negative_term_of_no_weight: SMALL,
}
OWN_LOSS = "Return each sample's own loss under a key and give sample_loss='that key'."
NEED_NONE = "RandomPruning and FewerEpochs need no per-sample losses."
NO_OWN_LOSS = f"Return a score for each sample under a key and give sample_loss='that key'. {NEED_NONE}"
TO_DO = {
    OTHER_SAMPLES: NO_OWN_LOSS,
    QUOTIENT: NO_OWN_LOSS,
    KERNEL: f"{OWN_LOSS} {NEED_NONE}",
    SMALL: NO_OWN_LOSS,
    NOTHING: f"{OWN_LOSS} {NEED_NONE}",
    RAGGED: OWN_LOSS,
    UNEVEN: OWN_LOSS,
    FOLDED: "(errors * weights).sum(1).mean() in place of (errors.mean(0) * weights).sum().",
    JUDGED: "or leave the choice of hard samples to SelectiveBackprop.",
    PICKED: NO_OWN_LOSS,
}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: step.__name__)
def test_what_no_sample_has_a_share_in_is_refused_on_the_first_batch(net: Net, step: Step) -> None:
    with pytest.raises(CaptureError, match=REFUSED[step]) as error:
        LossCapture(net).run(lambda: step(net, make_batch()), B)
    said, _, after = str(error.value).partition(TO_DO[REFUSED[step]])
    assert said and not after, "what to do fits the reason, and nothing follows"


# ---- losses with a part that is not the samples' --------------------------------------------------------------------


def and_dice_of_the_batch(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.conv(b["image"]), b["segments"]) + dice_of_the_batch(net, b)


def and_a_deviation(net: Net, b: Batch) -> Tensor:
    return ce(net, b) + F.relu(1 - net(b["x"]).std(0)).mean()


def and_balanced_experts(net: Net, b: Batch) -> Tensor:
    gates = net(b["x"]).softmax(1)
    load = F.one_hot(gates.argmax(1), C).float().mean(0)
    return ce(net, b) + 0.01 * C * (load * gates.mean(0)).sum()


def and_a_contrastive_one(net: Net, b: Batch) -> Tensor:
    return ce(net, b) + contrastive(net, b)


def and_decay_and_a_contrastive_one(net: Net, b: Batch) -> Tensor:
    return ce(net, b) + 0.1 * contrastive(net, b) + decay(net)


def less_another_and_a_deviation(net: Net, b: Batch) -> Tensor:
    """Two terms that cancel each other, and a small one that no sample has a share in."""
    loss = ce(net, b)
    return loss - 0.999 * F.cross_entropy(net(b["x"]), b["y"]) + 0.1 * net(b["x"]).std(0).mean()


def thousandth(net: Net, b: Batch) -> Tensor:
    return 0.001 * ce(net, b)


def segmentation(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.conv(b["image"]), b["segments"])


PARTLY: dict[Step, tuple[Step, str]] = {
    and_dice_of_the_batch: (segmentation, "2 of 3 loss terms enter a quotient"),
    and_a_deviation: (ce, "A part of the loss depends on the batch through something other"),
    and_balanced_experts: (ce, "A part of the loss depends on the batch through something other"),
    and_a_contrastive_one: (ce, "1 of 2 loss terms depend on several samples"),
    and_decay_and_a_contrastive_one: (ce, "1 of 2 loss terms.*cross_entropy, is 96% of the loss"),
    less_another_and_a_deviation: (thousandth, "A part of the loss depends on the batch through something other"),
}


@pytest.mark.parametrize("step", PARTLY, ids=lambda step: step.__name__)
def test_a_part_of_the_whole_batch_is_left_out_with_a_warning(net: Net, step: Step) -> None:
    rest, words = PARTLY[step]
    batch, capture = make_batch(), LossCapture(net)
    with pytest.warns(UserWarning, match=words):
        loss, captured = capture.run(lambda: step(net, batch), B)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later, again = capture.run(lambda: step(net, batch), B)
    torch.testing.assert_close(captured.losses, alone(net, rest, batch))
    torch.testing.assert_close(again.losses, captured.losses)
    torch.testing.assert_close([loss, later], [step(net, batch)] * 2)


def test_a_share_that_has_become_small_is_no_reason_to_stop(net: Net) -> None:
    """Not within a fit, and not after one is resumed."""
    batch, share = make_batch(), 1.0

    def step() -> Tensor:
        return share * ce(net, batch) + contrastive(net, batch)

    capture = LossCapture(net)
    with pytest.warns(UserWarning, match="1 of 2 loss terms depend on several samples"):
        capture.run(step, B)
    share = 0.001
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture.probe_next()
        _, captured = capture.run(step, B)
    torch.testing.assert_close(captured.losses, share * alone(net, ce, batch))
    with pytest.raises(CaptureError, match="is 0% of the loss"):
        LossCapture(net).run(step, B)
    resumed = LossCapture(net)
    resumed.resume()
    with pytest.warns(UserWarning, match="is 0% of the loss"):
        _, captured = resumed.run(step, B)
    torch.testing.assert_close(captured.losses, share * alone(net, ce, batch))


@pytest.mark.parametrize("name", ["sqrt", "log1p"])
def test_a_root_of_the_mean_warns_and_says_what_goes_into_it(net: Net, name: str) -> None:
    batch, capture = make_batch(), LossCapture(net)

    def step(batch: Batch) -> Tensor:
        return getattr(F.mse_loss(net(batch["x"]), batch["z"]), name)()

    with pytest.warns(UserWarning, match="such as a root or a logarithm, of mse_loss"):
        capture.run(lambda: step(batch), B)
    for size in (B, 3):
        part = cut(batch, slice(size))
        loss, captured = capture.run(lambda part=part: step(part), size)
        torch.testing.assert_close(loss, step(part))
        torch.testing.assert_close(captured.losses, (net(part["x"]) - part["z"]).pow(2).mean(1).detach())


# ---- steps that change later on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_later_batch_that_cannot_be_read_is_left_out_with_a_warning(net: Net, weighted: bool) -> None:
    batch, capture = make_batch(), LossCapture(net)
    weights = torch.full((B,), 1.0) if weighted else None
    expected = ce(net, batch, reduction="none").detach()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for rows in (B, B, 5, 5, B, 5, B):
            part = cut(batch, slice(rows))
            loss, captured = capture.run(lambda part=part: ce(net, part), B, weights)
            torch.testing.assert_close(loss, ce(net, part))
            if rows == B:
                torch.testing.assert_close(captured.losses, expected)
            else:
                assert captured.losses.isnan().all()
    assert all("not measured" in str(warning.message) for warning in caught) and caught


@pytest.mark.filterwarnings("ignore:The samples of some batches are not measured")
def test_a_loop_that_passes_over_samples_is_no_silent_loss(net: Net) -> None:
    """As over images without boxes; where it passes over all of them, nothing is missing."""

    def step(batch: Batch) -> Tensor:
        loss = F.mse_loss(net(batch["x"]), batch["z"])
        for n, boxes, targets in zip(batch["n_boxes"], batch["boxes"], batch["targets"], strict=True):
            if n > 0:
                loss = loss + F.l1_loss(net.aux(boxes), targets) / len(batch["x"])
        return loss

    batch, capture, measured = make_batch(), LossCapture(net), []
    some, none = {**batch, "n_boxes": batch["n_boxes"] - 1}, {**batch, "n_boxes": 0 * batch["n_boxes"]}
    for part in (batch, some, some, batch, some, none, none, batch, some, none):
        _, captured = capture.run(lambda part=part: step(part), B)
        measured.append(captured.known)
        if captured.known:
            torch.testing.assert_close(captured.losses, alone(net, lambda _, one: step(one), part))
    assert measured == [True, False, False, True, False, False, True, True, False, True]


def test_a_loop_that_passes_over_samples_says_so(net: Net) -> None:
    batch, capture = make_batch(), LossCapture(net)

    def step(n: int) -> Tensor:
        return sum(F.cross_entropy(net(batch["x"][i]), batch["y"][i]) for i in range(n)) / n

    capture.run(lambda: step(B), B)
    with pytest.warns(UserWarning, match="not measured. cross_entropy .* for 6 of 8"):
        _, captured = capture.run(lambda: step(6), B)
    assert captured.losses.isnan().all()


def test_a_term_more_or_less_is_no_silent_loss(net: Net) -> None:
    batch, capture = make_batch(), LossCapture(net)

    def step(aux: bool) -> Tensor:
        h = net.body(batch["x"])
        loss = F.cross_entropy(net.head(h), batch["y"])
        return loss + 0.3 * F.mse_loss(net.aux(h), batch["z"]) if aux else loss

    own = ce(net, batch, reduction="none").detach()
    more = own + 0.3 * (net.aux(net.body(batch["x"])) - batch["z"]).pow(2).mean(1).detach()
    measured = []
    for aux in (False, False, True, True, True, False, True):
        _, captured = capture.run(lambda aux=aux: step(aux), B)
        measured.append(bool(captured.losses.isfinite().all()))
        if measured[-1]:
            torch.testing.assert_close(captured.losses, more if aux else own)
    assert measured == [True, True, False, True, True, True, True]


HALF: dict[str, Callable[[Net, Batch], Tensor]] = {
    "alone": ce,
    "half": lambda net, b: 0.5 * ce(net, b),
    "by hand": lambda net, b: (net(b["x"]) - b["z"]).square().mean(),
    "with a deviation": lambda net, b: ce(net, b) + 0.01 * net(b["x"]).std(0).mean(),
    "with decay": lambda net, b: ce(net, b) + decay(net),
}


def late(net: Net, b: Batch) -> Tensor:
    return 0.1 * net.aux(net.body(b["x"])).abs().mean()


@pytest.mark.filterwarnings("ignore:A part of the loss")
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", HALF)
def test_a_mean_that_is_added_later_on_is_no_silent_loss(net: Net, name: str, every: int) -> None:
    """In all later steps, or in every second."""
    batch, capture, first = make_batch(), LossCapture(net), HALF[name]
    rest = ce if name.startswith("with") else first
    expected = {False: alone(net, rest, batch), True: alone(net, lambda n, b: rest(n, b) + late(n, b), batch)}
    missed = 0
    for i in range(12):
        on = i >= 3 and i % every == 0
        loss, captured = capture.run(lambda on=on: first(net, batch) + late(net, batch) if on else first(net, batch), B)
        torch.testing.assert_close(loss, first(net, batch) + on * late(net, batch))
        missed += not captured.known
        if captured.known:
            torch.testing.assert_close(captured.losses, expected[on])
    assert missed == 1


def test_one_more_part_that_no_sample_has_a_share_in_is_named_once(net: Net) -> None:
    batch, capture = make_batch(), LossCapture(net)

    def run(step: Step) -> None:
        _, captured = capture.run(lambda: step(net, batch), B)
        assert not captured.known or torch.allclose(captured.losses, alone(net, ce, batch))

    run(ce)
    run(and_a_deviation)
    with pytest.warns(UserWarning, match="A part of the loss depends on the batch through something other"):
        run(and_a_deviation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            run(and_a_deviation)
            capture.probe_next()
