"""Every set-level method of the registry in a real fit of a small classifier."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import (
    EL2N,
    UCB,
    EpsilonGreedy,
    Forgetting,
    GraNd,
    InfoBatch,
    RandomPruning,
    SeTa,
)
from lightning_dataselect.methods.last_layer import LastLayerGradients
from lightning_dataselect.methods.scores import grand

N = 60


class Classifier(pl.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.lr = lr
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Regressor(Classifier):
    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.mse_loss(self.model(x)[:, 0], y.float())


class Contrastive(Classifier):
    """Shows no losses of single samples, and no logits."""

    def training_step(self, batch, _):
        z = self.model(batch[0])
        return (z @ z.T).logsumexp(1)[0]


def fit(selector, module=Classifier, epochs=4, callbacks=()):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 4, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = module()
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[selector, *callbacks],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True))
    return model, x, y


def kept(selector):
    return [record["n_selected"] for record in selector.history]


@pytest.mark.parametrize("mode", ["fresh", "walk"])
def test_random_pruning_keeps_its_share_every_epoch(mode):
    selector = RandomPruning(prune_ratio=0.75, mode=mode)
    fit(selector)
    assert kept(selector) == [15, 15, 15, 15]
    assert [record["n_backward"] for record in selector.history] == [15] * 4
    assert selector.weights is None
    if mode == "walk":
        assert not selector.losses.isnan().any()


def test_random_pruning_rescales_the_loss():
    selector = RandomPruning(prune_ratio=0.75, rescale=True)
    scaled, *_ = fit(selector, module=lambda: Classifier(lr=0.1), epochs=1)
    plain, *_ = fit(RandomPruning(prune_ratio=0.75), module=lambda: Classifier(lr=0.4), epochs=1)
    assert selector.weights.tolist() == [4.0] * 15
    assert torch.allclose(scaled.model[0].weight, plain.model[0].weight, atol=1e-6)


def test_random_pruning_goes_on_without_losses_unless_it_rescales():
    selector = RandomPruning(prune_ratio=0.75)
    fit(selector, module=Contrastive, epochs=2)
    assert kept(selector) == [15, 15] and selector.losses.isnan().all()
    with pytest.raises(ValueError, match="loss"):
        fit(RandomPruning(prune_ratio=0.75, rescale=True), module=Contrastive)


def test_infobatch_prunes_between_warm_up_and_annealing():
    selector = InfoBatch(prune_ratio=0.5, anneal=0.25)
    fit(selector)
    assert kept(selector)[0] == N and kept(selector)[3] == N and kept(selector)[1] < N
    assert selector.weights is None  # the last epoch anneals
    assert not selector.scores.isnan().any()


@pytest.mark.parametrize("make", [lambda **kw: EpsilonGreedy(epsilon=0, **kw), UCB])
@pytest.mark.parametrize("uncertainty", ["cross_entropy", "el2n"])
def test_dynamic_pruning_keeps_the_highest_scores_for_some_epochs(make, uncertainty, monkeypatch):
    selector = make(prune_ratio=0.5, uncertainty=uncertainty, every_n_epochs=2)
    choices = []

    def select(epoch, scores, generator):
        chosen = type(selector).select(selector, epoch, scores, generator)
        choices.append((epoch, scores.clone(), chosen.indices))
        return chosen

    monkeypatch.setattr(selector, "select", select)
    fit(selector)
    assert kept(selector) == [60, 30, 30, 30]
    assert [epoch for epoch, *_ in choices] == [1, 3]
    for _, scores, indices in choices:
        assert set(indices.tolist()) == set(scores.topk(30).indices.tolist())


def test_el2n_uncertainty_needs_a_classification_loss():
    with pytest.raises(ValueError, match="EpsilonGreedy.*needs the logits"):
        fit(EpsilonGreedy(uncertainty="el2n"), module=Regressor)
    selector = EpsilonGreedy(prune_ratio=0.5)
    fit(selector, module=Regressor)
    assert kept(selector)[-1] == 30


@pytest.mark.parametrize("method", [EL2N, GraNd, Forgetting])
def test_static_scores_settle_on_one_subset(method, tmp_path):
    selector = method(prune_ratio=0.5, warmup_epochs=2)
    fit(selector, epochs=5)
    assert kept(selector) == [60, 60, 30, 30, 30]
    assert not selector.scores.isnan().any()
    settled = selector.selected
    again = method(prune_ratio=0.5, scores=selector.export(tmp_path / "scores.csv"))
    fit(again, epochs=2)
    assert kept(again) == [30, 30]
    assert torch.equal(again.selected, settled)


@pytest.mark.parametrize("method", [EL2N, GraNd, Forgetting])
@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("module", [Contrastive, Regressor])
def test_given_scores_need_no_losses_and_measure_nothing(method, warmup, module):
    given = torch.arange(N).float().flip(0)
    selector = method(prune_ratio=0.5, scores=given, warmup_epochs=warmup)
    fit(selector, module=module, epochs=3)
    assert kept(selector) == [N] * warmup + [N // 2] * (3 - warmup)
    assert [record["n_backward"] for record in selector.history] == kept(selector)
    assert torch.equal(selector.scores, given) and selector.selected.tolist() == list(range(N // 2))


def test_given_scores_are_compared_within_each_class():
    given = torch.randperm(N, generator=torch.Generator().manual_seed(1)).float()
    selector = EL2N(prune_ratio=0.5, scores=given, warmup_epochs=1, balance="class")
    _, _, y = fit(selector, epochs=2)
    best = [given.masked_fill(y != label, -1).topk(int((y == label).sum() + 1) // 2).indices for label in range(3)]
    assert selector.selected.tolist() == torch.cat(best).sort().values.tolist()


class ByHand(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, _):
        self.manual_backward(super().training_step(batch, _))
        self.optimizers().step()


class Mixing(Classifier):
    """Its BatchNorm knows a batch alone."""

    def __init__(self):
        super().__init__()
        self.model.insert(1, nn.BatchNorm1d(8, track_running_stats=False))


@pytest.mark.parametrize(("module", "error"), [(ByHand, TypeError), (Mixing, ValueError)])
def test_grand_of_all_layers_refuses_what_it_cannot_measure_unless_scores_are_given(module, error):
    with pytest.raises(error, match=r"manual optimization|keeps no running statistics"):
        fit(GraNd(layers="all"), module=module)
    selector = GraNd(scores=torch.arange(float(N)))
    fit(selector, module=module, epochs=1)
    assert selector.selected.tolist() == list(range(N // 2, N))


@pytest.mark.parametrize("layers", ["last", "all"])
def test_grand_measures_a_module_in_float64(layers):
    class Doubled(Classifier):
        def training_step(self, batch, _):
            return super().training_step((batch[0].double(), batch[1]), _)

    selector = GraNd(layers=layers, warmup_epochs=1)
    fit(selector, module=lambda: Doubled().double(), epochs=2)
    assert not selector.scores.isnan().any() and kept(selector) == [N, N // 2]


def test_grand_keeps_no_features_once_it_has_measured(monkeypatch):
    class Watched(LastLayerGradients):
        def __init__(self, *args):
            super().__init__(*args)
            watched.append(self)

    class Look(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            held.append((trainer.current_epoch, len(watched[0].inputs)))

    watched, held = [], []
    monkeypatch.setattr(grand, "LastLayerGradients", Watched)
    fit(GraNd(warmup_epochs=2), epochs=3, callbacks=[Look()])
    assert {count for epoch, count in held if epoch == 2} == {0}


def test_grand_reads_the_features_and_lets_go_of_the_module():
    selector = GraNd(warmup_epochs=1, prune_ratio=0.5)
    model, x, y = fit(selector, epochs=1)
    # with one epoch the scores are those of a moving network; order of size is what can be checked
    features = model.model[:2](x)
    error = model.model(x).softmax(1) - nn.functional.one_hot(y, 3)
    now = (error.norm(dim=1) * (features.square().sum(1) + 1).sqrt()).detach()
    assert torch.corrcoef(torch.stack([now, selector.scores]))[0, 1] > 0.6
    assert all(not layer._forward_hooks for layer in model.modules())


def test_grand_without_a_linear_layer_says_what_it_saw():
    class NoHead(Classifier):
        def training_step(self, batch, _):
            x, y = batch
            return nn.functional.cross_entropy(self.model(x)[:, :2], y.clamp(max=1))

    with pytest.raises(ValueError, match=r"no torch.nn.Linear with 2 outputs.*\[3, 8\]"):
        fit(GraNd(warmup_epochs=1), module=NoHead)


def test_seta_prunes_by_windows_until_it_anneals():
    selector = SeTa(prune_ratio=0.2, anneal=0.25)
    fit(selector, epochs=8)
    sizes = kept(selector)
    assert sizes[0] == 48 and sizes[6:] == [48, 48]
    assert all(size < 48 for size in sizes[2:6])
