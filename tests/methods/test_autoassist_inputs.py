"""The Assistant finds what to look at in batches as users make them, or says what is missing."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lightning_dataselect.methods.autoassist.inputs import InputReader, SampleInputs

B = 4
IMAGES, BYTES, TABLE = torch.rand(B, 3, 8, 8), torch.zeros(B, 8, 8, dtype=torch.uint8), torch.rand(B, 5)
IDS, MASK, LABELS = torch.arange(12).reshape(B, 3), torch.tensor([[1, 1, 0]] * B), torch.tensor([3, 1, 0, 2])
SOFT = torch.rand(B, 3)
Pair = namedtuple("Pair", "features target")


@dataclass
class Example:
    pixels: Tensor
    label: Tensor
    name: str = "train"


@pytest.mark.parametrize(
    ("batch", "kind", "x", "labels"),
    [
        ((IMAGES, LABELS), "images", IMAGES, LABELS),
        ([BYTES, LABELS], "images", BYTES, LABELS),
        ((TABLE, LABELS.int()), "tabular", TABLE, LABELS),
        ((TABLE, SOFT), "tabular", TABLE, None),
        (TABLE, "tabular", TABLE, None),
        (Pair(TABLE, LABELS), "tabular", TABLE, LABELS),
        (Example(IMAGES, LABELS), "images", IMAGES, LABELS),
        ({"idx": torch.arange(B), "image": IMAGES, "meta": {"label": LABELS}}, "images", IMAGES, LABELS),
        ({"y": LABELS, "x": TABLE}, "tabular", TABLE, LABELS),
        ((IDS, LABELS), "tokens", IDS, LABELS),
        (IDS, "tokens", IDS, None),
        ((IDS, IDS + 1), "tokens", IDS, IDS + 1),
        (UserDict(attention_mask=MASK, input_ids=IDS, labels=LABELS), "tokens", IDS.where(MASK == 1, -1), LABELS),
        ({"labels": IDS, "position_ids": IDS, "input_ids": IDS}, "tokens", IDS, IDS),
        ((TABLE, (IMAGES, LABELS)), "tabular", TABLE, LABELS),
        ((TABLE, LABELS + 7, LABELS), "tabular", TABLE, LABELS),
        ({"x": TABLE, "y": LABELS, "group": LABELS + 7}, "tabular", TABLE, LABELS),
        ({"x": TABLE, "index": torch.arange(B)}, "tabular", TABLE, None),
        ({"candidates": IDS + 9, "input_ids": IDS}, "tokens", IDS, IDS + 9),
        ({"position_ids": IDS + 9, "text": IDS}, "tokens", IDS, None),
        ((IDS.byte(), LABELS), "tokens", IDS, LABELS),
    ],
)
def test_inputs_and_labels_are_found_in_a_batch(batch, kind, x, labels):
    reader = InputReader(batch, B)
    found = reader.read(batch)
    assert reader.kind == kind and torch.equal(found.x, x)
    assert (found.labels is None) if labels is None else torch.equal(found.labels, labels)
    assert found.labels is None or found.labels.dtype == torch.int64


def test_own_function_finds_the_inputs():
    batch = {"signal": torch.rand(2, B), "id": LABELS}
    reader = InputReader(batch, B, lambda batch: (batch["signal"].T, batch["id"].int()))
    assert reader.read(batch).labels.dtype == torch.int64
    assert reader.kind == "tabular" and torch.equal(reader.read(batch).x, batch["signal"].T)


def test_cloned_inputs_share_no_memory():
    inputs = SampleInputs(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    copy, part = inputs.clone(), inputs[torch.tensor([2, 0])]
    inputs.x[0] = inputs.labels[0] = 1
    assert not copy.x.any() and not copy.labels.any() and not part.x.any()
    assert inputs[torch.tensor([2, 0])].labels.tolist() == [0, 1]
    assert SampleInputs(torch.zeros(3, 2), None).clone().labels is None


@pytest.mark.parametrize(
    "batch", [(LABELS, LABELS), {"text": ["a"] * B}, torch.rand(B + 1, 3), (IDS[0], torch.ones(1))]
)
def test_batch_without_inputs_is_refused(batch):
    with pytest.raises(TypeError, match=f"of {B} samples.*`inputs=`"):
        InputReader(batch, B)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (TABLE, "two tensors"),
        ((TABLE, None, None), "two tensors"),
        ((TABLE[:2], None), r"shape \(2, 5\) for 4 samples"),
        ((LABELS, None), r"int64 and shape \(4,\)"),
    ],
)
def test_own_function_that_returns_no_inputs_is_refused(found, message):
    with pytest.raises(TypeError, match=message):
        InputReader(TABLE, B, lambda batch: found)
