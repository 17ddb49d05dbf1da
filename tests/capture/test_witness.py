"""Divisors, axes and orders that sizes and values leave open are those that single samples show."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

from lightning_dataselect import EvolvedSampling, InfoBatch
from lightning_dataselect.capture import CaptureError

N, B, V = 40, 8, 11
Step = Callable[[Any, Any], Tensor]


class Fixed(L.LightningModule):
    """A step on a net that does not change, so that what was seen of a sample holds to the end."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.step, self.sizes = step, []
        self.embed, self.rnn, self.words = nn.Embedding(V, 16), nn.LSTM(16, 16), nn.Linear(16, V)
        self.heads = nn.ModuleList(nn.Linear(16, V) for _ in range(B))

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        return self.step(self, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def texts(lengths: tuple[int, int], n: int = N) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randint(1, V, (int(torch.randint(*lengths, (1,), generator=g)),), generator=g) for _ in range(n)]


def padded(samples: list[Tensor]) -> dict[str, Any]:
    y = pad_sequence(samples, batch_first=True, padding_value=-100)
    y = F.pad(y, (0, 8 - y.shape[1]), value=-100)
    n = sum(map(len, samples))
    return {"x": y.clamp(0), "y": y, "n": n, "size": len(samples), "as one": torch.tensor([n, len(samples)]).split(1)}


def fitted(step: Step, data: list[Any], collate: Callable[[list[Any]], Any], **options: Any) -> tuple[Tensor, Tensor]:
    """The losses after an epoch without training, and those of batches of one."""
    module, selector = Fixed(step), InfoBatch(prune_ratio=0.5)
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[selector],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    loader = DataLoader(data, B, collate_fn=collate, shuffle=True, generator=torch.Generator().manual_seed(2))
    trainer.fit(module, DataLoader(data, B, collate_fn=collate, **options) if options else loader)
    return selector.losses, torch.stack([module.training_step(collate([sample])).detach() for sample in data])


# ---- what the losses of tokens are divided by ------------------------------------------------------------------------


def total(net: Any, b: Any) -> Tensor:
    return F.cross_entropy(net.words(net.embed(b["x"])).flatten(0, 1), b["y"].flatten(), reduction="sum")


def by_hand(net: Any, b: Any) -> Tensor:
    logs = net.words(net.embed(b["x"])).log_softmax(-1)
    return -logs.gather(2, b["x"][..., None]).squeeze(2).masked_fill(b["y"] == -100, 0)


COUNTS: dict[str, Step] = {
    "a torch sum": lambda net, b: total(net, b) / (b["y"] != -100).sum(),
    "a difference": lambda net, b: total(net, b) / (b["y"].numel() - (b["y"] == -100).sum()),
    "the collate function": lambda net, b: total(net, b) / b["n"],
    "python": lambda net, b: total(net, b) / sum(len(row[row != -100]) for row in b["y"]),
    "the collate function, with an axis": lambda net, b: total(net, b) / b["as one"][0].squeeze(),
    "numpy": lambda net, b: total(net, b) / float(np.sum(b["y"].numpy() != -100)),
    "nonzero": lambda net, b: total(net, b) / len((b["y"] != -100).nonzero()),
    "bincount": lambda net, b: total(net, b) / torch.bincount((b["y"] != -100).int().flatten(), minlength=2)[1],
    "einsum": lambda net, b: total(net, b) / torch.einsum("bt,bt->", *[(b["y"] != -100).float()] * 2),
    "a python number": lambda net, b: total(net, b) / int((b["y"] != -100).sum()),
    "a sum by hand and numpy": lambda net, b: by_hand(net, b).sum() / np.count_nonzero(b["y"].numpy() != -100),
    "each loss by numpy": lambda net, b: (by_hand(net, b) / float(np.sum(b["y"].numpy() != -100))).sum(),
    "the samples": lambda net, b: total(net, b) / len(b["x"]),
    "the samples, by the collate function": lambda net, b: total(net, b) / b["size"],
    "the samples, with an axis": lambda net, b: total(net, b) / b["as one"][1].item(),
    "nothing": total,
}


@pytest.mark.parametrize("lengths", [(2, 9), (5, 6)], ids=["ragged", "equal"])
@pytest.mark.parametrize("name", COUNTS)
def test_a_sum_over_tokens_is_divided_by_the_samples_own_count(name: str, lengths: tuple[int, int]) -> None:
    torch.testing.assert_close(*fitted(COUNTS[name], texts(lengths), padded), rtol=1e-4, atol=1e-4)


# what divides each loss before the sum leaves no coefficient that would tell
@pytest.mark.parametrize("name", sorted(COUNTS.keys() - {"each loss by numpy"}))
def test_a_first_batch_of_equal_lengths_does_not_settle_the_divisor(name: str) -> None:
    data = texts((5, 6), B) + texts((2, 9), N - B)
    torch.testing.assert_close(*fitted(COUNTS[name], data, padded, shuffle=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "convert", [lambda n: n.item(), int, float, lambda n: n], ids=["item", "int", "float", "as is"]
)
@pytest.mark.parametrize("right", [0, 1, 4, B])
def test_a_number_that_equals_the_batch_size_by_chance_divides_nothing(right: int, convert: Any) -> None:
    """As the count of hits does in a batch that is all right; later ones have others."""
    g = torch.Generator().manual_seed(0)
    data = [(torch.randn(16, generator=g), i < right or (i >= B and i % 3 == 0)) for i in range(N)]

    def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in samples]), torch.tensor([hit for _, hit in samples])

    def step(net: Any, b: Any) -> Tensor:
        out = net.words(b[0])
        y = torch.where(b[1], out.argmax(1), out.argmin(1))
        net.accuracy = convert((out.argmax(1) == y).sum()) / len(y)
        return F.cross_entropy(out, y, reduction="sum") / len(y)

    torch.testing.assert_close(*fitted(step, data, collate, shuffle=False), rtol=1e-4, atol=1e-4)


