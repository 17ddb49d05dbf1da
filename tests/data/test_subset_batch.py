"""A batch of any make is cut to the chosen samples, and only that."""

import dataclasses
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from lightning_dataselect.data.subset_batch import subset_batch

B = 4
KEPT = torch.tensor([3, 1])
Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass
class Plain:
    x: torch.Tensor
    name: str

    def __post_init__(self):
        self.made = getattr(self, "made", 0) + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor
    inner: dict


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding: a UserDict with attributes besides."""

    def __init__(self, data, n_sequences=1):
        super().__init__(data)
        self.n_sequences = n_sequences

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError as error:
            raise AttributeError(name) from error


def cut(batch, kept=KEPT, size=B, axes=None):
    return subset_batch(batch, kept, size, axes)


def rows(*shape):
    return torch.arange(int(np.prod(shape))).view(shape)


def same(a, b):
    assert torch.equal(a, b), (a, b)


def test_tensors_and_tuples():
    x, y = rows(B, 2), rows(B)
    same(cut(x), x[KEPT])
    pair = cut((x, y))
    assert type(pair) is tuple
    same(pair[0], x[KEPT])
    same(pair[1], y[KEPT])
    assert type(cut([x, y])) is list


def test_named_tuples_keep_their_class_and_their_fields():
    batch = Pair(rows(B), "train")
    smaller = cut(batch)
    assert type(smaller) is Pair and smaller.y == "train"
    same(smaller.x, batch.x[KEPT])


def test_what_has_no_sample_axis_is_passed_on():
    weights, scale = torch.ones(7), torch.tensor(2.0)
    smaller = cut({"x": rows(B), "weights": weights, "scale": scale, "n": 4, "none": None, "split": "four"})
    assert smaller["weights"] is weights and smaller["scale"] is scale
    assert (smaller["n"], smaller["none"], smaller["split"]) == (4, None, "four")


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, Encoding, lambda d: defaultdict(list, d)])
def test_mappings_keep_their_class_and_the_original(kind):
    batch = kind({"x": rows(B, 3), "y": {"deep": rows(B)}})
    smaller = cut(batch)
    assert type(smaller) is type(batch)
    same(smaller["x"], rows(B, 3)[KEPT])
    same(smaller["y"]["deep"], rows(B)[KEPT])
    same(batch["x"], rows(B, 3))
    same(batch["y"]["deep"], rows(B))


def test_a_batch_encoding_keeps_its_attributes():
    smaller = cut(Encoding({"input_ids": rows(B, 5)}, n_sequences=2))
    assert smaller.n_sequences == 2
    same(smaller.input_ids, rows(B, 5)[KEPT])


def test_a_mapping_that_cannot_be_written_to_is_made_anew():
    smaller = cut(MappingProxyType({"x": rows(B)}))
    assert type(smaller) is MappingProxyType
    same(smaller["x"], rows(B)[KEPT])


def test_dataclasses_frozen_or_not():
    batch = Plain(rows(B), "abcd")
    smaller = cut(batch)
    same(smaller.x, rows(B)[KEPT])
    assert smaller.name == "abcd" and smaller.made == 1
    same(batch.x, rows(B))
    frozen = Frozen(rows(B), {"y": rows(B)})
    smaller = cut(frozen)
    assert type(smaller) is Frozen
    same(smaller.inner["y"], rows(B)[KEPT])
    same(frozen.inner["y"], rows(B))


def test_lists_of_one_item_a_sample():
    boxes = [{"boxes": torch.ones(i, 4), "labels": torch.ones(i)} for i in range(B)]
    images, targets, names = cut((list(range(B)), boxes, ("a", "b", "c", "d")))
    assert images == [3, 1] and names == ("d", "b")
    assert targets[0] is boxes[3] and targets[1] is boxes[1]


def test_numpy_arrays():
    batch = {"x": np.arange(8).reshape(B, 2), "names": np.array(["a", "b", "c", "d"]), "none": np.float64(3)}
    smaller = cut(batch)
    assert smaller["x"].tolist() == [[6, 7], [2, 3]] and smaller["names"].tolist() == ["d", "b"]
    assert smaller["none"] == 3


def test_deep_nesting():
    batch = [({"a": [Pair(rows(B), {"t": rows(B, 1)})]}, "name"), rows(B)]
    smaller = cut(batch)
    same(smaller[0][0]["a"][0].y["t"], rows(B, 1)[KEPT])
    assert smaller[0][1] == "name"
    same(smaller[1], rows(B)[KEPT])


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("make", [tuple, list])
def test_a_small_batch_is_not_taken_for_its_fields(size, make):
    """Two fields in a batch of two samples."""
    kept = torch.tensor([size - 1])
    for fields in ((rows(size, 3), rows(size)), ({"x": rows(size, 3)}, {"y": rows(size)}), (rows(size), 0.5)):
        smaller = cut(make(fields), kept, size)
        assert type(smaller) is make and len(smaller) == 2
    images, targets = [torch.ones(3, 2, 2), torch.zeros(3, 2, 2)][:size], [{"boxes": torch.ones(5, 4)}] * size
    smaller = cut(make((images, targets)), kept, size)
    assert [len(part) for part in smaller] == [1, 1] and smaller[0][0] is images[size - 1]


def test_the_last_batch_is_cut_as_those_before_it():
    """Three RGB images in a list, and ten samples beside ten class weights."""
    axes = {}

    def images(n):
        return {"images": [torch.full((3, 2, 2), i) for i in range(n)], "y": rows(n), "weights": torch.ones(10)}

    cut(images(8), axes=axes, size=8)
    for size in (3, 10):
        batch = images(size)
        smaller = cut(batch, torch.tensor([2]), size, axes)
        assert len(smaller["images"]) == 1 and smaller["images"][0] is batch["images"][2]
        assert len(smaller["weights"]) == 10
        assert smaller["y"].tolist() == [2]


def test_an_axis_that_was_equal_by_chance_is_found_out():
    axes = {}
    cut({"x": rows(10), "weights": torch.ones(10)}, size=10, axes=axes)
    cut({"x": rows(B), "weights": torch.ones(10)}, axes=axes)
    assert len(cut({"x": rows(10), "weights": torch.ones(10)}, size=10, axes=axes)["weights"]) == 10


@pytest.mark.parametrize("batch", [torch.ones(B + 1), {"x": 3}, "four", object(), None, torch.tensor(1.0)])
def test_refuses_a_batch_without_samples(batch):
    with pytest.raises(TypeError, match=r"first axis of 4 samples.*Let the loader yield tensors.*InfoBatch"):
        cut(batch)


def test_refuses_packed_sequences():
    with pytest.raises(TypeError, match=r"PackedSequence.*padded tensor and the lengths"):
        cut((pack_sequence([torch.ones(3), torch.ones(2)]), rows(B)))


class Graphs:
    """As graph libraries have them: the nodes of all samples, one after the other."""

    def __init__(self):
        self.nodes = torch.ones(11, 2)

    def to(self, device):
        return self


@dataclasses.dataclass
class DataclassOfGraphs(Graphs):
    nodes: torch.Tensor

    def __len__(self):
        return B


@pytest.mark.parametrize("graphs", [Graphs(), DataclassOfGraphs(torch.ones(11, 2))], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("place", [lambda g: g, lambda g: (g, rows(B)), lambda g: {"y": rows(B), "x": g}])
def test_refuses_objects_that_hold_samples_out_of_sight(graphs, place):
    with pytest.raises(TypeError, match=rf"holds a {type(graphs).__name__}, which cannot be cut.*such as InfoBatch"):
        cut(place(graphs))
