"""Losses beside other samples are told from those alone: tables as long as a batch, rows drawn, rows mixed."""

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError, LossCapture

N, B, D, H = 61, 8, 6, 12
FIRST_LOOK = 25  # that nothing but time calls for
Step = Callable[[Any, Tensor, Tensor], Tensor]


class Fixed(L.LightningModule):
    """Learns nothing, so that what was seen of a sample holds to the end."""

    def __init__(self, step: Step, n_classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.step, self.n_classes, self.n_steps = step, n_classes, 0
        self.body, self.head = nn.Sequential(nn.Linear(D, H), nn.GELU()), nn.Linear(H, n_classes)
        self.centres = nn.Parameter(torch.randn(n_classes, H))
        self.attention, self.norm = nn.MultiheadAttention(H, 2), nn.BatchNorm1d(H)
        self.register_buffer("margins", torch.rand(n_classes))
        self.class_weights = torch.arange(1.0, n_classes + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        return self.step(self, *batch)

    def on_train_batch_end(self, *_: Any) -> None:
        self.n_steps += 1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def measured(step: Step, n_classes: int = 4, n: int = N) -> tuple[Tensor, Fixed, TensorDataset]:
    """Return what was measured, and on what."""
    g = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(n, D, generator=g), torch.randint(n_classes, (n,), generator=g))
    module, selector = Fixed(step, n_classes), InfoBatch(prune_ratio=0.0)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[selector], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, B, shuffle=True, generator=torch.Generator().manual_seed(2)))
    return selector.losses, module, data