SCALES: dict[str, Step] = {
    "the longest": lambda net, b: total(net, b) / (len(b["y"]) * (b["y"] != -100).sum(1).max()),
    "a root": lambda net, b: total(net, b) / (b["y"] != -100).sum().sqrt(),
    "a python root": lambda net, b: total(net, b) / b["n"] ** 0.5,
    "a logarithm": lambda net, b: total(net, b) / torch.log2(1 + (b["y"] != -100).sum()),
    "a count and one": lambda net, b: total(net, b) / ((b["y"] != -100).sum() + 1),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_sum_divided_by_what_no_sample_has_a_share_in_is_refused(name: str) -> None:
    with pytest.raises(CaptureError, match="by a number that is not a sum over the samples"):
        fitted(SCALES[name], texts((2, 9)), padded)


def sums_one_after_the_other(net: Any, b: Any) -> list[Tensor]:
    return [F.cross_entropy(net.words(net.embed(x)), y, reduction="sum") for x, y in zip(b["x"], b["y"], strict=True)]


def test_sums_of_one_sample_after_the_other_divided_by_all_their_tokens_are_refused() -> None:
    def step(net: Any, b: Any) -> Tensor:
        return torch.stack(sums_one_after_the_other(net, b)).sum() / b["n"]

    with pytest.raises(CaptureError, match="counted outside of torch"):
        fitted(step, texts((2, 9)), padded)
    by_samples = lambda net, b: sum(sums_one_after_the_other(net, b)) / len(b["x"])  # noqa: E731
    torch.testing.assert_close(*fitted(by_samples, texts((2, 9)), padded), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["by the sum, times the samples", "by the mean"])
def test_weights_that_are_made_to_be_one_on_average_cancel(how: str) -> None:
    def step(net: Any, b: Any) -> Tensor:
        weights = 1.0 + b["x"][:, 0]
        losses = F.cross_entropy(net.words(net.embed(b["x"][:, 1])), b["x"][:, 0], reduction="none")
        by = weights.mean() if how == "by the mean" else weights.sum() / len(weights)
        return (weights / by * losses).mean()

    torch.testing.assert_close(*fitted(step, texts((2, 9)), padded), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", ["equal", "nothing", "ragged"])
@pytest.mark.parametrize("divided", ["by torch", "in place"])
def test_a_mask_that_is_made_to_be_one_on_average_cancels(samples: str, divided: str) -> None:
    """As of missing readings of traffic sensors; samples may have as many, or none."""

    def step(net: Any, b: Any) -> Tensor:
        mask = (b["y"] != -100).float()
        if divided == "in place":
            mask /= mask.mean()
        else:
            mask = mask / torch.mean(mask)
            mask = torch.where(mask.isnan(), torch.zeros_like(mask), mask)
        rows = net.words(net.embed(b["x"])).log_softmax(-1)[..., 3].abs()
        return torch.mean(torch.where(rows.isnan(), torch.zeros_like(rows), rows * mask))

    data = texts((2, 9))
    if samples == "equal":  # those at some places of each batch, so that no look at them shows the division
        data = [x if n % B in (1, 2, 3) else y for n, (x, y) in enumerate(zip(data, texts((4, 5)), strict=True))]
    elif samples == "nothing":
        data[B - 1] = torch.empty(0).long()
    losses, right = fitted(step, data, padded, shuffle=False)
    torch.testing.assert_close(losses, right.nan_to_num(), rtol=1e-4, atol=1e-4)


# ---- means that are multiplied, or divided by what was counted -------------------------------------------------------


def errors(net: Any, b: Any) -> Tensor:
    return net.words(net.embed(b["x"]))[..., 3].square()


def present(b: Any) -> Tensor:
    return (b["y"] != -100).float()


@pytest.mark.parametrize(
    "step",
    [
        lambda net, b: (errors(net, b) * present(b)).mean() * present(b).numel() / present(b).sum(),
        lambda net, b: (errors(net, b) * present(b)).mean() / present(b).mean(),
        lambda net, b: errors(net, b).mean() * len(b["x"]),
        lambda net, b: F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"]) * len(b["x"]) / 32,
        lambda net, b: errors(net, b).mean() * b["x"].numel(),
    ],
    ids=["all over those present", "the share present", "the samples", "the samples over a constant", "all entries"],
)
def test_a_mean_times_what_grows_with_the_batch_is_that_of_a_sample_alone(step: Step) -> None:
    data = texts((2, 9), N + 3)  # the last batch has fewer
    torch.testing.assert_close(*fitted(step, data, padded, shuffle=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "step",
    [
        lambda net, b: (errors(net, b) * present(b)).mean() / float(present(b).numpy().mean()),
        lambda net, b: (errors(net, b) * (present(b) / float(present(b).mean()))).mean(),
        lambda net, b: (errors(net, b) * torch.from_numpy(present(b).numpy() / present(b).numpy().mean())).mean(),
        lambda net, b: (
            errors(net, b).mean(1) * torch.from_numpy(present(b).numpy().sum(1) / present(b).numpy().sum(1).mean())
        ).mean(),
        lambda net, b: (errors(net, b) * present(b)).mean() * b["n"],
    ],
    ids=["numpy", "weights by torch and Python", "weights by numpy", "weights of samples by numpy", "tokens"],
)
@pytest.mark.parametrize("looks", ["differ", "would be equal"])
def test_a_mean_divided_by_what_was_counted_out_of_sight_is_refused(step: Step, looks: str) -> None:
    data = texts((2, 9))
    if looks == "would be equal":  # the first, the middle and the last text of each batch
        data = [x if n % B not in (0, B // 2, B - 1) else x.repeat(4)[:4] for n, x in enumerate(data)]
    with pytest.raises(CaptureError, match="divided (or multiplied )?by"):
        fitted(step, data, padded, shuffle=False)


def test_a_mean_of_double_precision_divided_by_what_was_counted_out_of_sight_is_refused() -> None:
    def step(net: Any, b: Any) -> Tensor:
        return (errors(net.double(), b) * present(b)).mean() / float(present(b).numpy().mean())

    with pytest.raises(CaptureError, match="divided by"):
        fitted(step, texts((2, 9)), padded, shuffle=False)


def test_a_mean_that_is_balanced_by_a_running_mean_of_itself_is_served() -> None:
    def step(net: Any, b: Any) -> Tensor:
        loss = F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"])
        net.running = 0.9 * getattr(net, "running", 1.0) + 0.1 * float(loss)
        return loss / net.running

    losses, _ = fitted(step, texts((2, 9)), padded, shuffle=False)
    _, right = fitted(lambda net, b: total(net, b) / present(b).sum(), texts((2, 9)), padded, shuffle=False)
    shares = (losses / right).view(-1, B)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares), rtol=1e-4, atol=1e-4)


# ---- what is the same whatever the samples ---------------------------------------------------------------------------


def near_to_fixed_weights(net: Any, b: Any) -> Tensor:
    return (net.heads[0].weight[:B] - torch.ones(B, 16)).square().mean()  # as many rows as samples


def near_to_fixed_weights_by_a_loss_function(net: Any, b: Any) -> Tensor:
    return F.mse_loss(net.heads[0].weight[:B], torch.ones(B, 16))


def orthogonal(net: Any, b: Any) -> Tensor:
    return sum((head.weight @ head.weight.T - torch.eye(V)).abs().sum() for head in net.heads) / 100


@pytest.mark.parametrize(
    "add", [near_to_fixed_weights, near_to_fixed_weights_by_a_loss_function, orthogonal], ids=lambda step: step.__name__
)
def test_a_term_of_parameters_and_fixed_tensors_is_no_samples_loss(add: Step) -> None:
    def step(net: Any, b: Any) -> Tensor:
        return F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"]) + add(net, b)

    losses, right = fitted(step, texts((2, 9), N + 3), padded)
    torch.testing.assert_close(losses, right - add(Fixed(step), None).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["the collate function", "numpy", "a sum by hand and numpy", "nothing"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda x: 0 * torch.randn_like(x),
        lambda x: 0 * F.dropout(x),
        lambda x: 0 * torch.rand(x.shape[0])[:, None, None] * x,
        lambda x: 0 * torch.normal(x.detach(), 1.0) + torch.randint(0, 3, x.shape[:1])[:, None, None] * 0,
        lambda x: 0 * torch.bernoulli(torch.full_like(x, 0.3)) + 0 * torch.randperm(len(x))[:, None, None],
    ],
    ids=["noise", "dropout", "a share a sample", "timesteps", "a mask"],
)
def test_a_step_that_draws_random_numbers_is_settled_too(name: str, draw: Callable[[Tensor], Tensor]) -> None:
    def step(net: Any, b: Any) -> Tensor:
        embed = net.embed
        net.__dict__["embed"] = lambda x: embed(x) + draw(embed(x))
        try:
            return COUNTS[name](net, b)
        finally:
            del net.__dict__["embed"]

    before = torch.get_rng_state()
    torch.testing.assert_close(*fitted(step, texts((2, 9)), padded), rtol=1e-4, atol=1e-4)
    torch.set_rng_state(before)


def test_a_step_that_shuffles_its_batch_is_refused() -> None:
    def step(net: Any, b: Any) -> Tensor:
        order = torch.randperm(len(b["x"]))
        return F.cross_entropy(net.words(net.embed(b["x"][order, 0])), b["x"][order, 0])

    with pytest.raises(CaptureError, match="reorders the samples of a batch"):
        fitted(step, texts((2, 9)), padded)


# ---- where the samples lie -------------------------------------------------------------------------------------------


def time_major(net: Any, x: Tensor) -> Tensor:
    return F.cross_entropy(net.words(net.rnn(net.embed(x))[0]).flatten(0, 1), x.flip(0).flatten())


def time_major_classes_second(net: Any, x: Tensor) -> Tensor:
    return F.cross_entropy(net.words(net.rnn(net.embed(x))[0]).movedim(-1, 1), x.flip(0))


def time_major_errors(net: Any, x: Tensor) -> Tensor:
    return F.mse_loss(net.rnn(net.embed(x))[0], net.embed(x.flip(0)).detach())


def time_major_errors_by_hand(net: Any, x: Tensor) -> Tensor:
    return (net.rnn(net.embed(x))[0] - 1).square().mean()


def time_major_means_over_time_first(net: Any, x: Tensor) -> Tensor:
    losses = F.cross_entropy(net.words(net.rnn(net.embed(x))[0]).movedim(-1, 1), x.flip(0), reduction="none")
    return losses.mean(0).mean()


def time_major_of_which_some_are_ignored(net: Any, x: Tensor) -> Tensor:
    y = x.flip(0).masked_fill(x.flip(0) % 3 == 0, -100)
    return F.cross_entropy(net.words(net.rnn(net.embed(x))[0]).movedim(-1, 1), y)


def time_major_sum_over_those_that_are_not_ignored(net: Any, x: Tensor) -> Tensor:
    y = x.flip(0).masked_fill(x.flip(0) % 3 == 0, -100)
    losses = F.cross_entropy(net.words(net.rnn(net.embed(x))[0]).movedim(-1, 1), y, reduction="sum")
    return losses / (y != -100).sum()


IGNORING = [time_major_of_which_some_are_ignored, time_major_sum_over_those_that_are_not_ignored]
TIME_MAJOR = [time_major, time_major_classes_second, time_major_errors, time_major_errors_by_hand]


@pytest.mark.parametrize("size", [7, B, 2 * B, 3])
@pytest.mark.parametrize("step", [*TIME_MAJOR, *IGNORING, time_major_means_over_time_first])
def test_time_major_batches_with_as_many_steps_as_samples(step: Step, size: int) -> None:
    losses = fitted(step, texts((size, size + 1)), lambda samples: torch.stack(samples, 1))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [3, B])
def test_an_ensemble_of_as_many_members_as_samples(k: int) -> None:
    g = torch.Generator().manual_seed(0)
    data = list(torch.randn(N, 16, generator=g))

    def errors(net: Any, x: Tensor) -> Tensor:
        return F.mse_loss(torch.stack([head(x) for head in net.heads[:k]]), x[:, :V].expand(k, -1, -1))

    def by_members(net: Any, x: Tensor) -> Tensor:
        return (torch.stack([head(x) for head in net.heads[:k]], 1) - x[:, None, :V]).square().sum(2).mean()

    for step in (errors, by_members):
        torch.testing.assert_close(*fitted(step, data, torch.stack), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [7, B])
def test_batch_level_methods_cut_time_major_batches_along_the_samples(steps: int) -> None:
    seen: set[tuple[int, ...]] = set()

    def step(net: Any, x: Tensor) -> Tensor:
        loss = time_major(net, x)
        if net.training:
            seen.add(tuple(x.shape))
        return loss

    module = Fixed(step)
    selector = EvolvedSampling(batch_ratio=0.5)
    trainer = L.Trainer(
        max_epochs=2, callbacks=[selector], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, DataLoader(texts((steps, steps + 1)), B, collate_fn=lambda samples: torch.stack(samples, 1)))
    assert seen == {(steps, B), (steps, B // 2)}


def ensemble_by_members_first(net: Any, x: Tensor) -> Tensor:
    return F.mse_loss(torch.stack([head(x)[:, 0] for head in net.heads[:3]]), x[:, 0].expand(3, -1))


def ensemble_errors_by_hand(net: Any, x: Tensor) -> Tensor:
    return (torch.stack([head(x)[:, 0] for head in net.heads[:3]]) - x[:, 0]).square().mean()


@pytest.mark.parametrize("step", [ensemble_by_members_first, ensemble_errors_by_hand])
def test_an_ensembles_errors_with_the_samples_along_the_second_axis(step: Step) -> None:
    data = list(torch.randn(N, 16, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(*fitted(step, data, torch.stack), rtol=1e-4, atol=1e-4)


# ---- the order in which they lie -------------------------------------------------------------------------------------


def sorted_texts(samples: list[Tensor]) -> tuple[Tensor, Tensor]:
    return pad_sequence(samples), torch.tensor([len(sample) for sample in samples])


def _encoded(net: Any, x: Tensor, n: Tensor) -> Tensor:
    return net.rnn(pack_padded_sequence(net.embed(x), n))[1][0][-1]


def sorted_inside(net: Any, b: Any) -> Tensor:
    n, order = b[1].sort(descending=True)
    return F.cross_entropy(net.words(_encoded(net, b[0][:, order], n)), b[0][0, order])


def sorted_losses(net: Any, b: Any) -> Tensor:
    """By another key than the lengths, after the model."""
    order = b[0][0].argsort(stable=True)
    losses = F.cross_entropy(net.words(net.embed(b[0][0])), b[0][0], reduction="none")[order]
    return losses.mean()


def put_back(net: Any, b: Any) -> Tensor:
    n, order = b[1].sort(descending=True)
    return F.cross_entropy(net.words(_encoded(net, b[0][:, order], n))[order.argsort()], b[0][0])


def left_to_torch(net: Any, b: Any) -> Tensor:
    packed = pack_padded_sequence(net.embed(b[0]), b[1], enforce_sorted=False)
    return F.cross_entropy(net.words(net.rnn(packed)[1][0][-1]), b[0][0])


def the_last_state_is_the_prediction(net: Any, b: Any) -> Tensor:
    packed = pack_padded_sequence(net.embed(b[0]), b[1], enforce_sorted=False)
    return F.cross_entropy(net.rnn(packed)[1][0][-1], b[0][0])


@pytest.mark.parametrize("step", [put_back, left_to_torch, the_last_state_is_the_prediction])
def test_samples_that_are_put_back_into_their_order_are_served(step: Step) -> None:
    torch.testing.assert_close(*fitted(step, texts((2, 9)), sorted_texts), rtol=1e-4, atol=1e-4)


def put_back_by_numbers(net: Any, b: Any) -> Tensor:
    order = (-b[1]).argsort(stable=True)
    out = net.words(_encoded(net, b[0].index_select(1, order), b[1].take(order)))
    return F.cross_entropy(torch.zeros_like(out).index_copy(0, order, out), b[0][0])


def losses_by_size(net: Any, b: Any) -> Tensor:
    losses = F.cross_entropy(net.words(net.embed(b[0][0])), b[0][0], reduction="none")
    net.hardest = losses.detach().topk(len(losses)).indices
    return losses.mean()


@pytest.mark.parametrize("step", [put_back, put_back_by_numbers, losses_by_size])
def test_an_order_that_shows_in_the_first_batch_is_not_looked_for_in_others(step: Step) -> None:
    batches: list[int] = []

    def counted(net: Any, b: Any) -> Tensor:
        batches.append(net.trainer.fit_loop.batch_idx)
        return step(net, b)

    fitted(counted, texts((2, 9)), sorted_texts)
    assert [batches.count(i) for i in range(1, N // B - 1)] == [1] * (N // B - 2)


def sorted_by_numpy(net: Any, b: Any) -> Tensor:
    order = np.argsort(-b[1].numpy(), kind="stable").copy()
    return F.cross_entropy(net.words(_encoded(net, b[0][:, order], b[1][order])), b[0][0, order])


def sorted_by_python(net: Any, b: Any) -> Tensor:
    order = sorted(range(len(b[1])), key=lambda i: -int(b[1][i]))
    return F.cross_entropy(net.words(_encoded(net, b[0][:, order], b[1][order])), b[0][0, order])


def grouped_by_a_mask(net: Any, b: Any) -> Tensor:
    """As two domains are that have layers of their own."""
    long, y = b[1] > 5, b[0][0]
    parts = [net.words(net.embed(y[long])), net.heads[0](net.embed(y[~long]))]
    return F.cross_entropy(torch.cat(parts), torch.cat([y[long], y[~long]]))


def one_after_the_other_by_length(net: Any, b: Any) -> Tensor:
    y = b[0][0]
    order = sorted(range(len(y)), key=lambda i: -int(b[1][i]))
    return torch.stack([F.cross_entropy(net.words(net.embed(y[i : i + 1])), y[i : i + 1]) for i in order]).mean()


SORTED = [sorted_inside, sorted_losses, sorted_by_numpy, sorted_by_python, grouped_by_a_mask]


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_in_an_order_of_its_own_is_refused(seed: int) -> None:
    data = texts((2, 9))
    data = [data[i] for i in torch.randperm(N, generator=torch.Generator().manual_seed(seed))]
    with pytest.raises(CaptureError, match="reorders the samples of a batch"):
        fitted(one_after_the_other_by_length, data, sorted_texts, shuffle=False)


@pytest.mark.parametrize("step", SORTED)
@pytest.mark.parametrize("first", ["ragged", "equal", "falling", "rising"])
def test_samples_in_an_order_of_the_steps_own_are_refused(step: Step, first: str) -> None:
    data = texts((2, 9))
    if first == "equal":
        data = texts((5, 6), B) + data[B:]
    elif first in ("falling", "rising"):
        data = sorted(data[:B], key=len, reverse=first == "falling") + data[B:]
    with pytest.raises(CaptureError, match="reorders the samples of a batch"):
        fitted(step, data, sorted_texts, shuffle=False)


@pytest.mark.parametrize("step", [sorted_inside, sorted_by_python])
def test_an_order_that_a_head_of_zeros_hides_shows_once_it_has_learnt(step: Step) -> None:
    module = Fixed(step)
    nn.init.zeros_(module.words.weight)
    nn.init.zeros_(module.words.bias)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.5)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[InfoBatch(prune_ratio=0.5)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(CaptureError, match="reorders the samples of a batch"):
        trainer.fit(module, DataLoader(texts((2, 9)), B, collate_fn=sorted_texts))


def sorted_list(net: Any, b: list[Tensor]) -> Tensor:
    y = torch.stack([text[0] for text in sorted(b, key=len)])
    return F.cross_entropy(net.words(net.embed(y)), y)


def sorted_numbers(net: Any, b: tuple[Tensor, list[int]]) -> Tensor:
    y = torch.stack([b[0][0, i] for i in sorted(range(len(b[1])), key=lambda i: b[1][i])])
    return F.cross_entropy(net.words(net.embed(y)), y)


@pytest.mark.parametrize(
    ("step", "collate"),
    [(sorted_list, list), (sorted_numbers, lambda samples: (pad_sequence(samples), [len(one) for one in samples]))],
    ids=["a list", "numbers"],
)
@pytest.mark.parametrize("n_even", [0, B - 1, B, 3 * B], ids=["none", "all but one", "a batch", "three batches"])
def test_samples_that_python_sorts_are_refused_once_they_are_of_several_lengths(
    step: Step, collate: Any, n_even: int
) -> None:
    data = [text[:2] for text in texts((2, 9), n_even)] + texts((5, 9), 1) + texts((3, 9), N - 1 - n_even)
    with pytest.raises(CaptureError, match="reorders the samples of a batch"):
        fitted(step, data, collate, shuffle=False)
    right: Step = lambda net, b: step(net, b if step is sorted_list else (b[0], [0] * len(b[1])))  # noqa: E731
    even = [text[:2] for text in data]
    torch.testing.assert_close(*fitted(right, even, collate, shuffle=False), rtol=1e-4, atol=1e-4)


def test_one_more_look_is_taken_once_samples_are_of_several_lengths() -> None:
    seen: list[bool] = []

    def step(net: Any, b: list[Tensor]) -> Tensor:
        seen.append(net.training)
        y = torch.stack([text[0] for text in b])
        return F.cross_entropy(net.words(net.embed(y)), y)

    torch.testing.assert_close(*fitted(step, texts((5, 6), 2 * B) + texts((2, 9), N - 2 * B), list, shuffle=False))
    looks = [False] * 6
    assert seen[: 12 + N // B] == [*looks, True, True, *looks, True, True, True]


# ---- samples that the model's outputs leave out ----------------------------------------------------------------------


def of_texts(net: Any, b: Any) -> Tensor:
    """One loss a text, that of its first token."""
    return F.cross_entropy(net.words(net.embed(b["x"][:, 0])), b["y"][:, 0], reduction="none")


def hard_times(share: float) -> Step:
    def step(net: Any, b: Any) -> Tensor:
        losses = of_texts(net, b)
        is_hard = torch.zeros_like(losses)
        is_hard[losses.detach().topk(math.ceil(share * len(losses))).indices] = 1
        return (losses * is_hard).sum() / is_hard.sum()

    return step


def above_a_share_of_the_mean(net: Any, b: Any) -> Tensor:
    losses = of_texts(net, b)
    return losses.masked_fill(losses.detach() < 0.9 * losses.detach().mean(), 0).mean()


def hardest_tokens(net: Any, b: Any) -> Tensor:
    losses = F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"], reduction="none")
    least = losses.detach().flatten().kthvalue(losses.numel() // 2).values
    return (losses * (losses > least)).sum() / (losses > least).sum()


@pytest.mark.parametrize(
    "step",
    # of three samples, the step that keeps seven tenths leaves none out
    [hard_times(0.5), hard_times(0.7), above_a_share_of_the_mean, hardest_tokens],
    ids=["half", "seven tenths", "above a share of the mean", "tokens"],
)
def test_steps_that_multiply_all_but_the_hardest_by_zero_are_refused(step: Step) -> None:
    with pytest.raises(CaptureError, match="selects rows of the batch by the model's outputs"):
        fitted(step, texts((2, 9)), padded)


def focal(net: Any, b: Any) -> Tensor:
    losses = of_texts(net, b)
    return ((1 - (-losses.detach()).exp()) ** 2 * losses).mean()


def where_the_model_is_unsure(net: Any, b: Any) -> Tensor:
    losses = of_texts(net, b)
    return (losses * (losses.detach() > math.log(V))).mean()


def test_a_look_for_what_is_left_out_stays_within_three_passes_of_the_first_batch() -> None:
    seen: list[tuple[int, bool]] = []

    def step(net: Any, b: Any) -> Tensor:
        seen.append((len(b["x"]), net.training))
        return focal(net, b)

    fitted(step, texts((2, 9)), padded)
    looks = [size for size, trains in seen[: [trains for _, trains in seen].index(True)]]
    assert B in looks and sum(looks) <= 3 * B


@pytest.mark.parametrize("step", [focal, where_the_model_is_unsure])
def test_what_a_samples_own_output_decides_is_served(step: Step) -> None:
    losses, alone = fitted(step, texts((2, 9)), padded)
    torch.testing.assert_close(losses, alone, rtol=1e-4, atol=1e-4)
    assert losses.unique().numel() > 2


# ---- rows of several samples, one after the other --------------------------------------------------------------------


def pieces_in_one_row(net: Any, b: Any) -> Tensor:
    own = [(x[y != -100], y[y != -100]) for x, y in zip(b["x"], b["y"], strict=True)]
    return F.cross_entropy(torch.cat([net.words(net.embed(x)) for x, _ in own]), torch.cat([y for _, y in own]))


def pieces_in_one_row_by_their_number(net: Any, b: Any) -> Tensor:
    own = [net.words(net.embed(y[y != -100])) for y in b["y"]]
    y = torch.cat([y[y != -100] for y in b["y"]])
    return F.cross_entropy(torch.cat(own), y, reduction="sum") / len(y)


def of_their_own_rows(net: Any, x: Tensor) -> Tensor:
    return F.cross_entropy(net.words(net.embed(x)), x, reduction="sum")


def one_row_of_data(net: Any, b: Any) -> Tensor:
    return of_their_own_rows(net, torch.cat([x[y != -100] for x, y in zip(b["x"], b["y"], strict=True)])) / b["n"]


def packed(net: Any, b: Any) -> Tensor:
    lengths = (b["y"] != -100).sum(1)
    out, _ = net.rnn(pack_padded_sequence(net.embed(b["x"]), lengths, batch_first=True, enforce_sorted=False))
    targets = pack_padded_sequence(b["x"], lengths, batch_first=True, enforce_sorted=False)
    return F.cross_entropy(net.words(out.data), targets.data)


def pairs(net: Any, b: Any) -> Tensor:
    own = [torch.arange(int(n)) for n in (b["y"] != -100).sum(1).clamp(max=4)]
    of = torch.cat([torch.full_like(places, i) for i, places in enumerate(own)])
    queries = net.words(net.embed(b["x"][:, 0])).unflatten(0, (-1, 1)).repeat(1, 4, 1) * torch.arange(1, 5)[:, None]
    return (queries[of, torch.cat(own)] - 1).abs().sum() / len(of)


@pytest.mark.parametrize("first", ["ragged", "equal"])
@pytest.mark.parametrize("step", [pieces_in_one_row, pieces_in_one_row_by_their_number, one_row_of_data, packed, pairs])
def test_pieces_of_each_sample_are_followed_into_one_row(step: Step, first: str) -> None:
    data = texts((2, 9)) if first == "ragged" else texts((4, 5), B) + texts((2, 9), N - B)
    torch.testing.assert_close(*fitted(step, data, padded, shuffle=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", ["ragged", "equal"])
def test_samples_alone_that_have_fewer_pieces_than_others_show_the_divisor_all_the_same(first: str) -> None:
    """As boxes of images: no single sample need have as many as the one with the most."""

    def step(net: Any, b: list[Tensor]) -> Tensor:
        rows = torch.cat([net.heads[0](net.embed(x)) for x in b])
        targets = torch.cat([F.one_hot(x, V) for x in b])
        return (rows - targets).abs().sum() / len(rows)

    data = texts((1, 4)) if first == "ragged" else texts((3, 4), 1) + texts((1, 2), B - 1) + texts((1, 4), N - B)
    torch.testing.assert_close(*fitted(step, data, list, shuffle=False), rtol=1e-4, atol=1e-4)


class OneRow:
    """As the batches of torch_geometric are."""

    def __init__(self, samples: list[Tensor]) -> None:
        self.x = torch.cat(samples)

    def to(self, device: Any) -> "OneRow":
        return self


def one_row(net: Any, b: OneRow) -> Tensor:
    return F.cross_entropy(net.words(net.embed(b.x)), b.x)


@pytest.mark.parametrize("later", [texts((2, 9), N - B), [*texts((2, 3), 1), *texts((6, 7), 1), *texts((4, 5), B - 2)]])
@pytest.mark.parametrize("collate", [OneRow, torch.cat], ids=["an object", "a tensor"])
def test_rows_that_single_samples_show_by_chance_are_refused(collate: Any, later: list[Tensor]) -> None:
    """All texts of the first batch are equally long, later ones are not, even where their rows would go round."""
    step: Step = one_row if collate is OneRow else lambda net, x: F.cross_entropy(net.words(net.embed(x)), x)
    data = texts((4, 5), B) + later
    with pytest.raises(CaptureError, match="nothing shows which rows belong to which sample"):
        fitted(step, data, collate, shuffle=False)


def by_their_numbers(net: Any, b: Any) -> Tensor:
    x = b["x"].flatten()[(b["y"] != -100).flatten().nonzero().squeeze(1)]
    return of_their_own_rows(net, x) / len(x)


@pytest.mark.parametrize("sees_sizes", [True, False], ids=["at once", "as on a GPU"])
def test_rows_that_several_batches_show_by_chance_are_refused_once_one_has_more(
    sees_sizes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All texts of the first batches are equally long; of a later one there are as many rows as if all had five."""
    if not sees_sizes:
        monkeypatch.setattr("lightning_dataselect.data.sample_sizes.SampleSizes.differ_anew", lambda *given: False)
    unlike = [x for n in (2, 8, 3, 7, 4, 6, 5, 5) for x in texts((n, n + 1), 1)]
    with pytest.raises(CaptureError, match="some samples have more rows than others"):
        fitted(by_their_numbers, texts((8, 9), 2 * B) + unlike + texts((2, 9), N - 3 * B), padded, shuffle=False)


def test_the_turns_of_a_loop_that_are_divided_by_all_their_rows_are_refused_once_these_are_unlike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning_dataselect.data.sample_sizes.SampleSizes.differ_anew", lambda *given: False)

    def step(net: Any, b: list[Tensor]) -> Tensor:
        return torch.stack([of_their_own_rows(net, x) for x in b]).sum() / sum(map(len, b))

    with pytest.raises(CaptureError, match="counted outside of torch"):
        fitted(step, texts((4, 5), 2 * B) + texts((2, 9), N - 2 * B), list, shuffle=False)


def without_bad_ones(net: Any, b: Any) -> Tensor | None:
    x = b["x"][b["y"][:, 0] != 1]
    return F.cross_entropy(net.words(net.embed(x)).flatten(0, 1), x.flatten()) if len(x) else None


def test_a_batch_that_a_mask_leaves_samples_out_of_is_not_measured() -> None:
    """Of 8 texts of 8 tokens 4 are left: as many rows as 8 texts of 4 tokens have."""
    data = [x.index_fill(0, torch.tensor([0]), 2) for x in texts((8, 9))]
    for i in range(3 * B, 3 * B + 4):
        data[i][0] = 1
    with pytest.warns(UserWarning, match="masks out some samples of its batch before the model sees them"):
        losses, _ = fitted(without_bad_ones_or_nothing, data, padded, shuffle=False)
    alone = torch.stack([without_bad_ones_or_nothing(Fixed(without_bad_ones), padded([x])).detach() for x in data])
    known = torch.arange(N) // B != 3
    torch.testing.assert_close(losses[known], alone[known], rtol=1e-4, atol=1e-4)
    assert losses[~known].isnan().all()


def without_bad_ones_or_nothing(net: Any, b: Any) -> Tensor:
    loss = without_bad_ones(net, b)
    return torch.zeros((), requires_grad=True) if loss is None else loss


# ---- a batch that holds nothing to learn -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nothing",
    [
        lambda net: torch.zeros((), requires_grad=True),
        lambda net: 0.0 * sum(p.sum() for p in net.parameters()),
        lambda net: net.words(net.embed.weight[:0]).sum(),
    ],
    ids=["a number", "the parameters times 0", "a sum of nothing"],
)
def test_a_first_batch_of_nothing_to_learn_is_not_measured(nothing: Callable[[Any], Tensor]) -> None:
    def step(net: Any, b: Any) -> Tensor:
        return (
            nothing(net) if (b["y"] == 1).all() else F.cross_entropy(net.words(net.embed(b["x"][:, 0])), b["x"][:, 0])
        )

    data = [torch.ones(8, dtype=torch.long) for _ in range(B)] + [x + 1 for x in texts((2, 9), N - B)]
    data = [x.clamp(max=V - 1) for x in data]
    losses, alone = fitted(step, data, padded, shuffle=False)
    torch.testing.assert_close(losses[B:], alone[B:], rtol=1e-4, atol=1e-4)


def test_a_step_that_never_learns_anything_is_refused() -> None:
    with pytest.raises(CaptureError, match="No loss was found for each"):
        fitted(lambda net, b: 0.0 * sum(p.sum() for p in net.parameters()), texts((2, 9), 10 * B), padded)


@pytest.mark.parametrize("n_classes", [3, 4])
def test_a_mean_over_the_classes_that_are_there_is_refused(n_classes: int) -> None:
    def step(net: Any, b: Any) -> Tensor:
        y = b["x"][:, 0] % n_classes
        losses = F.cross_entropy(net.words(net.embed(b["x"][:, 1])), y, reduction="none")
        return torch.stack([losses[y == c].mean() for c in y.unique()]).mean()

    with pytest.raises(CaptureError, match="a mean over groups of samples"):
        fitted(step, texts((2, 9)), padded)


def test_a_quotient_of_sums_for_each_class_is_refused_for_what_it_is() -> None:
    """As a Dice loss has them, in a loop over the classes: no other divisor would mend it."""

    def step(net: Any, b: Any) -> Tensor:
        shares = net.words(net.embed(b["x"])).softmax(-1)
        losses = []
        for word in range(3):
            is_word = (b["x"] == word).float()
            both, all_ = (shares[..., word] * is_word).sum(), shares[..., word].sum() + is_word.sum()
            losses.append(1 - (2 * both + 1) / (all_ + 1))
        return sum(losses) / len(losses)

    def stacked(net: Any, b: Any) -> Tensor:
        shares = net.words(net.embed(b["x"])).softmax(-1)
        losses = []
        for word in range(3):
            is_word = (b["x"] == word).float()
            losses.append(1 - 2 * (shares[..., word] * is_word).sum() / (shares[..., word].square().sum() + 1))
        return torch.stack(losses).mean()

    for each in (step, stacked):
        with pytest.raises(CaptureError, match="a quotient or product"):
            fitted(each, texts((2, 9)), padded)

    def beside_a_mean(net: Any, b: Any) -> Tensor:
        return total(net, b) / present(b).sum() + 0.5 * stacked(net, b)

    data = texts((2, 9))
    with pytest.warns(UserWarning, match="the per-sample losses are made of that"):
        losses, _ = fitted(beside_a_mean, data, padded)
    _, right = fitted(lambda net, b: total(net, b) / present(b).sum(), data, padded)
    torch.testing.assert_close(losses, right, rtol=1e-4, atol=1e-4)


# ---- what a witness must not do --------------------------------------------------------------------------------------


def test_a_look_at_a_step_that_writes_to_its_parameters_leaves_them_as_they_are() -> None:
    def step(net: Any, b: Any) -> Tensor:
        with torch.no_grad():
            net.heads[0].weight.mul_(0.5)
        return F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"])

    module, selector = Fixed(step), InfoBatch(prune_ratio=0.5)
    before = module.heads[0].weight.detach().clone()
    trainer = L.Trainer(
        max_epochs=1, callbacks=[selector], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, DataLoader(texts((2, 9)), B, collate_fn=padded))
    torch.testing.assert_close(module.heads[0].weight, before * 0.5 ** (N // B))
    assert selector.losses.isfinite().all()


def test_a_metric_that_is_the_same_for_all_samples_calls_for_no_second_look() -> None:
    seen: list[bool] = []

    def step(net: Any, b: Any) -> Tensor:
        seen.append(net.training)
        (b["x"][:, 0] >= 0).float().mean()
        return F.cross_entropy(net.words(net.embed(b["x"])).transpose(1, 2), b["y"])

    fitted(step, texts((2, 9)), padded)
    looks = seen.index(True)
    assert all(seen[looks : looks + N // B])


def counted_with_a_question(net: Any, b: Any) -> Tensor:
    loss = COUNTS["python"](net, b)
    return loss if len(b["x"].unique()) < 1000 else loss * 0


@pytest.mark.parametrize("step", [COUNTS["python"], counted_with_a_question])
def test_a_look_costs_no_more_than_three_passes_of_the_first_batch(step: Any) -> None:
    seen: list[tuple[bool, int]] = []

    def noted(net: Any, b: Any) -> Tensor:
        seen.append((net.training, len(b["x"])))
        return step(net, b)

    fitted(noted, texts((2, 9)), padded)
    looks = seen[: seen.index((True, B))]
    assert sum(size for _, size in looks) <= 3 * B and (False, B) in looks
    assert seen[len(looks) : len(looks) + N // B] == [(True, B)] * (N // B)


# ---- what the first batches do not show ------------------------------------------------------------------------------


def readings(n_whole: int) -> list[Tensor]:
    """Rows of sensors, of which some are missing but in the first ones."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(N, 8, generator=g)
    rows[torch.rand(N, 8, generator=g) < 0.4] = torch.nan
    rows[:n_whole], rows[:, 0] = 1.5, 0.5
    return list(rows)


def squares(net: Any, b: Tensor) -> tuple[Tensor, Tensor]:
    """Errors, 0 where nothing was measured, and where something was."""
    present = ~b.isnan()
    return (net.heads[0].weight[:8] @ b.nan_to_num().T).T.square() * present, present.float()


def over_share(net: Any, b: Tensor) -> Tensor:
    rows, present = squares(net, b)
    return rows.mean() / float(present.numpy().mean())


def over_share_each(net: Any, b: Tensor) -> Tensor:
    rows, present = squares(net, b)
    return (rows * torch.from_numpy(present.numpy() / present.numpy().mean())).mean()


def over_count_each(net: Any, b: Tensor) -> Tensor:
    rows, present = squares(net, b)
    return (rows / float(present.numpy().sum())).sum()


class Readings(Fixed):
    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.heads = nn.ModuleList([nn.Linear(8, 8, bias=False)])


@pytest.mark.parametrize("n_whole", [0, B, 3 * B], ids=["none", "a batch", "three batches"])
@pytest.mark.parametrize("step", [over_share, over_share_each])
def test_a_share_that_is_the_same_in_the_first_batches_is_noticed_once_it_is_not(
    step: Step, n_whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.Fixed", Readings)
    with pytest.raises(CaptureError, match="divided by a number that was counted outside of torch"):
        fitted(step, readings(n_whole), torch.stack, shuffle=False)
    losses, right = fitted(step, readings(N), torch.stack, shuffle=False)
    torch.testing.assert_close(losses, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_whole", [B, 3 * B], ids=["a batch", "three batches"])
def test_a_share_of_elements_that_shows_in_no_sample_of_the_data_is_noticed_by_what_is_0(
    n_whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.Fixed", Readings)

    def step(net: Any, b: Tensor) -> Tensor:
        present = (b < 2).float()
        rows = (net.heads[0].weight[:8] @ b.T).T.square() * present
        return (rows * torch.from_numpy(present.numpy() / present.numpy().mean())).mean()

    rows = torch.rand(N, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    for i in range(n_whole, N):
        rows[i, : i % 4] = 3.0
    with pytest.raises(CaptureError, match="divided by a number that was counted outside of torch"):
        fitted(step, list(rows), torch.stack, shuffle=False)


def test_what_the_last_batch_of_a_fit_shows_is_not_left_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that are left out show in no number of them, but in what they lose."""
    monkeypatch.setattr(f"{__name__}.Fixed", Readings)

    def step(net: Any, b: Tensor) -> Tensor:
        present = (b < 2).float()
        rows = (net.heads[0].weight[:8] @ b.T).T.square() * present
        return rows.mean() / float(present.numpy().mean())

    g = torch.Generator().manual_seed(0)
    rows = torch.rand(N, 8, generator=g) + 0.5
    rows[-2, :3], rows[-1, 5:7] = 3.0, 2.5
    with pytest.warns(UserWarning, match=f"losses of {N} samples that were measured before are forgotten") as said:
        losses, _ = fitted(step, list(rows), torch.stack, shuffle=False)
    assert losses.isnan().all()
    assert any("counted outside of torch" in str(warning.message) for warning in said)


@pytest.mark.parametrize("n_whole", [0, B, 3 * B], ids=["none", "a batch", "three batches"])
def test_elements_divided_by_a_count_out_of_sight_are_read_as_single_samples_show(
    n_whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.Fixed", Readings)
    losses, right = fitted(over_count_each, readings(n_whole), torch.stack, shuffle=False)
    torch.testing.assert_close(losses[max(n_whole, B) + B :], right[max(n_whole, B) + B :], rtol=1e-4, atol=1e-4)


def test_a_coefficient_that_is_scheduled_calls_for_three_more_looks() -> None:
    seen: list[bool] = []

    def step(net: Any, b: Any) -> Tensor:
        seen.append(net.training)
        net.n_steps = getattr(net, "n_steps", 0) + 1
        return of_texts(net, b).mean() * 1.1**net.n_steps

    net = Fixed(step)
    data = texts((2, 9), 16 * B)
    losses, _ = fitted(step, data, padded, shuffle=False)
    at_first = torch.stack([of_texts(net, padded([x])).detach()[0] for x in data])
    factors = (losses / at_first).view(16, B)
    torch.testing.assert_close(factors, 1.1 ** torch.arange(1.0, 17)[:, None].expand(16, B), rtol=1e-4, atol=0)
    assert seen[: seen.index(True)].count(False) == 6
    assert seen[: seen.index(True) + 16 + 18].count(False) == (1 + 3) * 6
