"""Whatever a fit's batches hold, what a sample loses is what a batch of it alone loses, or it is not silent."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from capture_steps import STEPS, B, Batch, Net, T, V, alone, cut, make_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_dataselect.capture import CaptureError, LossCapture
from lightning_dataselect.step.witness import Witness

Step = Callable[[Net, Batch], Tensor]


# boxes of all images in one row, as many of each in the first batch: rows of equal length and rows of any length that
# happen to be equal look alike
MAY_BE_REFUSED = {"detector_in_one_row"}


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()


@st.composite
def batches(draw: st.DrawFn) -> Callable[[Net], Batch]:
    """A batch of one to eight samples: all right, all wrong, all the same, with counts of every kind."""
    size, seed = draw(st.sampled_from([1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 8, 8])), draw(st.integers(0, 9))
    labels = draw(st.sampled_from(["as they come", "as they come", "right", "wrong", "equal"]))
    are_equal = draw(st.integers(0, 4)) == 0
    counts = st.integers(2, T) if draw(st.booleans()) else st.just(draw(st.integers(2, T)))
    lengths = torch.tensor(draw(st.lists(counts, min_size=size, max_size=size)))
    boxes = st.integers(1, 4) if draw(st.booleans()) else st.just(draw(st.integers(1, 4)))
    n_boxes = torch.tensor(draw(st.lists(boxes, min_size=size, max_size=size)))

    def make(net: Net) -> Batch:
        batch = {**cut(make_batch(seed), slice(size)), "n_boxes": n_boxes}
        batch["mask"] = torch.arange(T) < lengths[:, None]
        batch["labels"] = torch.where(batch["mask"], batch["tokens"].roll(1, 1).clamp(max=V - 1), -100)
        if labels in ("right", "wrong"):
            best = Tensor.argmax if labels == "right" else Tensor.argmin
            batch["y"], batch["segments"] = best(net(batch["x"]), 1), best(net.conv(batch["image"]), 1)
        elif labels == "equal":
            batch["y"] = batch["y"][:1].expand(size).clone()
        if are_equal:
            batch = {name: part[:1].expand(part.shape).clone() for name, part in batch.items()}
        return batch

    return make


def outcomes(step: Step, makers: list[Callable[[Net], Batch]], *, has_witness: bool) -> list[str]:
    """Train on the batches in turn: what was measured is right, wrong, or was forgotten; or it was said aloud."""
    module = Module()
    net, capture = module.net, LossCapture(module)
    witness, found = Witness(module, capture), list[str]()
    for batch in (make(net) for make in makers):
        size = len(batch["x"])
        if has_witness:
            witness.hear(lambda rows, batch=batch: functools.partial(step, net, cut(batch, list(rows))), size, batch)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                _, captured = capture.run(lambda batch=batch: step(net, batch), size)
            except CaptureError:
                return [*found, "refused"]
        if witness.is_waiting:
            capture.probe_next()
        if capture.has_misread():
            found = ["forgotten"] * len(found)
        expected = alone(net, step, batch)
        shows = expected.isfinite()
        right = torch.allclose(captured.losses[shows], expected[shows], rtol=1e-3, atol=1e-4)
        found.append("right" if right else "unknown" if not captured.known else "said" if said else "WRONG")
    if has_witness and capture.has_doubts(wait=True):  # as a fit does before it closes an epoch
        witness.hear(lambda rows: functools.partial(step, net, cut(batch, list(rows))), size, batch)
        capture.settle()
        found = ["forgotten"] * len(found) if capture.has_misread(wait=True) else found
    return found


def check(name: str, makers: list[Any], *, has_witness: bool) -> None:
    found = outcomes(STEPS[name], makers, has_witness=has_witness)
    assert "WRONG" not in found, found
    assert not has_witness or name in MAY_BE_REFUSED or "refused" not in found, found


fits = st.lists(batches(), min_size=2, max_size=4)
FEW = settings(max_examples=30, deadline=None, derandomize=True)
MANY = settings(max_examples=1500, deadline=None, derandomize=True)


@FEW
@given(st.sampled_from(sorted(STEPS)), fits)
def test_single_samples_settle_what_a_loss_is_made_of(name: str, makers: list[Any]) -> None:
    check(name, makers, has_witness=True)


@pytest.mark.slow
@MANY
@given(st.sampled_from(sorted(STEPS)), fits)
def test_single_samples_settle_it_in_many_fits(name: str, makers: list[Any]) -> None:
    check(name, makers, has_witness=True)


@FEW
@given(st.sampled_from(sorted(STEPS)), fits)
def test_without_them_nothing_is_misread_in_silence(name: str, makers: list[Any]) -> None:
    """If two readings fit all batches so far, the last one's losses alone may be wrong: there is no later one."""
    check(
        name,
        [*makers, lambda net: make_batch(5), lambda net: cut(make_batch(6), slice(B - 1))],
        has_witness=False,
    )


