"""Steps that optimize by themselves: what each sample loses is what a batch of it alone back-propagates."""

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

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

N, B, V = 24, 8, 11
ORDER = "reorders the samples of a batch"
SCALE = "by a number that is not a sum over the samples"


class Module(L.LightningModule):
    """A step of its own on weights that do not change, so that what was seen of a sample holds to the end."""

    def __init__(self, step: Callable[[Any, Any, int], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.automatic_optimization, self.step = False, step
        self.embed, self.rnn, self.words = nn.Embedding(V, 16), nn.LSTM(16, 16), nn.Linear(16, V)
        self.generator, self.critic, self.average = nn.Linear(16, 16), nn.Linear(16, 1), nn.Linear(16, V)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.step(self, batch, batch_idx)

    def configure_optimizers(self) -> Any:
        parts = [(self.embed, self.rnn, self.words, self.generator), (self.critic,)]
        made = [torch.optim.SGD([p for m in part for p in m.parameters()], lr=0.0, momentum=0.9) for part in parts]
        return made, [torch.optim.lr_scheduler.StepLR(one, 1) for one in made]


class Reference(Module):
    """Writes down what it back-propagates, or else returns, on batches of one."""

    def __init__(self, step: Callable[[Any, Any, int], Any]) -> None:
        super().__init__(step)
        self.roots: list[float] = []
        self.losses: list[float] = []

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.roots.append(loss.item())
        super().manual_backward(loss, *args, **kwargs)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.roots = []
        out = super().training_step(batch, batch_idx)
        self.losses.append(sum(self.roots) if self.roots else out.item())


def texts(n: int = N) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randint(1, V, (int(torch.randint(2, 9, (1,), generator=g)),), generator=g) for _ in range(n)]


def padded(samples: list[Tensor]) -> dict[str, Any]:
    lengths = torch.tensor([len(sample) for sample in samples])
    x, y = pad_sequence(samples, True), pad_sequence(samples, True, -100)
    return {"x": x, "y": y, "first": x[:, 0], "length": lengths, "n": sum(map(len, samples))}


def fitted(step: Callable[[Any, Any, int], Any]) -> tuple[Tensor, Tensor]:
    """The losses of an epoch in double precision, and those of batches of one."""
    selector, alone = InfoBatch(prune_ratio=0.5), Reference(step)
    for module, size, callbacks in ((alone, 1, []), (Module(step), B, [selector])):
        trainer = L.Trainer(
            max_epochs=1, callbacks=callbacks, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", precision="64-true",
        )  # fmt: skip
        trainer.fit(module, DataLoader(texts(), size, collate_fn=padded))
    return selector.losses, torch.tensor(alone.losses)


def first_tokens(net: Any, b: Any, order: Any = slice(None)) -> Tensor:
    y = b["first"][order]
    return F.cross_entropy(net.words(net.embed(y)), y)


def each_first_token(net: Any, b: Any) -> Tensor:
    return F.cross_entropy(net.words(net.embed(b["first"])), b["first"], reduction="none")


def all_tokens(net: Any, b: Any) -> Tensor:
    return F.cross_entropy(net.words(net.embed(b["x"])).flatten(0, 1), b["y"].flatten(), reduction="sum")


def train(net: Any, *losses: Tensor) -> None:
    optimizer, _ = net.optimizers()
    optimizer.zero_grad()
    for loss in losses:
        net.manual_backward(loss, retain_graph=len(losses) > 1)
    optimizer.step()


def adversarial(
    net: Any,
    b: Any,
    *,
    reduced: Callable[[Tensor], Tensor] = lambda losses: losses.mean(),
    prepared: Callable[[Tensor], Tensor] = lambda x: x,
    way: str = "plain",
) -> None:
    real = prepared(net.embed(b["first"]).detach())

    def of_generator() -> Tensor:
        return reduced(F.softplus(-net.critic(net.generator(real))))

    def of_critic() -> Tensor:
        fake = net.generator(real).detach()
        return reduced(F.softplus(net.critic(fake))) + reduced(F.softplus(-net.critic(real)))

    for optimizer, loss_of in zip(net.optimizers(), (of_generator, of_critic), strict=True):

        def closure(optimizer: Any = optimizer, loss_of: Callable[[], Tensor] = loss_of) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of()
            net.manual_backward(loss)
            return loss

        if way == "closures":
            with optimizer.toggle_model():
                optimizer.step(closure)
        elif way == "toggled by hand":
            net.toggle_optimizer(optimizer)
            closure()
            net.clip_gradients(optimizer, 0.5, "norm")
            optimizer.step()
            net.untoggle_optimizer(optimizer)
        else:
            closure()
            optimizer.step()


def packed(net: Any, b: Any, order: Tensor) -> Tensor:
    x = net.embed(b["x"][order]).transpose(0, 1)
    return net.words(net.rnn(pack_padded_sequence(x, b["length"][order]))[1][0][-1])


def put_back(net: Any, b: Any, i: int) -> None:
    order = b["length"].argsort(descending=True)
    train(net, F.cross_entropy(packed(net, b, order)[order.argsort()], b["first"]))


def accumulated(net: Any, i: int, loss: Tensor) -> None:
    optimizer, _ = net.optimizers()
    net.manual_backward(loss / 4)
    if (i + 1) % 4 == 0:
        optimizer.step()
        optimizer.zero_grad()


def with_clipped_weights(net: Any, b: Any, **options: Any) -> None:
    adversarial(net, b, **options)
    for weight in net.critic.parameters():
        weight.data.clamp_(-9, 9)


def two_views_of_one(net: Any, b: Any, i: int) -> None:
    logits = net.words(net.embed(b["first"]))
    train(net, F.cross_entropy(logits, b["first"]), 0.1 * logits.square().mean())


def with_rates_by_hand(net: Any, loss: Tensor) -> None:
    train(net, loss)
    net.lr_schedulers()[0].step()
    net.optimizers()[0].param_groups[0]["weight_decay"] = 0.0


def after_an_attack(net: Any, b: Any, order: Any) -> None:
    y = b["first"][order]
    x = net.embed(y).detach().requires_grad_()
    F.cross_entropy(net.words(x), y).backward()
    train(net, F.cross_entropy(net.words(x.detach() + 0.01 * x.grad.sign()), y))


def without_manual_backward(net: Any, loss: Tensor) -> Tensor:
    optimizer, _ = net.optimizers()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


RIGHT: dict[str, Callable[[Any, Any, int], Any]] = {
    "a mean": lambda net, b, i: train(net, first_tokens(net, b)),
    "a sum": lambda net, b, i: train(net, all_tokens(net, b)),
    "a sum over the samples": lambda net, b, i: train(net, all_tokens(net, b) / len(b["x"])),
    "a sum over tokens that the collate function counts": lambda net, b, i: train(net, all_tokens(net, b) / b["n"]),
    "a sum over tokens": lambda net, b, i: train(net, all_tokens(net, b) / (b["y"] != -100).sum()),
    "put back after packing": put_back,
    "gradients accumulated by hand": lambda net, b, i: accumulated(net, i, first_tokens(net, b)),
    "accumulated sums over tokens": lambda net, b, i: accumulated(net, i, all_tokens(net, b) / b["n"]),
    "two optimizers": lambda net, b, i: adversarial(net, b),
    "closures": lambda net, b, i: adversarial(net, b, way="closures"),
    "toggled and clipped": lambda net, b, i: adversarial(net, b, way="toggled by hand"),
    "sums over the samples of two optimizers": lambda net, b, i: adversarial(
        net, b, reduced=lambda losses: losses.sum() / len(losses)
    ),
    "clipped weights": lambda net, b, i: with_clipped_weights(net, b),
    "two losses of one pass": two_views_of_one,
    "a scheduler by hand": lambda net, b, i: with_rates_by_hand(net, first_tokens(net, b)),
    "an attack before": lambda net, b, i: after_an_attack(net, b, slice(None)),
    "a loss that is returned": lambda net, b, i: without_manual_backward(net, first_tokens(net, b)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_losses_are_those_of_batches_of_one(name: str) -> None:
    torch.testing.assert_close(*fitted(RIGHT[name]), rtol=1e-5, atol=1e-6)


def by_length(b: Any) -> Tensor:
    return b["length"].argsort(descending=True)


def packed_in_order(net: Any, b: Any, i: int) -> None:
    order = by_length(b)
    train(net, F.cross_entropy(packed(net, b, order), b["first"][order]))


def with_the_norm_logged(net: Any, b: Any, i: int) -> None:
    train(net, first_tokens(net, b, by_length(b)))
    net.log("norm", sum(weight.grad.norm() for weight in net.words.parameters()))


def with_an_average_of_weights(net: Any, b: Any, i: int) -> None:
    train(net, first_tokens(net, b, by_length(b)))
    with torch.no_grad():
        for average, weight in zip(net.average.parameters(), net.words.parameters(), strict=True):
            average.mul_(0.9).add_(weight, alpha=0.1)


def updated_by_hand(net: Any, b: Any, i: int) -> None:
    net.zero_grad()
    net.manual_backward(first_tokens(net, b, by_length(b)))
    with torch.no_grad():
        for weight in net.words.parameters():
            weight -= 0.0 * weight.grad


def one_closure_for_several_passes(net: Any, b: Any, i: int) -> None:
    optimizer, _ = net.optimizers()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = first_tokens(net, b, by_length(b))
        net.manual_backward(loss)
        return loss

    closure()
    optimizer.step(closure)


def through_the_trainer(net: Any, b: Any, i: int) -> None:
    optimizer = net.trainer.optimizers[0]
    optimizer.zero_grad()
    net.manual_backward(each_first_token(net, b).sum() / len(b["x"]) ** 0.5)
    optimizer.step()


def sorted_rows(x: Tensor) -> Tensor:
    return x[x[:, 0].argsort()]


REFUSED: dict[str, tuple[str, Callable[[Any, Any, int], Any]]] = {
    "sorted by torch": (ORDER, lambda net, b, i: train(net, first_tokens(net, b, by_length(b)))),
    "sorted by NumPy": (
        ORDER,
        lambda net, b, i: train(net, first_tokens(net, b, np.argsort(-b["length"].numpy(), kind="stable").copy())),
    ),
    "sorted by Python": (
        ORDER,
        lambda net, b, i: train(
            net, first_tokens(net, b, sorted(range(len(b["x"])), key=lambda j: -int(b["length"][j])))
        ),
    ),
    "packed": (ORDER, packed_in_order),
    "accumulated": (ORDER, lambda net, b, i: accumulated(net, i, first_tokens(net, b, by_length(b)))),
    "two optimizers": (ORDER, lambda net, b, i: adversarial(net, b, prepared=sorted_rows, way="toggled by hand")),
    "clipped weights": (ORDER, lambda net, b, i: with_clipped_weights(net, b, prepared=sorted_rows)),
    "one of two losses": (
        ORDER,
        lambda net, b, i: train(
            net, first_tokens(net, b), net.words(net.embed(b["first"][by_length(b)])).square().mean()
        ),
    ),
    "a norm that is logged": (ORDER, with_the_norm_logged),
    "an average of weights": (ORDER, with_an_average_of_weights),
    "weights updated by hand": (ORDER, updated_by_hand),
    "several passes": (ORDER, one_closure_for_several_passes),
    "an attack before": (ORDER, lambda net, b, i: after_an_attack(net, b, by_length(b))),
    "a loss that is returned": (
        ORDER,
        lambda net, b, i: without_manual_backward(net, first_tokens(net, b, by_length(b))),
    ),
    "the root of the samples": (
        SCALE,
        lambda net, b, i: train(net, each_first_token(net, b).sum() / len(b["x"]) ** 0.5),
    ),
    "the root of the tokens": (SCALE, lambda net, b, i: train(net, all_tokens(net, b) / math.sqrt(b["n"]))),
    "a count and 1": (SCALE, lambda net, b, i: train(net, all_tokens(net, b) / (b["n"] + 1))),
    "the longest": (SCALE, lambda net, b, i: train(net, all_tokens(net, b) / (b["length"].max() * len(b["x"])))),
    "roots of two optimizers": (
        SCALE,
        lambda net, b, i: adversarial(net, b, reduced=lambda losses: losses.sum() / len(losses) ** 0.5, way="closures"),
    ),
    "a root and a scheduler": (
        SCALE,
        lambda net, b, i: with_rates_by_hand(net, each_first_token(net, b).sum() / math.sqrt(len(b["x"]))),
    ),
    "the Trainer's own optimizer": (SCALE, through_the_trainer),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_order_or_a_scale_of_the_steps_own_is_refused(name: str) -> None:
    words, step = REFUSED[name]
    with pytest.raises(CaptureError, match=words):
        fitted(step)


def test_a_loss_that_is_made_of_several_and_back_propagated_before_it_is_returned_is_refused() -> None:
    step = lambda net, b, i: without_manual_backward(net, first_tokens(net, b) * all_tokens(net, b).sigmoid())  # noqa: E731
    with pytest.raises(CaptureError, match=r"call self.manual_backward\(loss\) in place of loss.backward\(\)"):
        fitted(step)


def test_a_step_that_cannot_be_rehearsed_is_read_by_the_algebra_alone() -> None:
    def step(net: Any, b: Any, i: int) -> None:
        assert len(b["x"]) in (1, B) and net.training
        train(net, first_tokens(net, b))

    torch.testing.assert_close(*fitted(step), rtol=1e-5, atol=1e-6)
