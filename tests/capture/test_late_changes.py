"""Steps that come to give their loss functions other rows, of the same shape, are noticed: never read as before."""

import re

import pytest
import torch
import torch.nn.functional as F
from late_steps import FIRST_LOOK, LATE, B, C, D, Late, N, by_hand, classes, fit, summed

from lightning_dataselect.capture import LossCapture


def of_floats(model, x, y):
    return F.binary_cross_entropy_with_logits(model(x)[:, 0], (y > 0).float())


def of_rows(index_of, plain=classes):
    """A step on other rows of the batch, samples and targets alike."""

    def step(model, x, y):
        index = index_of(x)
        return plain(model, x[index], y[index])

    return step


def of_outputs(change):
    def step(model, x, y):
        return F.cross_entropy(*change(model(x), y))

    return step


def in_place(model, x, y):
    index = x[:, 0].argsort()
    return classes(model, x.copy_(x[index].clone()), y.copy_(y[index].clone()))


def by_loss(out, y):
    order = F.cross_entropy(out, y, reduction="none").argsort()
    return out[order], y[order]


def against_each_other(model, x, y):
    z = F.normalize(model.body(x), dim=1)
    return F.cross_entropy((z @ z.T)[:, :C], torch.arange(len(x)) % C)


def by_first(x):
    return x[:, 0].argsort()


def drawn(x):
    return torch.randint(len(x), (len(x),))


def cut_off(model, x, y):
    return classes(model, x, y).clamp(max=1.15) + by_hand(model, x, y)


def value_of_another(model, x, y):
    other = (model(x)[:, 0] - y).square().mean()
    return classes(model, x, y) + other - other.detach()


def with_noise(model, x, y):
    out = model(x)
    return F.cross_entropy(out + 0.1 * torch.ones_like(out), y)


def of_frozen_features(model, x, y):
    with torch.no_grad():
        features = model.body(x)
    return F.cross_entropy(model.head(features), y)


def of_copied_targets(model, x, y):
    return classes(model, x, y.clone())


ORDER, MIXED = "reorders the samples", "depends on the other samples"
# kind: the step at first, what becomes of it, what is said of that
IN_SIGHT = {
    "sorted": (classes, of_rows(by_first), ORDER),
    "turned round": (classes, of_rows(lambda x: torch.arange(len(x)).flip(0)), ORDER),
    "shuffled": (classes, of_rows(lambda x: torch.randperm(len(x))), ORDER),
    "drawn with replacement": (classes, of_rows(drawn), "has not shown|samples"),
    "outputs sorted by loss": (classes, of_outputs(by_loss), ORDER),
    "outputs turned round": (classes, of_outputs(lambda out, y: (out.flip(0), y.flip(0))), ORDER),
    "centred": (classes, of_outputs(lambda out, y: (out - out.mean(0), y)), MIXED),
    "contrastive": (classes, against_each_other, MIXED),
}
OUT_OF_SIGHT = {
    "by hand, sorted": (by_hand, of_rows(by_first, by_hand), ORDER),
    "by hand, drawn with replacement": (by_hand, of_rows(drawn, by_hand), "samples"),
    "targets of another type": (of_floats, of_rows(by_first, of_floats), ORDER),
    "in place": (classes, in_place, ORDER),
}
AS_SOUND = {"noise": with_noise, "frozen features": of_frozen_features, "copied targets": of_copied_targets}


def measured(selector) -> int:
    return int(selector.losses.isfinite().sum())


@pytest.mark.parametrize("kind", IN_SIGHT)
@pytest.mark.parametrize("turns", ["once", "in turns"])
def test_other_rows_are_noticed_when_they_come(kind: str, turns: str) -> None:
    plain, other, words = IN_SIGHT[kind]
    is_other = (lambda i: i >= LATE) if turns == "once" else (lambda i: i % 3 == 2)
    _, _, selector, refusal, said = fit(plain, other, is_other)
    assert refusal or "forgotten" in said or measured(selector) <= LATE * B, said
    assert re.search(words, said), said


@pytest.mark.parametrize("kind", OUT_OF_SIGHT)
def test_what_no_step_shows_is_found_when_steps_are_looked_at_again(kind: str) -> None:
    plain, other, words = OUT_OF_SIGHT[kind]
    _, _, _, refusal, said = fit(plain, other, lambda i: i >= FIRST_LOOK - 4, n=(FIRST_LOOK + 2) * B)
    assert re.search(words, refusal), said


@pytest.mark.parametrize("kind", AS_SOUND)
@pytest.mark.parametrize("turns", ["once", "in turns"])
def test_steps_that_change_and_stay_sound_lose_no_measurement(kind: str, turns: str) -> None:
    other = AS_SOUND[kind]
    is_other = (lambda i: i >= LATE) if turns == "once" else (lambda i: i % 3 == 2)
    module, (x, y, which), selector, refusal, said = fit(classes, other, is_other)
    assert not refusal, said
    with torch.no_grad():
        alone = [
            (other if is_other(module.at[i]) else classes)(module, x[i : i + 1], y[i : i + 1]) for i in which.tolist()
        ]
    torch.testing.assert_close(selector.losses, torch.stack(alone))


def test_compiled_models_are_read_on_without_a_pause() -> None:
    """Steps that are looked at run uncompiled, and show another graph."""
    compiled: list = []

    def step(model, x, y):
        if not compiled:
            compiled.append(torch.compile(model.body, backend="aot_eager"))
        return F.cross_entropy(model.head(compiled[0](x)), y)

    module, (x, y, _), selector, refusal, said = fit(step, step, lambda i: False)
    assert not refusal and "forgotten" not in said
    with torch.no_grad():
        torch.testing.assert_close(selector.losses, F.cross_entropy(module(x), y, reduction="none"))


def test_a_mean_that_becomes_a_sum_over_the_samples_is_read_as_one() -> None:
    module, (x, y, which), selector, refusal, said = fit(classes, summed, lambda i: i >= LATE)
    assert not refusal and "forgotten" not in said, said
    seen = selector.losses.isfinite()
    assert seen.sum() >= N - B, said
    with torch.no_grad():
        torch.testing.assert_close(selector.losses[seen], F.cross_entropy(module(x), y, reduction="none")[seen])


def test_a_loss_that_comes_to_be_cut_off_is_refused_for_what_it_is() -> None:
    refusal = fit(classes, cut_off, lambda i: i >= LATE)[3]
    assert "The loss is clipped" in refusal


@pytest.mark.parametrize("first", [0, LATE])
def test_a_value_that_is_taken_from_a_term_again_is_not_left_out_in_silence(first: int) -> None:
    said = fit(classes, value_of_another, lambda i: i >= first)[4]
    assert "has no gradient and differs from sample to sample" in said


@pytest.mark.filterwarnings("ignore:The samples of some batches are not measured")
def test_steps_that_mix_their_samples_in_turns_are_measured_once_at_most_where_no_single_sample_shows_it():
    module = Late(classes, classes, bool)
    x, y = torch.randn(B, D), torch.randint(C, (B,))
    capture = LossCapture(module)

    def loss(is_other):
        out = module(x)[:, 0]
        return F.mse_loss(out + out.flip(0) - 1e-3 * out.mean() if is_other else out, y.float())

    known = []
    for turn in range(14):
        is_other = turn > 2 and turn % 2 == 1
        captured = capture.run(lambda is_other=is_other: loss(is_other), B, batch=(x, y))[1]
        if is_other and captured.known:
            known.append(turn)
        elif is_other and known == [3]:
            assert capture.has_misread(), "what was measured then is forgotten"
            known.append(None)
    assert known == [3, None]
