"""Losses that samples have beside others, and not alone, are refused, but for factors of the batch and draws."""

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

N, B, D, H, C, T = 48, 8, 6, 12, 4, 5
Step = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


class Net(L.LightningModule):
    """Learns nothing, and keeps the losses that its step computes for the samples of each batch."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.step = step
        self.body, self.head, self.norm = nn.Sequential(nn.Linear(D, H), nn.GELU()), nn.Linear(H, C), nn.BatchNorm1d(H)
        self.table, self.centres = nn.Embedding(N, H), nn.Parameter(0.3 * torch.randn(C, H))
        self.rnn = nn.LSTM(D, H)
        self.tokens, self.vocabulary = nn.Embedding(N, T * H), nn.Linear(H, C)
        self.right: dict[int, float] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def mean(self, losses: Tensor, i: Tensor) -> Tensor:
        """Return the mean over samples of what they lose, which is noted."""
        own = losses.reshape(len(i), -1).mean(1)
        self.right.update(zip(i.tolist(), own.tolist(), strict=True))
        return losses.mean()

    def training_step(self, batch: Any) -> Tensor:
        return self.step(self, *batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fitted(step: Step, n: int) -> tuple[Tensor, Net]:
    """Return what was measured in an epoch, and the module."""
    g = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(n, D, generator=g), torch.randint(C, (n,), generator=g), torch.arange(n))
    module, selector = Net(step), InfoBatch(prune_ratio=0.0)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[selector], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, B, shuffle=True, generator=torch.Generator().manual_seed(2)))
    return selector.losses, module


def measured(step: Step) -> tuple[Tensor, Tensor]:
    """Return what was measured, and what the step has computed for its batches."""
    losses, module = fitted(step, N)
    return losses, torch.tensor([module.right[i] for i in range(N)])


def bpr(net: Any, x: Tensor, i: Tensor, negatives: Tensor) -> Tensor:
    z = net.body(x)
    return -F.logsigmoid((z * net.table(i)).sum(1) - (z * net.table(negatives)).sum(1)).mean()


BESIDE: dict[str, Step] = {
    "ids rolled": lambda net, x, y, i: bpr(net, x, i, i.roll(1)),
    "ids turned round": lambda net, x, y, i: bpr(net, x, i, i.flip(0)),
    "ids shuffled": lambda net, x, y, i: bpr(net, x, i, i[torch.randperm(len(i))]),
    "ids before and after": lambda net, x, y, i: bpr(net, x, i, i.roll(1)) + bpr(net, x, i, i.roll(-1)),
    "inputs rolled": lambda net, x, y, i: F.triplet_margin_loss(net.body(x), net.centres[y], net.body(x.roll(1, 0))),
    "both in one pass": lambda net, x, y, i: F.binary_cross_entropy_with_logits(
        (net.body(x).repeat(2, 1) * net.table(torch.cat([i, i.roll(1)]))).sum(1).view(2, -1).T,
        torch.tensor([1.0, 0.0]).expand(len(x), 2),
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_negatives_out_of_the_batch_are_refused_for_what_they_are(name: str) -> None:
    with pytest.raises(CaptureError, match="beside another one of its batch"):
        measured(BESIDE[name])


def classes_of_batch(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    present = y.unique()
    return F.cross_entropy(net(x)[:, present], torch.searchsorted(present, y))


def masked_to_batch(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    present = F.one_hot(y, C).amax(0) > 0
    return F.cross_entropy(net(x).masked_fill(~present, -1e4), y)


def bounded_by_batch(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    return F.huber_loss(net(x).mean(1), x.sum(1), delta=float(0.2 + x.sum(1).var(unbiased=False)))


def rank(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    return (net(x).mean(1) - x.sum(1).detach().numpy().argsort().argsort().mean()).square().mean()


def balanced(one: Tensor, other: Tensor) -> Tensor:
    return one + (one.mean() / other.mean()).detach() * other


def errors_of(net: Any, x: Tensor) -> Tensor:
    return (net(x).mean(1) - x.sum(1)).square()


ANOTHER: dict[str, Step] = {
    "a softmax over the classes in the batch": classes_of_batch,
    "the others masked": masked_to_batch,
    "a temperature that goes by the number of samples": lambda net, x, y, i: F.cross_entropy(net(x) / len(x), y),
    "a bound that the batch sets": bounded_by_batch,
    "targets less their mean, by NumPy": lambda net, x, y, i: F.mse_loss(
        net(x).mean(1), x.sum(1) - float(x.sum(1).numpy().mean())
    ),
    "a margin to the first sample": lambda net, x, y, i: F.relu(
        100 - (net.body(x) - net.body(x)[0]).square().sum(1)
    ).mean(),
    "ranks": rank,
    "a balance of two parts of each loss": lambda net, x, y, i: balanced(
        losses_of(net, x, y), errors_of(net, x)
    ).mean(),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_other_losses_among_others_are_refused(name: str) -> None:
    with pytest.raises(CaptureError, match="(on|by) (which other|the other|numbers? of the whole|numbers that)"):
        measured(ANOTHER[name])


def more(net: Any, x: Tensor) -> Tensor:
    return 0.5 * net.body(x).square().mean()


def if_several_of_a_class(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    loss = F.cross_entropy(net(x), y)
    if len(set(y.tolist())) < len(y):
        loss = loss + more(net, x)
    return loss


def if_fewer_classes_than_samples(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    loss = F.cross_entropy(net(x), y)
    if len(y.unique()) < len(y):
        loss = loss + more(net, x)
    return loss


def if_numpy_finds_fewer(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    loss = F.cross_entropy(net(x), y)
    if np.unique(y.numpy()).size < y.shape[0]:
        loss = loss + more(net, x)
    return loss


def if_any_pairs(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    loss = F.cross_entropy(net(x), y)
    if (y[:, None] == y).triu(1).any():
        loss = loss + more(net, x)
    return loss


@pytest.mark.parametrize(
    "step", [if_several_of_a_class, if_fewer_classes_than_samples, if_numpy_finds_fewer, if_any_pairs]
)
def test_a_part_of_the_loss_where_a_class_is_there_twice_is_refused(step: Step) -> None:
    with pytest.raises(CaptureError, match="(another|the other) (way|branch)"):
        measured(step)


def from_four_samples_on(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y) + (more(net, x) if len(x) >= 4 else 0)


def test_a_part_of_the_loss_of_larger_batches_is_refused() -> None:
    with pytest.raises(CaptureError, match="another (way|branch)|the other branch"):
        measured(from_four_samples_on)


def in_pairs(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    h = net.body(x)
    if len(x) % 2 == 0:
        h = h - h.view(-1, 2, H).mean(1).repeat_interleave(2, 0)
    return F.cross_entropy(net.head(h), y)


MIXED: dict[str, Step] = {
    "in pairs, if there are as many": in_pairs,
    "the batch taken for the time": lambda net, x, y, i: F.cross_entropy(net.head(net.rnn(x)[0]), y),
    "steps taken for the samples": lambda net, x, y, i: F.cross_entropy(
        net.head(net.rnn(x[:, None] * torch.tensor([1.0, -0.5, 2.0])[:, None])[0][:, -1]), y
    ),
    "reshaped": lambda net, x, y, i: F.cross_entropy(net(x.T.reshape(x.shape)), y),
    "rolled": lambda net, x, y, i: F.cross_entropy(net.head(net.body(x) + 0.5 * net.body(x).roll(1, 0)), y),
    "rolled before": lambda net, x, y, i: F.cross_entropy(net(x - 0.5 * x.roll(1, 0)), y),
}


@pytest.mark.parametrize("name", MIXED)
def test_outputs_that_hold_those_before_are_refused(name: str) -> None:
    with pytest.raises(CaptureError, match="depends on the other samples of its batch"):
        measured(MIXED[name])


def losses_of(net: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y, reduction="none")


def by_counts(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    weights = 1 / (1 + torch.bincount(y, minlength=C).float())
    return net.mean(weights[y] * losses_of(net, x, y), i)


def by_advantages(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    rewards = x.sum(1)
    return net.mean((rewards - rewards.mean()) * losses_of(net, x, y), i)


def above_the_mean(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    losses = losses_of(net, x, y)
    return net.mean(torch.sigmoid(losses.detach() - losses.detach().mean()) * losses, i)


def by_positives(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    labels = (x[:, :C] > 0).float()
    weights = (1 + len(x) - labels.sum(0)) / (1 + labels.sum(0))
    losses = F.binary_cross_entropy_with_logits(net(x), labels, pos_weight=weights, reduction="none")
    return net.mean(losses, i)


def by_counts_of_tokens(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    targets = (torch.arange(T) * (1 + y[:, None]) + y[:, None]) % C
    weights = 1 / (1 + torch.bincount(targets.flatten(), minlength=C).float())
    logits = net.vocabulary(net.tokens(i).view(-1, T, H))
    return net.mean(weights[targets] * F.cross_entropy(logits.mT, targets, reduction="none"), i)


def by_counts_of_pixels(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    targets = (torch.arange(T) * (1 + y[:, None]) + y[:, None]) % C
    weights = 1 / (1 + torch.bincount(targets.flatten(), minlength=C).float())
    logits = F.conv1d(net.tokens(i).view(-1, H, T), net.vocabulary.weight[:, :, None])
    return net.mean(weights[targets] * F.cross_entropy(logits, targets, reduction="none"), i)


def by_balance(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    net.mean(balanced(losses_of(net, x, y), errors_of(net, x)), i)
    return balanced(losses_of(net, x, y).mean(), errors_of(net, x).mean())


def mixed_by_numpy(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    share = 0.5 + 0.4 * float(np.random.default_rng().random())
    logits = net(share * x + (1 - share) * x.roll(1, 0))
    own = F.cross_entropy(logits, y, reduction="none")
    net.mean(share * own + (1 - share) * F.cross_entropy(logits, y.roll(1), reduction="none"), i)
    return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y.roll(1))


def mixed_by_torch(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    share = float(0.5 + 0.4 * torch.rand(()))
    targets = F.one_hot(y, C).float()
    logits = net(share * x + (1 - share) * x.roll(1, 0))
    losses = F.cross_entropy(logits, share * targets + (1 - share) * targets.roll(1, 0), reduction="none")
    return net.mean(losses, i)


@pytest.mark.parametrize(
    "step",
    [
        by_counts, by_advantages, above_the_mean, by_positives, by_counts_of_tokens, by_counts_of_pixels, by_balance,
        mixed_by_numpy, mixed_by_torch,
    ],
)  # fmt: skip
def test_factors_of_the_batch_and_what_is_drawn_stay_as_they_are_in_it(step: Step) -> None:
    losses, right = measured(step)
    torch.testing.assert_close(losses, right, rtol=1e-4, atol=1e-6)


def mixture(net: Any, x: Tensor, y: Tensor, share: Any, order: Tensor) -> Tensor:
    logits = net(share * x + (1 - share) * x[order])
    return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[order])


SHARES: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.random.beta(0.2, 0.2),
    "torch": lambda: torch.distributions.Beta(0.2, 0.2).sample(),
    "item": lambda: torch.distributions.Beta(0.2, 0.2).sample().item(),
}
ORDERS: dict[str, Callable[[int], Tensor]] = {
    "randperm": torch.randperm,
    "flip": lambda n: torch.arange(n).flip(0),
    "roll": lambda n: torch.arange(n).roll(1),
    "numpy": lambda n: torch.from_numpy(np.random.permutation(n)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("share", SHARES)
def test_mixup_is_served_however_close_its_share_is_to_0_or_1(share: str, order: str) -> None:
    for seed in range(3):  # of which a share next to 0 led to a refusal of about half
        np.random.seed(seed), torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The coefficient of")
            losses, _ = fitted(lambda net, x, y, i: mixture(net, x, y, SHARES[share](), ORDERS[order](len(x))), n=120)
        assert losses.isfinite().all()


def shuffled_by_numpy(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
    order = torch.from_numpy(np.random.permutation(len(x)))
    return F.cross_entropy(net(x[order]), y[order])


@pytest.mark.parametrize("seed", range(8))  # some of which draw the samples in their own order at times
def test_a_step_that_shuffles_its_samples_by_numpy_is_refused_all_the_same(seed: int) -> None:
    np.random.seed(seed)
    with pytest.raises(CaptureError, match="reorders the samples"):
        measured(shuffled_by_numpy)


def test_noise_by_numpy_and_two_passes_with_dropout_are_served() -> None:
    def noisy(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        return net.mean(losses_of(net, x + torch.from_numpy(np.random.normal(size=x.shape)).float(), y), i)

    def twice(net: Any, x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        one, two = (net.head(F.dropout(net.body(x), 0.2, net.training)) for _ in range(2))
        apart = F.kl_div(one.log_softmax(1), two.softmax(1), reduction="none").sum(
            1
        )  # in eval mode, what rounding leaves
        net.mean(F.cross_entropy(one, y, reduction="none") + apart, i)
        loss = F.kl_div(one.log_softmax(1), two.softmax(1), reduction="batchmean")
        return F.cross_entropy(one, y) + loss

    for step in (noisy, twice):
        torch.testing.assert_close(*measured(step), rtol=1e-4, atol=1e-6)
