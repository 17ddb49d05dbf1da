"""Losses that people write, each a function of a network and a batch, with the batch to try them on."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy as ce_by_another_name
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

B, D, C, T, V = 8, 7, 5, 6, 11  # samples, features, classes, tokens, vocabulary
Batch = dict[str, Tensor]


class Net(nn.Module):
    """A body, and a head for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, 16), nn.Tanh())
        self.head, self.aux, self.value = nn.Linear(16, C), nn.Linear(16, C), nn.Linear(16, 1)
        self.embed, self.words = nn.Embedding(V, 16), nn.Linear(16, V)
        self.conv = nn.Conv2d(3, C, 3, padding=1)
        self.log_variance = nn.Parameter(torch.tensor(0.3))
        self.metric = torchmetrics.MeanSquaredError()
        self.focal = Focal()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def tokens(self, batch: Batch) -> Tensor:
        return self.words(self.embed(batch["tokens"]))


class Focal(torchmetrics.Metric):
    """A loss in the clothes of a metric."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("n", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits: Tensor, y: Tensor) -> None:
        ce = F.cross_entropy(logits, y, reduction="none")
        self.total = self.total + ((1 - torch.exp(-ce)) ** 2 * ce).sum()
        self.n = self.n + len(y)

    def compute(self) -> Tensor:
        return self.total / self.n


def make_batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([6, 3, 2, 5, 2, 4, 6, 2])
    mask = torch.arange(T) < lengths[:, None]

    def ints(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=g)

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    return {
        "x": floats(B, D),
        "y": ints(C, B),
        "other": ints(C, B),
        "z": floats(B, C),
        "r": floats(B),
        "tokens": ints(V, B, T),
        "labels": torch.where(mask, ints(V, B, T), -100),
        "mask": mask,
        "patches": (torch.rand(B, T, generator=g) < 0.5).float().index_fill(1, torch.tensor([0]), 1.0),
        "image": floats(B, 3, 4, 4),
        "segments": ints(C, B, 4, 4),
        "weight": torch.rand(B, generator=g) + 0.1,
        "share": torch.rand(B, generator=g),
        "several": ints(2, B, C).float(),
        "soft": floats(B, C).softmax(1),
        "noise": floats(B, 8),
        "n_boxes": torch.tensor([1, 2, 3, 2, 2, 1, 4, 1]),
        "boxes": floats(B, 4, 16),
        "targets": floats(B, 4, C),
    }


def cut(batch: Batch, which: Any) -> Batch:
    return {name: part[which] for name, part in batch.items()}


def alone(net: Net, step: Callable[[Net, Batch], Tensor], batch: Batch) -> Tensor:
    """Return the losses of batches of one, times the weight in `CLASS_WEIGHTED` steps, which torch divides by it."""
    losses = torch.stack([step(net, cut(batch, slice(i, i + 1))).detach().reshape(()) for i in range(len(batch["x"]))])
    return losses * torch.arange(1.0, C + 1)[batch["y"]] if step in CLASS_WEIGHTED else losses


def ce(net: Net, b: Batch, **how: Any) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["y"], **how)


def token_losses(net: Net, b: Batch) -> Tensor:
    return (net.tokens(b) - 1).pow(2).mean(-1)


# ---- classification and regression ----------------------------------------------------------------------------------


def class_weights(net: Net, b: Batch) -> Tensor:
    return ce(net, b, weight=torch.arange(1.0, C + 1))


def label_smoothing(net: Net, b: Batch) -> Tensor:
    return ce(net, b, label_smoothing=0.1)


def smooth_and_weighted(net: Net, b: Batch) -> Tensor:
    return ce(net, b, label_smoothing=0.1, weight=torch.arange(1.0, C + 1))


CLASS_WEIGHTED = (class_weights, smooth_and_weighted)


def class_weights_by_hand(net: Net, b: Batch) -> Tensor:
    return (torch.arange(1.0, C + 1)[b["y"]] * ce(net, b, reduction="none")).mean()


def soft_targets(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net(b["x"]), b["soft"])


def soft_targets_by_hand(net: Net, b: Batch) -> Tensor:
    p = net(b["x"]).softmax(-1)
    return -(p.log() * b["soft"]).sum(1).mean()


def one_hot_by_hand(net: Net, b: Batch) -> Tensor:
    return -(F.one_hot(b["y"], C) * net(b["x"]).log_softmax(1)).sum() / len(b["x"])


def logsumexp(net: Net, b: Batch) -> Tensor:
    out = net(b["x"])
    return (out.logsumexp(1) - out.gather(1, b["y"][:, None]).squeeze(1)).mean()


def mixup(net: Net, b: Batch) -> Tensor:
    out = net(0.3 * b["x"] + 0.7 * b["noise"][:, :D])
    return 0.3 * F.cross_entropy(out, b["y"]) + 0.7 * F.cross_entropy(out, b["other"])


def cutmix_with_a_share_each(net: Net, b: Batch) -> Tensor:
    out, share = net(b["x"]), b["share"]
    first, second = (F.cross_entropy(out, y, reduction="none") for y in (b["y"], b["other"]))
    return (share * first + (1 - share) * second).mean()


def several_labels(net: Net, b: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(net(b["x"]), b["several"], pos_weight=torch.arange(1.0, C + 1))


def auxiliary_head(net: Net, b: Batch) -> Tensor:
    h = net.body(b["x"])
    return F.cross_entropy(net.head(h), b["y"]) + 0.4 * F.cross_entropy(net.aux(h), b["y"])


def added_in_place(net: Net, b: Batch) -> Tensor:
    h = net.body(b["x"])
    loss = F.cross_entropy(net.head(h), b["y"])
    loss += 0.4 * F.mse_loss(net.aux(h), b["z"])
    return loss


def scaled_in_place(net: Net, b: Batch) -> Tensor:
    loss = F.mse_loss(net(b["x"]), b["z"])
    loss *= 0.3
    loss /= 2
    return loss


def stacked_terms(net: Net, b: Batch) -> Tensor:
    return torch.stack([ce(net, b), F.mse_loss(net(b["x"]), b["z"])]).mean()


def several_on_one_line(net: Net, b: Batch) -> Tensor:
    h = net.body(b["x"])
    with torch.no_grad():
        _ = h.mean() + h.sum()
    return F.cross_entropy(net.head(h), b["y"]) + 0.3 * h.abs().mean() + 0.2 * h.abs().sum() / len(h) + h.pow(2).mean()


def quantiles(net: Net, b: Batch) -> Tensor:
    q = torch.tensor([0.1, 0.5, 0.9, 0.95, 0.99])
    error = b["r"][:, None] - net(b["x"])
    return torch.max(q * error, (q - 1) * error).mean()


def quantiles_in_a_loop(net: Net, b: Batch) -> Tensor:
    out, parts = net(b["x"]), []
    for i, q in enumerate((0.1, 0.5, 0.9)):
        error = b["r"] - out[:, i]
        parts.append(torch.max(q * error, (q - 1) * error).unsqueeze(1))
    return torch.mean(torch.sum(torch.cat(parts, 1), 1))


def huber(net: Net, b: Batch) -> Tensor:
    return F.huber_loss(net.value(net.body(b["x"])).squeeze(1), b["r"], delta=0.3)


def gaussian(net: Net, b: Batch) -> Tensor:
    out = net(b["x"])
    return (0.5 * (out[:, 0] - b["r"]) ** 2 / out[:, 1].exp() + 0.5 * out[:, 1]).mean()


def euclidean(net: Net, b: Batch) -> Tensor:
    return torch.linalg.norm(net(b["x"]) - b["z"], dim=1).mean()


def one_less_similarity(net: Net, b: Batch) -> Tensor:
    return 1 - F.cosine_similarity(net(b["x"]), b["z"]).mean() + 0.5 * ce(net, b)


def preferences(net: Net, b: Batch) -> Tensor:
    """The chosen and the rejected go through the model at once."""
    chosen, rejected = net.value(net.body(torch.cat([b["x"], b["x"] + 1]))).squeeze(1).chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


def pairs(net: Net, b: Batch) -> Tensor:
    return F.cosine_embedding_loss(net.body(b["x"]), net.body(b["x"] + 1), b["y"].sign() * 2 - 1)


def a_loss_within_a_loss(net: Net, b: Batch) -> Tensor:
    def far(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([F.mse_loss(x, y) for x, y in zip(first, second, strict=True)])

    views = [net.body(b["x"] + i) for i in range(3)]
    return F.triplet_margin_with_distance_loss(*views, distance_function=far)


CLASSIFICATION_AND_REGRESSION = [
    a_loss_within_a_loss,
    ce,
    class_weights,
    label_smoothing,
    smooth_and_weighted,
    class_weights_by_hand,
    soft_targets,
    soft_targets_by_hand,
    one_hot_by_hand,
    logsumexp,
    mixup,
    cutmix_with_a_share_each,
    several_labels,
    auxiliary_head,
    added_in_place,
    scaled_in_place,
    stacked_terms,
    several_on_one_line,
    quantiles,
    quantiles_in_a_loop,
    huber,
    gaussian,
    euclidean,
    one_less_similarity,
    preferences,
    pairs,
]


# ---- where the loss function comes from, and what it is called within -----------------------------------------------


def by_another_name(net: Net, b: Batch) -> Tensor:
    return ce_by_another_name(net(b["x"]), b["y"])


def partial_function(net: Net, b: Batch) -> Tensor:
    return functools.partial(F.cross_entropy, label_smoothing=0.1)(net(b["x"]), b["y"])


def metric(net: Net, b: Batch) -> Tensor:
    return net.metric(net(b["x"]), b["z"])


def metric_of_ones_own(net: Net, b: Batch) -> Tensor:
    return net.focal(net(b["x"]), b["y"])


def checkpointed_model(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.head(checkpoint(net.body, b["x"], use_reentrant=False)), b["y"])


def checkpointed_loss(net: Net, b: Batch) -> Tensor:
    return checkpoint(lambda x, y: F.cross_entropy(net(x), y), b["x"], b["y"], use_reentrant=False)


def checkpointed_soft_loss(net: Net, b: Batch) -> Tensor:
    return checkpoint(lambda x, y: F.cross_entropy(net(x), y), b["x"], b["soft"], use_reentrant=False)


def checkpointed_mean(net: Net, b: Batch) -> Tensor:
    return checkpoint(lambda x, z: ((net(x) - z) ** 2).mean(), b["x"], b["z"], use_reentrant=False)


def reentrant_checkpoint(net: Net, b: Batch) -> Tensor:
    h = checkpoint(net.body[1], net.body[0](b["x"]), use_reentrant=True)
    return F.cross_entropy(net.head(h), b["y"])


CALLED_FROM_ANYWHERE = [
    by_another_name,
    partial_function,
    metric,
    metric_of_ones_own,
    checkpointed_model,
    checkpointed_loss,
    checkpointed_soft_loss,
    checkpointed_mean,
    reentrant_checkpoint,
]


# ---- sums, means, and what they are divided by ----------------------------------------------------------------------


def unreduced_then_mean(net: Net, b: Batch) -> Tensor:
    return torch.mean(ce(net, b, reduction="none"), dim=0)


def mean_of_means(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]) ** 2).mean(-1).mean()


def mean_over_all_axes(net: Net, b: Batch) -> Tensor:
    return (net.conv(b["image"]) ** 2).mean(dim=(0, 1, 2, 3))


def sum_over_samples(net: Net, b: Batch) -> Tensor:
    return 0.3 * F.mse_loss(net(b["x"]), b["z"], reduction="sum")


def sum_by_samples(net: Net, b: Batch) -> Tensor:
    return 10 * ((net(b["x"]) - b["z"]) ** 2).sum() / len(b["x"])


def sum_by_twice_the_samples(net: Net, b: Batch) -> Tensor:
    return ((net.value(net.body(b["x"])).squeeze(1) - b["r"]) ** 2).sum() / (2 * b["x"].size(0))


def sum_by_elements(net: Net, b: Batch) -> Tensor:
    losses = (net(b["x"]) - b["z"]) ** 2
    return 3 * losses.sum() / losses.numel()


def sum_by_features(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]) ** 2).sum() / C


def sum_by_a_constant(net: Net, b: Batch) -> Tensor:
    return F.mse_loss(net(b["x"]), b["z"], reduction="sum") / 1000


def divided_before_the_sum(net: Net, b: Batch) -> Tensor:
    return (((net(b["x"]) - b["z"]) ** 2) / len(b["x"])).sum()


def sum_by_len(net: Net, b: Batch) -> Tensor:
    return torch.sum(ce(net, b, reduction="none")) / len(b["y"])


def weighted_by_dot(net: Net, b: Batch) -> Tensor:
    return torch.dot(ce(net, b, reduction="none"), b["weight"]) / len(b["y"])


def weighted_by_matmul(net: Net, b: Batch) -> Tensor:
    return b["weight"] @ ce(net, b, reduction="none") / len(b["y"])


def weighted_by_inner(net: Net, b: Batch) -> Tensor:
    losses = F.mse_loss(net(b["x"]), b["z"], reduction="none").mean(1)
    return losses.inner(b["weight"]) / len(b["y"])


def weighted_by_matmul_and_divided_first(net: Net, b: Batch) -> Tensor:
    weight = b["weight"] / b["weight"].sum()
    return ce(net, b, reduction="none") @ weight


def weighted_by_einsum(net: Net, b: Batch) -> Tensor:
    return torch.einsum("b,b->", ce(net, b, reduction="none"), b["weight"]) / len(b["y"])


def weighted_by_einsum_and_divided_first(net: Net, b: Batch) -> Tensor:
    return torch.einsum("b,b->", [ce(net, b, reduction="none"), b["weight"] / b["weight"].sum()])


def squared_by_einsum(net: Net, b: Batch) -> Tensor:
    error = net(b["x"]) - b["z"]
    return torch.einsum("bc,bc->", error, error) / len(b["x"])


def mean_over_samples_first(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]) ** 2).mean(0).sum()


def sum_over_samples_first(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]) ** 2).sum(dim=0).mean()


def means_by_class(net: Net, b: Batch) -> Tensor:
    return ((net(b["x"]) - b["z"]) ** 2).mean(0).mean()


def sum_by_one_over_samples(net: Net, b: Batch) -> Tensor:
    return ce(net, b) + (-0.5 / len(b["x"])) * torch.sum(1 - net(b["x"]).exp())


def sum_by_found_objects(net: Net, b: Batch) -> Tensor:
    """Of which a sample may have none, and loses something all the same."""
    found = b["several"] * (b["y"] > 1)[:, None]
    losses = F.binary_cross_entropy_with_logits(net(b["x"]), found, reduction="none")
    return losses.sum() / max(1, found.sum())


def sum_by_a_python_number_of_found_objects(net: Net, b: Batch) -> Tensor:
    found = b["image"][:, 0] * (b["y"] > 1)[:, None, None] > 0
    losses = F.binary_cross_entropy_with_logits(net.conv(b["image"])[:, 0], found.float(), reduction="none")
    return losses.sum() / max(1.0, found.sum().item())


def boxes_of_a_grid(net: Net, b: Batch) -> Tensor:
    out, n = net(b["x"]), b["x"].shape[0]
    where = F.mse_loss(out[:, :2], b["z"][:, :2], reduction="sum")
    what = F.mse_loss(out[:, 2:], b["z"][:, 2:], reduction="sum")
    return 5 * where / n + what / n


def sample_weights(net: Net, b: Batch) -> Tensor:
    return (ce(net, b, reduction="none") * b["weight"]).mean()


def sample_weights_by_their_sum(net: Net, b: Batch) -> Tensor:
    return (ce(net, b, reduction="none") * b["weight"]).sum() / b["weight"].sum()


def sample_weights_summing_to_one(net: Net, b: Batch) -> Tensor:
    weight = b["weight"] / b["weight"].sum()
    return (weight * ce(net, b, reduction="none")).sum()


def nan_targets(net: Net, b: Batch) -> Tensor:
    z = b["z"].masked_fill(~b["mask"][:, :C], torch.nan)
    missing = z.isnan()
    return torch.where(missing, torch.nan, (net(b["x"]) - z.nan_to_num()) ** 2).nanmean()


def learned_weights(net: Net, b: Batch) -> Tensor:
    return ce(net, b) * torch.exp(-net.log_variance) + 0.5 * F.mse_loss(net(b["x"]), b["z"])


def learned_weights_of_a_vector(net: Net, b: Batch) -> Tensor:
    terms = torch.stack([ce(net, b), F.mse_loss(net(b["x"]), b["z"])])
    return (terms * torch.exp(-torch.stack([net.log_variance, 2 * net.log_variance]))).sum()


def halved_where_two_were_counted(net: Net, b: Batch) -> Tensor:
    """A number that is counted in the batch may happen to be one that divides the loss."""
    out, _ = net(b["x"]), (b["n_boxes"] > 2).sum().item()
    return (F.cross_entropy(out, b["y"]) + F.mse_loss(out, b["z"])) / 2


SUMS_AND_MEANS = [
    unreduced_then_mean,
    mean_of_means,
    mean_over_all_axes,
    sum_over_samples,
    sum_by_samples,
    sum_by_twice_the_samples,
    sum_by_elements,
    sum_by_features,
    sum_by_a_constant,
    divided_before_the_sum,
    sum_by_len,
    weighted_by_dot,
    weighted_by_matmul,
    weighted_by_inner,
    weighted_by_matmul_and_divided_first,
    weighted_by_einsum,
    weighted_by_einsum_and_divided_first,
    squared_by_einsum,
    mean_over_samples_first,
    sum_over_samples_first,
    means_by_class,
    sum_by_one_over_samples,
    sum_by_found_objects,
    sum_by_a_python_number_of_found_objects,
    boxes_of_a_grid,
    sample_weights,
    sample_weights_by_their_sum,
    sample_weights_summing_to_one,
    nan_targets,
    learned_weights,
    learned_weights_of_a_vector,
    halved_where_two_were_counted,
]


# ---- tokens and patches ---------------------------------------------------------------------------------------------


def padded_tokens(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.tokens(b).view(-1, V), b["labels"].view(-1))


def classes_on_the_second_axis(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.tokens(b).transpose(1, 2), b["labels"])


def shifted_labels(net: Net, b: Batch) -> Tensor:
    labels = F.pad(b["labels"], (0, 1), value=-100)[..., 1:].contiguous()
    return F.cross_entropy(net.tokens(b).view(-1, V).float(), labels.view(-1), ignore_index=-100)


def shifted_logits(net: Net, b: Batch) -> Tensor:
    logits, labels = net.tokens(b)[:, :-1], b["labels"][:, 1:]
    return F.cross_entropy(logits.reshape(-1, V), labels.reshape(-1))


def sum_by_tokens(net: Net, b: Batch) -> Tensor:
    n = (b["labels"] != -100).sum()
    return F.cross_entropy(net.tokens(b).view(-1, V), b["labels"].view(-1), reduction="sum") / n


def sum_by_a_numpy_number_of_tokens(net: Net, b: Batch) -> Tensor:
    total = F.cross_entropy(net.tokens(b).flatten(0, 1), b["labels"].flatten(), reduction="sum")
    return total / np.count_nonzero(b["labels"].numpy() != -100)


def sum_by_time_major_tokens(net: Net, b: Batch) -> Tensor:
    mask = b["mask"][:, 1:]
    return (token_losses(net, b)[:, 1:] * mask).sum(1).sum() / mask.T.sum()


def time_major(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.tokens(b).permute(1, 0, 2).reshape(-1, V), b["labels"].T.reshape(-1))


def time_major_with_a_batch_major_mask(net: Net, b: Batch) -> Tensor:
    """As a transformer has it: nothing but what the losses come from shows which axis is the batch."""
    attended = net.embed(b["tokens"][:, 1:].T) * b["mask"][:, 1:].unsqueeze(-1).transpose(0, 1)
    return F.cross_entropy(net.words(attended).view(-1, V), b["labels"][:, 1:].T.reshape(-1), label_smoothing=0.1)


def sum_by_flat_time_major_tokens(net: Net, b: Batch) -> Tensor:
    attended = net.embed(b["tokens"][:, 1:].T) * b["mask"][:, 1:].unsqueeze(-1).transpose(0, 1)
    losses = F.cross_entropy(net.words(attended).view(-1, V), b["tokens"][:, 1:].T.reshape(-1), reduction="none")
    mask = b["mask"][:, 1:].T.reshape(-1)
    return (losses * mask).sum() / mask.sum()


def sum_by_twice_as_many_time_major_tokens_as_samples(net: Net, b: Batch) -> Tensor:
    """It may as well be two rows a sample, but for what the losses come from."""
    tokens = torch.cat([b["tokens"], b["labels"].clamp(0), b["tokens"].flip(1)], 1)[:, : 2 * B].T
    mask = (torch.arange(2 * B) < 4 * b["n_boxes"][:, None]).T
    losses = F.cross_entropy(net.words(net.embed(tokens)).flatten(0, 1), tokens.flatten(), reduction="none")
    return (losses * mask.flatten()).sum() / mask.sum()


def one_token_at_a_time(net: Net, b: Batch) -> Tensor:
    h = net.embed(b["tokens"])
    return sum(F.cross_entropy(net.words(h[:, t]), b["tokens"][:, t]) for t in range(T)) / T


def one_masked_token_at_a_time(net: Net, b: Batch) -> Tensor:
    h, loss = net.embed(b["tokens"]), 0
    for t in range(T):
        losses = F.cross_entropy(net.words(h[:, t]), b["tokens"][:, t], reduction="none")
        loss = loss + (losses * b["mask"][:, t]).sum()
    return loss / b["mask"].sum()


def masked_mean(net: Net, b: Batch) -> Tensor:
    return (token_losses(net, b) * b["mask"]).sum() / b["mask"].sum()


def masked_mean_with_a_floor(net: Net, b: Batch) -> Tensor:
    mask = b["mask"].float()
    return 0.3 * (token_losses(net, b) * mask).sum() / mask.sum().clamp(min=1e-6)


def masked_mean_by_a_python_number(net: Net, b: Batch) -> Tensor:
    return (token_losses(net, b) * b["mask"]).sum() / max(int(b["mask"].sum()), 1)


def masked_mean_of_flat_tokens(net: Net, b: Batch) -> Tensor:
    losses, mask = token_losses(net, b).view(-1), b["mask"].view(-1).float()
    return (losses * mask).sum() / (mask.sum() + 1e-8)


def masked_mean_divided_first(net: Net, b: Batch) -> Tensor:
    mask = b["mask"].float()
    return (token_losses(net, b) * mask / mask.sum()).sum()


def masked_mean_of_means(net: Net, b: Batch) -> Tensor:
    mask = b["mask"].float()
    return (token_losses(net, b) * mask).mean() / mask.mean()


def masked_mean_by_an_inverse(net: Net, b: Batch) -> Tensor:
    return (token_losses(net, b) * b["mask"]).sum() * (1.0 / b["mask"].sum())


def masked_mean_by_a_count(net: Net, b: Batch) -> Tensor:
    return (token_losses(net, b) * b["mask"]).sum() / torch.count_nonzero(b["mask"])


def mean_of_each_samples_tokens(net: Net, b: Batch) -> Tensor:
    losses = F.cross_entropy(net.tokens(b).transpose(1, 2), b["labels"], reduction="none")
    return (losses.sum(1) / b["mask"].sum(1)).mean()


def masked_autoencoder(net: Net, b: Batch) -> Tensor:
    out, mask = net.tokens(b), b["patches"]
    losses = ((out - torch.ones_like(out)) ** 2).mean(dim=-1)
    return (losses * mask).sum() / mask.sum()


def masked_logits(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.tokens(b)[b["mask"]], b["tokens"][b["mask"]])


def masked_logits_by_their_number(net: Net, b: Batch) -> Tensor:
    logits, y = net.tokens(b)[b["mask"]], b["tokens"][b["mask"]]
    return F.cross_entropy(logits, y, reduction="sum") / b["mask"].sum()


def flat_masked_logits(net: Net, b: Batch) -> Tensor:
    """As token classifiers have it."""
    active = b["mask"].view(-1)
    return F.cross_entropy(net.tokens(b).view(-1, V)[active], b["tokens"].view(-1)[active])


def masked_log_likelihoods(net: Net, b: Batch) -> Tensor:
    return -net.tokens(b).log_softmax(-1)[b["mask"], b["tokens"][b["mask"]]].mean()


def masked_losses(net: Net, b: Batch) -> Tensor:
    return token_losses(net, b)[b["mask"]].mean()


def masked_losses_by_samples(net: Net, b: Batch) -> Tensor:
    return token_losses(net, b)[b["mask"]].sum() / len(b["x"])


def picked_by_two_masks(net: Net, b: Batch) -> Tensor:
    return masked_logits(net, b) + 0.5 * token_losses(net, b)[b["patches"] > 0].mean()


def conditional_random_field(net: Net, b: Batch) -> Tensor:
    scores, steps = net.tokens(b), net.words.weight @ net.words.weight.T
    forward = scores[:, 0]
    for t in range(1, T):
        forward = (forward[:, :, None] + steps + scores[:, t, None]).logsumexp(1)
    own = scores.gather(2, b["tokens"][..., None]).sum((1, 2)) + steps[b["tokens"][:, :-1], b["tokens"][:, 1:]].sum(1)
    return (forward.logsumexp(1) - own).mean()


def ctc(net: Net, b: Batch) -> Tensor:
    logs, n = net.tokens(b).log_softmax(-1).transpose(0, 1), len(b["x"])
    lengths = torch.full((n,), T), torch.full((n,), 2)
    return F.ctc_loss(logs, b["tokens"][:, :2].clamp(min=1), *lengths, zero_infinity=True)


TOKENS = [
    padded_tokens,
    classes_on_the_second_axis,
    shifted_labels,
    shifted_logits,
    sum_by_tokens,
    sum_by_a_numpy_number_of_tokens,
    sum_by_time_major_tokens,
    time_major,
    time_major_with_a_batch_major_mask,
    sum_by_flat_time_major_tokens,
    sum_by_twice_as_many_time_major_tokens_as_samples,
    one_token_at_a_time,
    one_masked_token_at_a_time,
    masked_mean,
    masked_mean_with_a_floor,
    masked_mean_by_a_python_number,
    masked_mean_of_flat_tokens,
    masked_mean_divided_first,
    masked_mean_of_means,
    masked_mean_by_an_inverse,
    masked_mean_by_a_count,
    mean_of_each_samples_tokens,
    masked_autoencoder,
    masked_logits,
    masked_logits_by_their_number,
    flat_masked_logits,
    masked_losses,
    masked_losses_by_samples,
    picked_by_two_masks,
    masked_log_likelihoods,
    conditional_random_field,
    ctc,
]


# ---- one sample after another ----------------------------------------------------------------------------------------


def one_at_a_time_stacked(net: Net, b: Batch) -> Tensor:
    out = net(b["x"])
    return torch.stack([F.cross_entropy(out[i], b["y"][i]) for i in range(len(out))]).mean()


def one_at_a_time_added_up(net: Net, b: Batch) -> Tensor:
    out = net(b["x"])
    return 0.5 * sum(F.cross_entropy(out[i : i + 1], b["y"][i : i + 1]) for i in range(len(out))) / len(out)


def model_called_for_each(net: Net, b: Batch) -> Tensor:
    losses = [F.mse_loss(net(x), z) for x, z in zip(b["x"], b["z"], strict=True)]
    return torch.stack(losses).mean()


def boxes_of_each_image(net: Net, b: Batch) -> Tensor:
    losses = []
    for n, boxes, targets in zip(b["n_boxes"], b["boxes"], b["targets"], strict=True):
        losses.append(F.smooth_l1_loss(net.head(boxes[: int(n)]), targets[: int(n)]))
    return torch.stack(losses).mean()


def boxes_of_each_image_by_hand(net: Net, b: Batch) -> Tensor:
    loss = 0.0
    for n, boxes, targets in zip(b["n_boxes"], b["boxes"], b["targets"], strict=True):
        boxes, targets = boxes[: int(n)], targets[: int(n)]
        loss = loss + F.smooth_l1_loss(net.head(boxes), targets)
        loss = loss + 0.5 * (net.aux(boxes) - targets).abs().mean()
    return loss / len(b["x"])


def sums_by_boxes_of_each_image(net: Net, b: Batch) -> Tensor:
    """Some images have none."""
    losses = []
    for n, boxes, targets in zip(b["n_boxes"] - 1, b["boxes"], b["targets"], strict=True):
        found = torch.arange(len(boxes)) < n
        loss = F.binary_cross_entropy_with_logits(net.head(boxes), targets.sigmoid(), reduction="sum")
        loss = loss + F.l1_loss(net.aux(boxes)[found], targets[found], reduction="sum")
        losses.append(loss / max(1, int(found.sum())))
    return sum(losses) / len(losses)


def sums_by_pixels_of_each_image(net: Net, b: Batch) -> Tensor:
    """As many numbers are counted in an image as can be shared out among the samples."""
    losses = []
    for logits, segments in zip(net.conv(b["image"]), b["segments"], strict=True):
        found = segments.flatten() == segments[0, 0]
        loss = F.binary_cross_entropy_with_logits(logits[0].flatten(), found.float(), reduction="sum")
        losses.append(loss / max(1, found.sum()))
    return sum(losses) / len(losses)


def sums_of_boxes(net: Net, b: Batch) -> Tensor:
    """Beside a loss of the whole batch."""
    loss = ce(net, b)
    for n, boxes, targets in zip(b["n_boxes"], b["boxes"], b["targets"], strict=True):
        out = net.head(boxes[: int(n)])
        loss = loss + 5 * F.l1_loss(out, targets[: int(n)], reduction="sum") / len(b["x"])
    return loss


def boxes_in_one_row(net: Net, b: Batch) -> Tensor:
    """Of 16 boxes, two for each sample by chance, but they are not."""
    which = [(i, slice(int(n))) for i, n in enumerate(b["n_boxes"])]
    out = torch.cat([net.head(b["boxes"][place]) for place in which])
    return F.smooth_l1_loss(out, torch.cat([b["targets"][place] for place in which]))


def as_many_heads_as_samples(net: Net, b: Batch) -> Tensor:
    """Looks like one sample after another in a batch of eight, but is not."""
    h = net.body(b["x"])
    return sum(F.cross_entropy(net.head(h) * i, b["y"]) for i in range(B))


def the_best_of_two_heads(net: Net, b: Batch) -> Tensor:
    h = net.body(b["x"])
    losses = torch.stack([F.cross_entropy(head(h), b["y"], reduction="none") for head in (net.head, net.aux)])
    return losses.min(0).values.mean()


def as_many_draws_as_samples(net: Net, b: Batch) -> Tensor:
    """As an importance-weighted autoencoder has them, one draw after the other."""
    shifts = torch.arange(B).repeat_interleave(len(b["x"]))[:, None] / B
    errors = (net.head(net.body(b["x"]).repeat(B, 1) + shifts) - b["z"].repeat(B, 1)).square().sum(1)
    return -(-errors).view(B, -1).logsumexp(0).mean()


def as_many_views_as_samples(net: Net, b: Batch) -> Tensor:
    return torch.stack([F.mse_loss(net(b["x"] + i), b["z"]) for i in range(B)]).mean()


def as_many_terms_as_samples(net: Net, b: Batch) -> Tensor:
    out = net(b["x"])
    return sum((out * i - b["z"]).abs().mean() for i in range(B)) / B


def matched_boxes(net: Net, b: Batch) -> Tensor:
    image = torch.arange(len(b["x"])).repeat_interleave(b["n_boxes"])
    box = torch.cat([torch.arange(int(n)).flip(0) for n in b["n_boxes"]])
    losses = F.l1_loss(net.head(b["boxes"])[image, box], b["targets"][image, box], reduction="none")
    return losses.sum() / len(image)


def detector_in_one_row(net: Net, b: Batch) -> Tensor:
    boxes, targets = (
        torch.cat([rows[:n] for rows, n in zip(b[name], b["n_boxes"], strict=True)]) for name in ("boxes", "targets")
    )
    return F.l1_loss(net.head(boxes), targets) + F.mse_loss(net.aux(boxes), targets, reduction="sum") / len(boxes)


def masked_select(net: Net, b: Batch) -> Tensor:
    return torch.masked_select(token_losses(net, b), b["mask"]).mean()


def masked_select_of_rows(net: Net, b: Batch) -> Tensor:
    words = net.tokens(b).masked_select(b["mask"][..., None]).view(-1, V)
    return F.cross_entropy(words, b["tokens"].masked_select(b["mask"]))


def masked_tokens_as_data(net: Net, b: Batch) -> Tensor:
    own = b["tokens"][b["mask"]]
    return F.cross_entropy(net.words(net.embed(own)), own)


def nodes_of_all_samples(net: Net, b: Batch) -> Tensor:
    own = torch.arange(4) < b["n_boxes"][:, None]
    return F.smooth_l1_loss(net.head(b["boxes"][own]), b["targets"][own])


def packed_sequence(net: Net, b: Batch) -> Tensor:
    lengths = b["mask"].sum(1)
    words, targets = (
        pack_padded_sequence(part, lengths, batch_first=True, enforce_sorted=False)
        for part in (net.embed(b["tokens"]), b["tokens"])
    )
    return F.cross_entropy(net.words(words.data), targets.data)


def several_tasks_with_missing_labels(net: Net, b: Batch) -> Tensor:
    out, losses = net(b["x"]), []
    for task in range(C):
        known = b["mask"][:, task]
        losses.append(F.mse_loss(out[known, task], b["z"][known, task], reduction="sum"))
    return torch.stack(losses).sum() / len(out)


ONE_AFTER_ANOTHER = [
    matched_boxes,
    detector_in_one_row,
    masked_select,
    masked_select_of_rows,
    masked_tokens_as_data,
    nodes_of_all_samples,
    packed_sequence,
    several_tasks_with_missing_labels,
    boxes_in_one_row,
    as_many_heads_as_samples,
    the_best_of_two_heads,
    as_many_draws_as_samples,
    as_many_views_as_samples,
    as_many_terms_as_samples,
    one_at_a_time_stacked,
    one_at_a_time_added_up,
    model_called_for_each,
    boxes_of_each_image,
    boxes_of_each_image_by_hand,
    sums_by_boxes_of_each_image,
    sums_by_pixels_of_each_image,
    sums_of_boxes,
]


# ---- images ---------------------------------------------------------------------------------------------------------


def segmentation(net: Net, b: Batch) -> Tensor:
    return F.cross_entropy(net.conv(b["image"]), b["segments"], ignore_index=0)


def segmentation_of_flat_pixels(net: Net, b: Batch) -> Tensor:
    logits = net.conv(b["image"]).permute(0, 2, 3, 1).reshape(-1, C)
    return F.cross_entropy(logits, b["segments"].reshape(-1), ignore_index=0)


def deep_supervision(net: Net, b: Batch) -> Tensor:
    out, y = net.conv(b["image"]), b["segments"]
    half = F.cross_entropy(F.avg_pool2d(out, 2), y[:, ::2, ::2])
    return F.cross_entropy(out, y) + 0.5 * half + 0.25 * F.cross_entropy(F.avg_pool2d(out, 4), y[:, ::4, ::4])


def dice_of_each_sample(net: Net, b: Batch) -> Tensor:
    p, t = net.conv(b["image"]).softmax(1)[:, 1].flatten(1), (b["segments"] == 1).float().flatten(1)
    return (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()


def focal(net: Net, b: Batch) -> Tensor:
    losses = F.cross_entropy(net.conv(b["image"]), b["segments"], reduction="none")
    return (0.25 * (1 - torch.exp(-losses)) ** 2 * losses).mean()


IMAGES = [segmentation, segmentation_of_flat_pixels, deep_supervision, dice_of_each_sample, focal]


# ---- generative models ----------------------------------------------------------------------------------------------


def _encoded(net: Net, b: Batch) -> tuple[Tensor, Tensor, Tensor]:
    h = net.body(b["x"])
    mean, log_var = h[:, :8], h[:, 8:]
    z = mean + (0.5 * log_var).exp() * b["noise"]
    return net.head(torch.cat([z, z], 1)), mean, log_var


def vae_of_sums(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
    return F.mse_loss(out, b["z"], reduction="sum") + kl


def vae_of_sums_by_samples(net: Net, b: Batch) -> Tensor:
    return vae_of_sums(net, b) / b["x"].size(0)


def beta_vae(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    n = len(b["x"])
    kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp()) / n
    return 10 * F.mse_loss(out, b["z"], reduction="sum") / n + 4 * kl


def vae_of_means(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    kl = torch.mean(-0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp(), dim=1), dim=0)
    return F.mse_loss(out, b["z"]) + 0.00025 * kl


def vae_of_numbers_with_an_axis(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    kl = -0.5 * (1 + log_var - mean**2 - log_var.exp())
    return F.mse_loss(out, b["z"], reduction="sum").div(len(out)) + 4 * kl.sum(1).mean(0, True)


def vae_of_a_mean_and_a_sum(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    return F.mse_loss(out, b["z"]) - 0.01 * 0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())


def vae_of_distributions(net: Net, b: Batch) -> Tensor:
    out, mean, log_var = _encoded(net, b)
    kl = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(1).mean()
    return kl - Normal(out, 1.0).log_prob(b["z"]).sum(1).mean()


def critic(net: Net, b: Batch) -> Tensor:
    x = b["x"].clone().requires_grad_()
    real, fake = net.value(net.body(x)), net.value(net.body(b["x"] + 1))
    (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    return fake.mean() - real.mean() + 10 * ((slope.norm(2, 1) - 1) ** 2).mean()


def physics(net: Net, b: Batch) -> Tensor:
    x = b["x"].clone().requires_grad_()
    energy = net.value(net.body(x)).squeeze(1)
    (force,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
    return F.mse_loss(force, b["noise"][:, :D]) + 0.1 * F.mse_loss(energy, b["r"])


def forces(net: Net, b: Batch) -> Tensor:
    x = b["x"].clone().requires_grad_()
    (force,) = torch.autograd.grad(net.value(net.body(x)).sum(), x, create_graph=True)
    return F.mse_loss(force, b["noise"][:, :D])


def hinge_gan(net: Net, b: Batch) -> Tensor:
    real, fake = net.value(net.body(b["x"])), net.value(net.body(b["x"] + 1))
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def diffusion(net: Net, b: Batch) -> Tensor:
    t = b["share"][:, None]
    noisy = t.sqrt() * b["x"] + (1 - t).sqrt() * b["noise"][:, :D]
    return (F.mse_loss(net(noisy), b["z"], reduction="none").mean(1) * math.pi * b["weight"]).mean()


GENERATIVE = [
    vae_of_sums,
    vae_of_sums_by_samples,
    beta_vae,
    vae_of_means,
    vae_of_numbers_with_an_axis,
    vae_of_a_mean_and_a_sum,
    vae_of_distributions,
    critic,
    physics,
    forces,
    hinge_gan,
    diffusion,
]

STEPS = {
    step.__name__: step
    for step in (
        *CLASSIFICATION_AND_REGRESSION,
        *CALLED_FROM_ANYWHERE,
        *SUMS_AND_MEANS,
        *TOKENS,
        *ONE_AFTER_ANOTHER,
        *IMAGES,
        *GENERATIVE,
    )
}