def fitted(step: Step, n_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Return what was measured, and what batches of one lose."""
    losses, module, data = measured(step, n_classes)
    x, y = data.tensors
    return losses, torch.stack([step(module, x[i : i + 1], y[i : i + 1]).detach() for i in range(len(x))])


def refusal(step: Step, **options: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CaptureError) as error:
            measured(step, **options)
    return str(error.value)


# ---- tables as long as a batch ---------------------------------------------------------------------------------------


def by_class_weights(net: Any, x: Tensor, y: Tensor) -> Tensor:
    return (net.class_weights[y] * F.cross_entropy(net(x), y, reduction="none")).mean()


def near_to_centres(net: Any, x: Tensor, y: Tensor) -> Tensor:
    h = net.body(x)
    return F.cross_entropy(net.head(h), y) + 0.1 * (h - net.centres[y]).square().sum(1).mean()


def with_margins(net: Any, x: Tensor, y: Tensor) -> Tensor:
    out = net(x)
    return F.cross_entropy(torch.where(F.one_hot(y, net.n_classes).bool(), out - net.margins[y][:, None], out), y)


def by_plain_weights(net: Any, x: Tensor, y: Tensor) -> Tensor:
    y = (y > 0) * (net.n_classes - 1)  # of three samples, two are of one class
    weights = torch.linspace(0.5, 1.5, net.n_classes)  # no parameter, and no buffer
    return (weights[y] * F.cross_entropy(net(x), y, reduction="none")).mean()


TABLES = [by_class_weights, near_to_centres, with_margins, by_plain_weights]


@pytest.mark.parametrize("step", TABLES, ids=lambda step: step.__name__)
@pytest.mark.parametrize("n_classes", [2, 3, B])  # the witness looks at three samples
def test_a_table_with_as_many_rows_as_a_batch_has_samples_is_none_of_samples(step: Step, n_classes: int) -> None:
    torch.testing.assert_close(*fitted(step, n_classes))


# ---- samples that the step draws from its batch ----------------------------------------------------------------------


def on(index_of: Callable[[Tensor, Tensor], Tensor], *, outputs: bool = False) -> Step:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        index = index_of(x, y)
        return F.cross_entropy(net(x)[index] if outputs else net(x[index]), y[index])

    return step


def balanced(x: Tensor, y: Tensor) -> Tensor:
    weights = 1 / torch.bincount(y)[y].float()
    return weights.multinomial(len(y), replacement=True)


@pytest.mark.parametrize("outputs", [False, True], ids=["before the model", "after it"])
@pytest.mark.parametrize(
    "index_of",
    [
        lambda x, y: torch.randint(len(x), (len(x),)),
        lambda x, y: torch.randperm(len(x))[: (len(x) + 1) // 2],
        lambda x, y: (torch.rand(len(x)) * len(x)).long(),
        balanced,
    ],
    ids=["with replacement", "a half", "by a share", "by classes"],
)
def test_a_step_that_draws_its_samples_is_refused_for_that(index_of: Any, outputs: bool) -> None:
    assert "indexes its batch so that some samples are repeated or left out" in refusal(on(index_of, outputs=outputs))


def test_samples_chosen_by_another_models_losses_are_said_to_be_chosen_by_outputs() -> None:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(net(x), y, reduction="none")
        return losses[F.cross_entropy(net(x + 1), y, reduction="none").argsort()[: (len(x) + 1) // 2]].mean()

    assert "by the model's outputs" in refusal(step)


# ---- rows that the model mixes ---------------------------------------------------------------------------------------


def attending(net: Any, h: Tensor) -> Tensor:
    return h + net.attention(*[h[:, None]] * 3)[0][:, 0]


def by_deviation(net: Any, h: Tensor) -> Tensor:
    return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-3).sqrt()


MIXING: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "attention": attending,
    "mean": lambda net, h: h - h.mean(0),
    "deviation": by_deviation,
    "a deviation that one sample has not": lambda net, h: (h - h.mean(0)) / h.std(0),
    "largest": lambda net, h: h / h.abs().max(),
    "distances": lambda net, h: h + torch.exp(-torch.cdist(h, h)).sum(1, keepdim=True),
}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("kind", MIXING)
def test_what_a_model_makes_of_several_samples_is_refused(kind: str, late: bool) -> None:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        h = net.body(x)
        is_mixed = not late or net.n_steps > 9
        return F.cross_entropy(net.head(net.body[1](MIXING[kind](net, h) if is_mixed else h)), y)

    assert "The model's output for a sample depends on the other samples" in refusal(step, n=(FIRST_LOOK + 2) * B)


def test_layers_far_from_the_loss_are_noticed_as_they_join_in() -> None:
    """Long before steps are looked at again for no reason but time."""
    met: list[int] = []

    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        h = net.body(x)
        if net.n_steps > 9:
            met.append(net.n_steps)
            h = attending(net, h)
        for _ in range(8):
            h = (1.1 * h).tanh() + h
        return F.cross_entropy(net.head(h), y)

    assert "The model's output for a sample" in refusal(step, n=400)
    assert max(met) < FIRST_LOOK - 5


def halved(net: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net.head((net.body(x) + net.body(x).flip(0)) / 2), y)


@pytest.mark.parametrize(
    "step",
    [
        lambda net, x, y: F.cross_entropy(net.head(net.norm(net.body(x))), y),
        lambda net, x, y: F.cross_entropy(net.head(F.batch_norm(net.body(x), None, None, training=True)), y),
        halved,
        lambda net, x, y: F.cross_entropy(net.head(net.body(x) + 0.3 * torch.randn(len(x), H)), y),
    ],
    ids=["batch norm", "its function", "mixed in pairs", "noise"],
)
def test_what_layers_and_augmentations_make_of_a_batch_is_served(step: Step) -> None:
    assert measured(step)[0].isfinite().all()


# ---- outputs and targets of unlike shapes, which are broadcast -------------------------------------------------------


def scores(net: Any, x: Tensor) -> Tensor:
    return net(x)[:, :1]


UNLIKE: dict[str, Step] = {
    "a loss function": lambda net, x, y: F.mse_loss(scores(net, x), x[:, 0]),
    "by hand": lambda net, x, y: (scores(net, x) - x[:, 0]).square().mean(),
    "the targets have an axis more": lambda net, x, y: F.l1_loss(scores(net, x).squeeze(1), x[:, :1]),
    "a label for each distance": lambda net, x, y: (
        (y > 1) * scores(net, x).square() + (y < 2) * F.relu(1 - scores(net, x))
    ).mean(),
    "summed": lambda net, x, y: F.huber_loss(scores(net, x), x[:, 0], reduction="sum") / len(x) ** 2,
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", UNLIKE)
def test_outputs_that_meet_the_targets_of_all_samples_are_refused_with_the_axis_to_take_away(name: str) -> None:
    said = refusal(UNLIKE[name])
    assert "compares each sample with all of them" in said and "outputs.squeeze(1)" in said


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", ["a loss function", "the targets have an axis more", "summed"])
def test_a_loss_function_shows_it_without_single_samples(name: str) -> None:
    x, module = torch.randn(B, D), Fixed(UNLIKE[name])
    with pytest.raises(CaptureError, match="depends on the other samples"):
        LossCapture(module).run(lambda: module.training_step((x, x[:, 0].sign().long())), B)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("length", [3, 4, B])
def test_a_target_for_all_steps_of_a_sample_is_its_own(length: int) -> None:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(scores(net, x) * torch.linspace(0.5, 1.5, length), x[:, :1])

    torch.testing.assert_close(*fitted(step))


# ---- losses that are cut off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut_off",
    [
        lambda loss, other: loss.clamp(max=9.0) + other,
        lambda loss, other: torch.minimum(loss, torch.tensor(9.0)) + other,
        lambda loss, other: 0.5 * (loss - 0.1).clamp(min=0) + 0.1 + other,
        lambda loss, other: 2 * F.relu(loss - 0.1),
    ],
    ids=["above", "by another number", "below", "relu"],
)
def test_a_bound_that_no_batch_has_reached_so_far_is_refused_at_once(
    cut_off: Callable[[Tensor, Tensor], Tensor],
) -> None:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        return cut_off(F.cross_entropy(net(x), y), F.mse_loss(net(x), x[:, :4]))

    assert "The loss is clipped" in refusal(step)


def test_a_bound_next_to_0_that_guards_a_root_is_none() -> None:
    with pytest.warns(UserWarning, match="such as a root or a logarithm"):
        losses, right = fitted(lambda net, x, y: F.mse_loss(net(x), x[:, :4]).clamp(min=1e-8).sqrt())
    torch.testing.assert_close(losses, right.square())


# ---- batches that show nothing ---------------------------------------------------------------------------------------


def test_samples_that_all_lose_nothing_show_nothing() -> None:
    def hardest_pairs(net: Any, x: Tensor, y: Tensor) -> Tensor:
        z = net(x)
        apart, same = torch.cdist(z, z), y[:, None] == y
        return F.relu((apart * same).amax(1) - (apart + 1e5 * same).amin(1) + 0.3).mean()

    assert "depends on the other samples" in refusal(hardest_pairs)


def test_a_step_warns_of_no_batch_that_is_none() -> None:
    def step(net: Any, x: Tensor, y: Tensor) -> Tensor:
        if len(x) < N % B:
            warnings.warn("there are few samples", stacklevel=2)
        return F.cross_entropy(net(x), y)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="there are few samples")
        assert measured(step)[0].isfinite().all()
    with pytest.warns(UserWarning, match="there are few samples"):
        measured(step, n=B + 1)


def test_weights_that_are_0_for_a_sample_alone_leave_nothing_out() -> None:
    def clipped_advantages(net: Any, x: Tensor, y: Tensor) -> Tensor:
        logs = -F.cross_entropy(net(x), y, reduction="none")
        ratio, gain = (logs - 1.1 * logs.detach()).exp(), x[:, 0] - x[:, 0].mean()
        return -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()

    assert measured(clipped_advantages)[0].isfinite().all()
