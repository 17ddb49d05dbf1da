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
from lightning_dataselect.data.recollate import collate_anew
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


def rows_after_one_another(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Tensor]:
    batch = Graphs(graphs)
    return {"nodes": batch.nodes, "owner": batch.owner, "y": batch.y}


def cumulative_lengths(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Tensor]:
    ends = torch.tensor([0, *(len(nodes) for nodes, _, _ in graphs)]).cumsum(0)
    return {"nodes": Graphs(graphs).nodes[None], "ends": ends, "y": Graphs(graphs).y}


def with_weights_of_classes(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Tensor]:
    y = Graphs(graphs).y
    first = torch.stack([nodes[0] for nodes, _, _ in graphs])
    return {"nodes": first, "y": y, "weights": 1 / torch.bincount(y, minlength=C).clamp(min=1)}


def with_the_greatest(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Any]:
    first = torch.stack([nodes[0] for nodes, _, _ in graphs])
    return {"nodes": first, "y": Graphs(graphs).y, "scale": first.abs().max()}


def padded_with_what_goes_by_it(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Any]:
    nodes = torch.nn.utils.rnn.pad_sequence([nodes for nodes, _, _ in graphs], batch_first=True)
    n = nodes.shape[1]
    return {"nodes": nodes[:, 0], "y": Graphs(graphs).y, "mask": torch.ones(n, n).tril(), "longest": n}


class Flat(Net):
    """Takes what collate functions make of graphs but objects."""

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        hidden, y = self.net(batch["nodes"] / batch.get("scale", 1)).relu(), batch["y"]
        owner = batch.get("owner")
        if "ends" in batch:
            hidden = hidden[0]
            owner = torch.arange(len(y)).repeat_interleave(batch["ends"].diff())
        if owner is not None:
            hidden = hidden.new_zeros(len(y), 16).index_add(0, owner, hidden)
        if self.training:
            self.trained.append((len(y), batch.get("weights", torch.ones(C)).tolist()))
        losses = F.cross_entropy(self.head(hidden), y, reduction="none")
        return (losses * batch.get("weights", torch.ones(C))[y]).mean()


def fit(module: Net, data: Many, n_epochs: int = 2, collate: Any = Graphs) -> EvolvedSampling:
    selector = EvolvedSampling(batch_ratio=0.5, anneal=0.0)
    trainer = L.Trainer(
        max_epochs=n_epochs, callbacks=[selector], logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, B, collate_fn=collate))
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


@pytest.mark.parametrize("collate", [rows_after_one_another, cumulative_lengths])
def test_rows_that_lie_one_after_the_other_are_collated_anew(collate: Any) -> None:
    module, data = Flat(), Many()
    with pytest.warns(UserWarning, match="built by the collate function from all of its samples together"):
        selector = fit(module, data, collate=collate)
    alone = [module.training_step(collate([graph])).detach() for graph in data.graphs]
    torch.testing.assert_close(selector.losses, torch.stack(alone))


def test_numbers_that_are_made_of_all_samples_are_made_anew_for_the_chosen() -> None:
    module, data = Flat(), Many()
    with pytest.warns(UserWarning, match="at 'weights' is built by the collate function from all"):
        fit(module, data, collate=with_weights_of_classes)
    n_weighted = [round(sum(1 / weight for weight in weights)) for n, weights in module.trained if n == B // 2]
    assert n_weighted and max(n_weighted) <= B // 2 + C - 1, "counted among the chosen, at least 1 for a class"
    with pytest.warns(UserWarning, match="at 'scale' is built by the collate function from all"):
        fit(Flat(), data, collate=with_the_greatest)


def test_what_goes_by_the_length_that_samples_are_padded_to_is_no_reason() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The batches cannot be cut")
        fit(Flat(), Many(), collate=padded_with_what_goes_by_it)


def test_what_can_be_read_only_once_is_refused_on_the_first_batch() -> None:
    with warnings.catch_warnings(), pytest.raises(UnsupportedLoaderError, match="holds a Graphs, which cannot be cut"):
        warnings.simplefilter("ignore")
        fit(Net(), Many(n_reads=B))


class Longest(Net):
    """Comes to the length of the longest of its samples, as `pad_packed_sequence` does without a total length."""

    def __init__(self, *, keeps_length: bool) -> None:
        super().__init__()
        self.keeps_length = keeps_length

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        nodes, lengths = batch["padded"], batch["lengths"].long()
        width = nodes.shape[1] if self.keeps_length else int(lengths.max())
        known = torch.arange(width) < lengths[:, None]
        out = self.net(nodes[:, :width]).mean(-1)
        return (out - nodes[..., 0]).square().masked_select(known).mean()


def padded(graphs: list[tuple[Tensor, int, int]]) -> dict[str, Any]:
    nodes = torch.nn.utils.rnn.pad_sequence([nodes for nodes, _, _ in graphs], batch_first=True)
    return {"padded": nodes, "lengths": torch.tensor([len(nodes) for nodes, _, _ in graphs])}


@pytest.mark.filterwarnings("ignore:The batch has as many samples")
def test_a_step_that_measures_the_longest_of_its_samples_is_told_why_it_fails_without_it() -> None:
    data, why = Many(), "has scored all 8. .* total_length="
    data.graphs[::B] = [(torch.ones(7, 4), *rest) for _, *rest in data.graphs[::B]]
    with pytest.warns(UserWarning, match=why), pytest.raises(RuntimeError, match="size of tensor"):
        fit(Longest(keeps_length=False), data, n_epochs=8, collate=padded)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training_step fails")
        fit(Longest(keeps_length=True), data, collate=padded)


class Noisy(Dataset[Tensor]):
    """Draws from a generator of its own, and from torch's."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(2, generator=self.generator) + torch.rand(2)


def test_samples_that_are_read_again_draw_no_random_number_of_the_fits() -> None:
    loader = DataLoader(Noisy(), batch_size=4)
    own, everyones = loader.dataset.generator.get_state(), torch.get_rng_state()
    assert collate_anew(loader, [2, 0]).shape == (2, 2)
    assert torch.equal(loader.dataset.generator.get_state(), own) and torch.equal(torch.get_rng_state(), everyones)