@pytest.mark.slow
@MANY
@given(st.sampled_from(sorted(STEPS)), fits)
def test_without_them_nothing_is_misread_in_many_fits(name: str, makers: list[Any]) -> None:
    check(
        name,
        [*makers, lambda net: make_batch(5), lambda net: cut(make_batch(6), slice(B - 1))],
        has_witness=False,
    )


@pytest.mark.parametrize("sizes", [(T - 1, B), (T - 1, 1, B)], ids=str)
def test_a_count_over_as_many_steps_as_samples_is_looked_at_again(sizes: tuple[int, ...]) -> None:
    makers = [lambda net, size=size: cut(make_batch(size), slice(size)) for size in sizes]
    found = outcomes(STEPS["sum_by_time_major_tokens"], makers, has_witness=False)
    assert found[-1] == "right" and "WRONG" not in found


def test_a_batch_of_one_does_not_settle_which_axis_is_the_batch() -> None:
    makers = [lambda net, size=size: cut(make_batch(size), slice(size)) for size in (T - 1, 1, B)]
    found = outcomes(STEPS["time_major_with_a_batch_major_mask"], makers, has_witness=False)
    assert found[-1] == "right" and "WRONG" not in found


@pytest.mark.parametrize("sizes", [(2, B), (1, 2), (3, 2)], ids=str)
def test_images_with_as_many_boxes_each_are_no_groups_of_samples(sizes: tuple[int, ...]) -> None:
    makers = [lambda net, n=n: {**cut(make_batch(7), slice(n)), "n_boxes": torch.tensor([3] * n)} for n in sizes]
    assert outcomes(STEPS["sums_by_boxes_of_each_image"], makers, has_witness=True) == ["right"] * len(sizes)


def boxes(*counts: int) -> Callable[[Net], Batch]:
    return lambda net: {**cut(make_batch(2), slice(len(counts))), "n_boxes": torch.tensor(counts)}


@pytest.mark.parametrize("later", [[(4, 2)], [(2, 4), (2, 4)], [(3, 3, 2, 4), (4, 1, 2, 1)]], ids=str)
def test_as_many_boxes_of_each_image_as_there_are_images_are_boxes(later: list[tuple[int, ...]]) -> None:
    makers = [boxes(4, 4, 4, 4), *(boxes(*counts) for counts in later)]
    assert outcomes(STEPS["boxes_in_one_row"], makers, has_witness=True) == ["right"] * len(makers)


@pytest.mark.parametrize("later", [[(4, 1, 1)], [(2, 1, 3), (1, 1, 4)], [(3, 3, 3), (2, 4), (3, 3, 3)]], ids=str)
def test_what_single_samples_see_of_boxes_counts_from_then_on(later: list[tuple[int, ...]]) -> None:
    """Three images of three boxes each show nobody whether these are boxes or steps."""
    makers = [boxes(3, 3, 3), *(boxes(*counts) for counts in later)]
    assert outcomes(STEPS["boxes_in_one_row"], makers, has_witness=True) == ["right"] * len(makers)


@pytest.mark.parametrize("has_witness", [True, False])
def test_a_mask_that_picks_all_rows_at_first_picks_some_later(has_witness: bool) -> None:
    makers = [boxes(4, 4, 4, 4), boxes(4, 2), boxes(3, 2, 2, 1)]
    assert outcomes(STEPS["nodes_of_all_samples"], makers, has_witness=has_witness) == ["right"] * 3


def test_boxes_that_were_read_as_steps_are_forgotten() -> None:
    """As after a batch whose samples are heard when it has been read."""
    module = Module()
    capture, step = LossCapture(module), STEPS["boxes_in_one_row"]
    witness = Witness(module, capture)

    def hear(batch: Batch) -> None:
        witness.hear(lambda rows: functools.partial(step, module.net, cut(batch, list(rows))), len(batch["x"]), batch)

    even, uneven = boxes(3, 3, 3)(module.net), boxes(4, 1, 1)(module.net)
    hear(even)
    for batch in (even, uneven):
        capture.run(functools.partial(step, module.net, batch), 3)
    assert capture.has_doubts(wait=True)
    hear(uneven)
    capture.settle()
    assert capture.has_misread(wait=True)


class Elsewhere(Module):
    @property
    def device(self) -> torch.device:
        return torch.device("vulkan")


def test_a_device_that_knows_no_autocast_is_not_asked_for_it() -> None:
    module, batch = Elsewhere(), make_batch(0)
    witness = Witness(module, LossCapture(module))
    witness.hear(lambda rows: functools.partial(STEPS["ce"], module.net, cut(batch, list(rows))), B, batch)
    assert witness.is_able
