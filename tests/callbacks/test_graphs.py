"""Batches of graphs, whose tensors hold several rows of each sample: collated anew by index, else refused."""

import dataclasses
from collections import namedtuple

import lightning as L
import pytest
import torch
from helpers import fit
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_dataselect import EvolvedSampling, SelectiveBackprop

N = 40


def graph(i):
    made = torch.Generator().manual_seed(i)
    n = 3 + i % 4
    edges = torch.stack([torch.arange(n), torch.arange(n).roll(1)])[:, : n - i % 2]
    return torch.randn(n, 5, generator=made), edges, i % 3, i


class Indexed(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return graph(i)


class Streamed(IterableDataset):
    def __iter__(self):
        return map(graph, range(N))


FIELDS = ("x", "edges", "of", "y", "ids")


def joined(graphs):
    """The nodes of all graphs, one graph's after another's, their edges, and which graph each node is of."""
    sizes = [len(x) for x, *_ in graphs]
    starts = torch.tensor([0, *sizes]).cumsum(0)
    return (
        torch.cat([x for x, *_ in graphs]),
        torch.cat([edges + start for (_, edges, *_), start in zip(graphs, starts, strict=False)], 1),
        torch.repeat_interleave(torch.tensor(sizes)),
        torch.tensor([y for _, _, y, _ in graphs]),
        torch.tensor([i for *_, i in graphs]),
    )


class Batch:
    """As PyTorch Geometric has it: no container that could be looked into, but one that is moved."""

    def __init__(self, *parts):
        self.__dict__.update(zip(FIELDS, parts, strict=True))

    def to(self, device):
        return Batch(*(getattr(self, name).to(device) for name in FIELDS))


Data = dataclasses.make_dataclass("Data", FIELDS)
Named = namedtuple("Named", FIELDS)


def with_matrix(graphs):
    """Edges as a sparse matrix of all nodes."""
    x, edges, of, y, ids = joined(graphs)
    matrix = torch.sparse_coo_tensor(edges, torch.ones(edges.shape[1]), (len(x), len(x)))
    return {"x": x, "edges": matrix, "of": of, "y": y, "ids": ids}


COLLATES = {
    "an object": lambda graphs: Batch(*joined(graphs)),
    "a dict": lambda graphs: dict(zip(FIELDS, joined(graphs), strict=True)),
    "a dataclass": lambda graphs: Data(*joined(graphs)),
    "a named tuple": lambda graphs: Named(*joined(graphs)),
    "a sparse matrix": with_matrix,
}
every_form = pytest.mark.parametrize("collate", COLLATES.values(), ids=COLLATES)


def field(batch, name):
    return batch[name] if isinstance(batch, dict) else getattr(batch, name)


class Pooled(L.LightningModule):
    """Classifies graphs by the mean of their nodes and of their neighbours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.trained = nn.Linear(5, 3), []

    def training_step(self, batch, batch_idx):
        x, edges, of, y, ids = (field(batch, name) for name in FIELDS)
        if edges.is_sparse:
            edges = edges.coalesce().indices()
        x = x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
        # each graph's own nodes, in its own place
        assert of.max() >= len(y) or torch.equal(torch.bincount(of), 3 + ids % 4)
        self.trained.append(ids.tolist())
        return nn.functional.cross_entropy(self.head(torch.zeros(len(y), 5).index_add(0, of, x)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@every_form
@pytest.mark.parametrize(
    "make", [SelectiveBackprop, lambda: EvolvedSampling(batch_ratio=0.5, anneal=0.0)], ids=["cut", "evolved"]
)
def test_graphs_with_an_index_are_collated_anew(collate, make):
    selector, net = make(), Pooled()
    with pytest.warns(UserWarning, match="collated anew, in the main process"):
        fit(selector, net, DataLoader(Indexed(), 8, shuffle=True, collate_fn=collate), max_epochs=2)
    assert [record["n_total"] for record in selector.history] == [N, N]
    assert any(len(ids) < 8 for ids in net.trained)


@every_form
def test_graphs_of_a_stream_are_refused_with_what_to_do(collate):
    selector = SelectiveBackprop(sample_id=lambda batch: field(batch, "ids"))
    with pytest.raises(TypeError, match="graphs.*method that chooses before the epoch") as refused:
        fit(selector, Pooled(), DataLoader(Streamed(), 8, collate_fn=collate))
    if collate is not COLLATES["an object"]:
        assert "(RuntimeError: index" in str(refused.value)
        assert "'x' (shape (36, 5)), 'edges' (shape (" in str(refused.value) and "'y' (" not in str(refused.value)


class Failing(Pooled):
    def training_step(self, batch, batch_idx):
        x, y = batch
        if len(y) < 8:
            raise ValueError("fewer than eight")
        return nn.functional.cross_entropy(self.head(x), y)


def test_a_step_that_fails_by_itself_keeps_its_error():
    rows = [(torch.randn(5), i % 3) for i in range(N)]
    stream = type("Rows", (IterableDataset,), {"__iter__": lambda self: iter(rows)})()
    with pytest.raises(ValueError, match="^fewer than eight$"):
        fit(SelectiveBackprop(), Failing(), DataLoader(stream, 8))
