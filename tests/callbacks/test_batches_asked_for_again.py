"""Optimizers that run the step of a batch several times, as LBFGS and SAM do: the batch counts once."""

import pytest
import torch
from helpers import N, Net, fit, loader

from lightning_dataselect import AutoAssist, BatchSelector, FewerEpochs, Frontier, InfoBatch, SelectiveBackprop

pytestmark = pytest.mark.filterwarnings("ignore")


class Watched(Net):
    """Keeps the samples of each run of its step, and what they would lose at that moment."""

    def __init__(self, **given):
        super().__init__(**given)
        self.runs = []

    def training_step(self, batch, batch_idx):
        if torch.is_grad_enabled():
            x, y = batch
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(self.net(x), y, reduction="none")
            self.runs.append((self.trainer.current_epoch, batch_idx, x[:, 0].tolist(), losses))
        return super().training_step(batch, batch_idx)


class Sharpness(Watched):
    """Asks for the gradient twice, the second time at other weights."""

    def optimizer_step(self, epoch, batch_idx, optimizer, closure):
        optimizer.step(closure)
        optimizer.step(closure)


class Repeating(Watched):
    """Asks for a batch as often as its line search likes to."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


class Easiest(BatchSelector):
    """Chooses by losses that change from one run of a batch to the next."""

    def choose(self, seen, k, generator):
        return seen.losses.topk(k, largest=False).indices


again = pytest.mark.parametrize("module", [Sharpness, Repeating])
METHODS = {
    "InfoBatch": lambda: InfoBatch(prune_ratio=0.5),
    "Easiest": lambda: Easiest(batch_ratio=0.5),
    "Easiest, scoring every other batch": lambda: Easiest(batch_ratio=0.5, score_every_n_batches=2),
    "SelectiveBackprop": lambda: SelectiveBackprop(beta=1),
    "AutoAssist": lambda: AutoAssist(synchronous=True),
}


@again
@pytest.mark.parametrize("name", METHODS)
def test_each_batch_counts_once_and_keeps_its_samples(name, module):
    selector = METHODS[name]()
    _, net = fit(selector, module(), max_epochs=3)
    batches = {}
    for epoch, batch_idx, samples, _ in net.runs:
        batches.setdefault((epoch, batch_idx), []).append(samples)
    assert len(net.runs) > 1.5 * len(batches)
    trained = [[runs for (at, _), runs in batches.items() if at == epoch] for epoch in range(3)]
    # single samples that the step was only shown for are runs of their own, before the first on the batch
    sizes = [sum(len(runs[-1]) for runs in epoch) for epoch in trained]
    assert [record["n_trained"] for record in selector.history] == sizes
    assert int(selector.store.column("times_trained").sum()) == sum(sizes)
    for record in selector.history:
        assert record["n_trained"] + record["n_left_out"] == record["n_selected"] <= N
    repeated = [runs for runs in batches.values() if len(runs) > 1 and len(runs[-1]) == len(runs[-2])]
    assert len(repeated) > len(batches) / 2  # LBFGS is content with a single run where the gradient is small
    assert all(runs[-1] == runs[-2] for runs in repeated)


@again
@pytest.mark.parametrize("make", [FewerEpochs, Frontier])
def test_half_of_a_budget_is_half_of_the_batches(make, module):
    trainer, net = fit(make(budget=0.5), module(), loader(100, 10), max_epochs=4)
    seen = {(epoch, batch_idx) for epoch, batch_idx, _, _ in net.runs}
    assert len(seen) == 20
    assert trainer.current_epoch == (2 if make is FewerEpochs else 4)


def test_losses_are_those_before_the_step():
    selector = InfoBatch(prune_ratio=0.5)
    _, net = fit(selector, Sharpness(lr=0.05), loader(shuffle=False), max_epochs=1)
    by_batch = {}
    for _, batch_idx, samples, losses in net.runs:
        if len(samples) == 10:
            by_batch.setdefault(batch_idx, []).append(losses)
    first = torch.cat([runs[-2] for _, runs in sorted(by_batch.items())])
    last = torch.cat([runs[-1] for _, runs in sorted(by_batch.items())])
    assert torch.allclose(selector.losses, first, atol=1e-6) and not torch.allclose(first, last, atol=1e-3)
