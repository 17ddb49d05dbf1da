"""Batches that cannot be cut, as those of graphs, are collated anew from the samples that a method chose."""

import warnings
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_dataselect import EvolvedSampling
from lightning_dataselect.utils.errors import UnsupportedLoaderError

N, B, C = 24, 8, 3


class Graphs:
    """The nodes of several graphs in one tensor, as torch_geometric has them."""

    def __init__(self, graphs: list[tuple[Tensor, int, int]]) -> None:
        self.nodes = torch.cat([nodes for nodes, _, _ in graphs])
        self.owner = torch.arange(len(graphs)).repeat_interleave(torch.tensor([len(nodes) for nodes, _, _ in graphs]))
        self.y, self.which = (torch.tensor([graph[i] for graph in graphs]) for i in (1, 2))

    def to(self, device: Any) -> "Graphs":
        return self


class Many(Dataset[Any]):
    def __init__(self, n_reads: float = torch.inf) -> None:
        g = torch.Generator().manual_seed(0)
        sizes = torch.randint(2, 6, (N,), generator=g).tolist()
        self.graphs = [(torch.randn(n, 4, generator=g), i % C, i) for i, n in enumerate(sizes)]
        self.n_left = n_reads

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError("the file is gone")
        return self.graphs[i]


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head, self.trained = nn.Linear(4, 16), nn.Linear(16, C), []

    def training_step(self, batch: Graphs, batch_idx: int = 0) -> Tensor:
        hidden = self.net(batch.nodes).relu()
        pooled = hidden.new_zeros(len(batch.y), 16).index_add(0, batch.owner, hidden)
        if self.training:
            self.trained.append(batch.which.tolist())
        return F.cross_entropy(self.head(pooled), batch.y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(module: Net, data: Many, n_epochs: int = 2) -> EvolvedSampling:
    selector = EvolvedSampling(batch_ratio=0.5, anneal=0.0)
    trainer = L.Trainer(
        max_epochs=n_epochs, callbacks=[selector], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, B, collate_fn=Graphs))
    return selector


def test_the_chosen_graphs_are_collated_anew() -> None:
    module, data = Net(), Many()
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="holds a Graphs, which cannot be cut") as said:
        selector = fit(module, data)
    assert sum("collated anew" in str(warning.message) for warning in said) == 1
    torch.set_rng_state(before)
    alone = [module.training_step(Graphs([graph])).detach() for graph in data.graphs]
    torch.testing.assert_close(selector.losses, torch.stack(alone))
    cut = [which for which in module.trained if len(which) == B // 2]
    assert len(cut) == N // B and all(len({i // B for i in which}) == 1 for which in cut)


def test_what_can_be_read_only_once_is_refused_on_the_first_batch() -> None:
    with warnings.catch_warnings(), pytest.raises(UnsupportedLoaderError, match="holds a Graphs, which cannot be cut"):
        warnings.simplefilter("ignore")
        fit(Net(), Many(n_reads=B))
