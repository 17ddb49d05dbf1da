"""LightningModules of chemprop, scvi-tools, PyTorch Geometric, TorchGeo, torch-uncertainty and Lightning-UQ-Box."""

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import Case, check_batch_method, check_losses, check_trains, fit, rows_loader
from torch import nn

from lightning_dataselect import EvolvedSampling, InfoBatch

SMILES = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCC", "CCOC", "CCCl", "c1ccncc1", "CC(C)C", "C1CCCCC1", "CCS", "OCCO"]


def seeded(make):
    def module():
        torch.manual_seed(0)
        return make()

    return module


def mpnn(predictor):
    pytest.importorskip("chemprop")
    from chemprop import data, models
    from chemprop import nn as layers

    values = np.random.default_rng(0).normal(size=(len(SMILES), 1)).astype(np.float32)
    points = [data.MoleculeDatapoint.from_smi(s, y) for s, y in zip(SMILES, values, strict=True)] * 3
    molecules = data.MoleculeDataset(points)

    def make():
        ffn = getattr(layers, predictor)(input_dim=16, hidden_dim=16)
        return models.MPNN(layers.BondMessagePassing(d_h=16, depth=2), layers.MeanAggregation(), ffn)

    def loader(batch_size):
        return data.build_dataloader(molecules, batch_size, num_workers=0, shuffle=batch_size > 1)

    return Case(seeded(make), loader)


@pytest.mark.parametrize("predictor", ["RegressionFFN", "MveFFN", "EvidentialFFN"])
def test_chemprop(predictor):
    made = mpnn(predictor)
    check_losses(made)
    check_trains(made)


def test_chemprop_batches_that_cannot_be_cut_are_collated_anew():
    _, warned = fit(mpnn("RegressionFFN"), EvolvedSampling(anneal=0.0), batch_size=8, max_epochs=2)
    assert sum("BatchMolGraph, which cannot be cut" in text for text in warned) == 1


@pytest.fixture
def cells():
    scvi = pytest.importorskip("scvi")
    data = scvi.data.synthetic_iid(batch_size=24, n_genes=20, n_proteins=5, n_regions=10)
    scvi.model.SCVI.setup_anndata(data, batch_key="batch", labels_key="labels")
    return scvi, data


def test_scvi(cells, monkeypatch):
    scvi, data = cells
    from scvi.dataloaders import AnnDataLoader
    from scvi.train import TrainingPlan

    # what the encoder draws differs with the batch: take its mean
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, *shape: self.mean)
    model = scvi.model.SCVI(data, n_hidden=16, n_latent=4, dropout_rate=0.0)

    def make():
        inner = scvi.model.SCVI(data, n_hidden=16, n_latent=4, dropout_rate=0.0)
        return TrainingPlan(inner.module, n_epochs_kl_warmup=None)

    made = Case(seeded(make), lambda size: AnnDataLoader(model.adata_manager, shuffle=size > 1, batch_size=size))
    check_losses(made)
    check_batch_method(made)


def test_scvi_by_its_own_train(cells):
    scvi, data = cells
    selector = InfoBatch(prune_ratio=0.5)
    model = scvi.model.SCVI(data, n_hidden=16, n_latent=4)
    model.train(5, accelerator="cpu", batch_size=8, train_size=1.0, enable_progress_bar=False, callbacks=[selector])
    assert selector.history[-2]["n_backward"] < 48 and selector.losses.isfinite().all()


def graphs():
    pytest.importorskip("torch_geometric")
    from torch_geometric.data import Data

    generator = torch.Generator().manual_seed(0)
    sizes = [4 + i % 5 for i in range(40)]
    return [
        Data(
            x=torch.randn(n, 6, generator=generator),
            edge_index=torch.randint(0, n, (2, 3 * n), generator=generator),
            y=torch.tensor([n % 3]),
        )
        for n in sizes
    ]


class GraphClassifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        from torch_geometric.nn import GCNConv

        self.first, self.second, self.head = GCNConv(6, 16), GCNConv(16, 16), nn.Linear(16, 3)

    def training_step(self, batch, batch_idx):
        from torch_geometric.nn import global_mean_pool

        hidden = self.second(self.first(batch.x, batch.edge_index).relu(), batch.edge_index)
        return F.cross_entropy(self.head(global_mean_pool(hidden, batch.batch)), batch.y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def test_torch_geometric():
    data = graphs()
    from torch_geometric.data.lightning import LightningDataset
    from torch_geometric.loader import DataLoader

    made = Case(seeded(GraphClassifier), lambda size: DataLoader(data, size, shuffle=size > 1))
    check_losses(made)
    check_trains(Case(made.module, lambda size: LightningDataset(data, batch_size=size, num_workers=0)))
    _, warned = fit(made, EvolvedSampling(anneal=0.0), batch_size=8, max_epochs=2)
    assert sum("Batch, which cannot be cut" in text for text in warned) == 1


def test_torchgeo():
    trainers = pytest.importorskip("torchgeo.trainers")
    images = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    common = {"weights": None, "in_channels": 3}
    tasks = {
        "label": lambda: trainers.ClassificationTask(model="resnet18", num_classes=4, loss="ce", **common),
        "mask": lambda: trainers.SemanticSegmentationTask(backbone="resnet18", num_classes=3, loss="ce", **common),
    }
    targets = {"label": torch.arange(24) % 4, "mask": (images[:, 0] > 0).long()}
    for key, make in tasks.items():
        rows = [{"image": x, key: y} for x, y in zip(images, targets[key], strict=True)]
        made = Case(seeded(make), rows_loader(rows), validates=True)
        check_losses(made)


def test_torch_uncertainty():
    routines = pytest.importorskip("torch_uncertainty.routines")
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))

    def make():
        network = nn.Linear(3, 4)
        adam = torch.optim.Adam(network.parameters(), 0.01)
        return routines.ClassificationRoutine(network, num_classes=4, loss=nn.CrossEntropyLoss(), optim_recipe=adam)

    made = Case(seeded(make), rows_loader(list(zip(x, torch.arange(40) % 4, strict=True))))
    check_losses(made)
    check_batch_method(made)


@pytest.mark.parametrize("name", ["DeterministicRegression", "MVERegression", "QuantileRegression", "DER"])
def test_lightning_uq_box(name):
    methods = pytest.importorskip("lightning_uq_box.uq_methods")
    outputs, arguments = {
        "DeterministicRegression": (1, {"loss_fn": nn.MSELoss()}),
        "MVERegression": (2, {"burnin_epochs": 0}),
        "QuantileRegression": (3, {"quantiles": [0.1, 0.5, 0.9]}),
        "DER": (4, {}),
    }[name]

    def make():
        network = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, outputs))
        return getattr(methods, name)(network, optimizer=partial(torch.optim.Adam, lr=0.01), **arguments)

    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    rows = [{"input": one, "target": one[:1].sin()} for one in x]
    made = Case(seeded(make), rows_loader(rows, copies=2))  # its R2 score needs two samples
    check_losses(made)
    check_trains(made)
