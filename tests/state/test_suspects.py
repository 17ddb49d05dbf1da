"""Suspects, against averages kept in float64 of what each training step itself computed."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import fit
from matrix_settings import Tiny
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import EvolvedSampling, RandomPruning
from lightning_dataselect.report.export import to_frame
from lightning_dataselect.report.specimens import specimens
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.suspects import averages, suspicions

N, C, EPOCHS = 64, 3, 6
WRONG = list(range(0, N, 8))


def samples(*, classes=True):
    """The first feature of each sample is its index, which the network does not see; one target in eight is wrong."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(C, (N,), generator=generator)
    x = 2 * F.one_hot(y, C).float() + 0.3 * torch.randn(N, C, generator=generator)
    x = torch.cat([torch.arange(N).float()[:, None], x, torch.zeros(N, 1)], 1)
    if not classes:
        y = y.float()
    y[WRONG] = (y[WRONG] + 1) % C if classes else y[WRONG] + 9
    return TensorDataset(x, y)


class Classifies(Tiny):
    """Keeps, in float64, the margins, probabilities and losses of each of its samples."""

    def __init__(self, *, classes=True):
        super().__init__()
        self.classes = classes
        self.told = [[] for _ in range(N)]

    def training_step(self, batch, batch_idx):
        x, y = batch
        outputs = self.model(x[:, 1:])
        rows = outputs.detach().double().numpy()
        for i, row, target in zip(x[:, 0].long().tolist(), rows, y.tolist(), strict=True):
            if self.classes:
                p = np.exp(row) / np.exp(row).sum()
                self.told[i].append((row[target] - np.delete(row, target).max(), p[target], -np.log(p[target])))
            else:
                self.told[i].append((math.nan, math.nan, abs(row.sum() - target)))
        return F.cross_entropy(outputs, y) if self.classes else F.l1_loss(outputs.sum(1), y)


def fitted(selector=None, *, classes=True):
    selector, module = selector or RandomPruning(prune_ratio=0), Classifies(classes=classes)
    fit(selector, module, DataLoader(samples(classes=classes), 8, shuffle=True), max_epochs=EPOCHS)
    return selector, [np.array(told) for told in module.told]


def test_the_averages_are_those_of_what_the_steps_computed():
    selector, told = fitted()
    margins, confidences, losses = np.array(told).transpose(2, 0, 1)
    assert margins.shape == (N, EPOCHS)
    frame = to_frame(selector.store, selector.selected)
    expected = {
        "mean_margin": margins.mean(1),
        "confidence": confidences.mean(1),
        "variability": confidences.std(1),
        "mean_loss": losses.mean(1),
        "suspicion": 1 / (1 + np.exp(margins.mean(1))),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(frame[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    first, *_ = found = selector.suspects(5)
    assert [suspect.index for suspect in found] == np.argsort(margins.mean(1))[:5].tolist()
    labels = samples().tensors[1]
    assert first.label == labels[first.index] and first.predicted == selector.store.column("predicted")[first.index]
    np.testing.assert_allclose(first.suspicion, 1 / (1 + np.exp(first.mean_margin)), rtol=1e-5)


def test_averages_are_over_the_epochs_in_which_a_sample_was_seen():
    selector, told = fitted(RandomPruning(prune_ratio=0.25))
    assert 0 < min(map(len, told)) < EPOCHS
    confidence = [row[:, 1].mean() for row in told]
    np.testing.assert_allclose(averages(selector.store)["confidence"], confidence, rtol=1e-4, atol=1e-4)


def test_wrong_labels_come_first_and_a_table_is_made_of_them():
    selector, _ = fitted()
    assert {suspect.index for suspect in selector.suspects(len(WRONG))} == set(WRONG)
    table = pd.DataFrame(selector.suspects(3))
    assert list(table)[:4] == ["index", "suspicion", "mean_loss", "label"] and len(table) == 3
    assert len(selector.suspects(10 * N)) == N


def test_without_classes_wrong_targets_have_the_highest_mean_loss():
    selector, told = fitted(classes=False)
    losses = np.array([row[:, 2].mean() for row in told])
    found = selector.suspects(len(WRONG))
    assert {suspect.index for suspect in found} == set(WRONG)
    np.testing.assert_allclose([s.mean_loss for s in found], sorted(losses)[: -len(WRONG) - 1 : -1], rtol=1e-4)
    assert [s.suspicion for s in found] == pytest.approx([(N - 1 - rank) / N for rank in range(len(WRONG))])
    assert found[0].label is found[0].confidence is found[0].mean_margin is None


def test_the_report_shows_probable_errors_first():
    for classes, name in ((True, "probable label errors"), (False, "highest mean loss, the target may be wrong")):
        selector, _ = fitted(classes=classes)
        group = specimens(selector, samples(classes=classes), lambda item: None)[0]
        assert group["name"] == name and {item["index"] for item in group["items"]} == set(WRONG)
        assert all(item["suspicion"] > 0.5 for item in group["items"])


def test_ignored_samples_and_losses_that_are_not_finite_count_for_nothing():
    store = SampleHistoryStore(3)
    i, logits = torch.tensor([0, 1, 2]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [torch.inf, 0.0]])
    for labels in ([0, 0, 0], [1, -100, 0]):
        store.record_logits(Observation(i, torch.zeros(3), logits, torch.tensor(labels), 0))
    high, low = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))
    np.testing.assert_allclose(averages(store)["confidence"], [0.5, low, np.nan], rtol=1e-6)
    np.testing.assert_allclose(averages(store)["variability"], [(high - low) / 2, 0.0, np.nan], atol=1e-3)
    losses = SampleHistoryStore(3)
    for given in ([1.0, 2.0, torch.nan], [torch.inf, 4.0, torch.nan]):
        losses.record_losses(i, torch.tensor(given))
    np.testing.assert_allclose(suspicions(losses), [0.0, 0.5, np.nan])


def test_before_a_fit_and_without_a_loss_it_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"before a fit has begun: call trainer\.fit first"):
        RandomPruning().suspects()
    with pytest.raises(ValueError, match="n=0 is too small"):
        RandomPruning().suspects(0)
    selector = RandomPruning(prune_ratio=0)

    class Diverges(Tiny):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.model(batch[0][:, 1:]) * torch.nan, batch[1])

    fit(selector, Diverges(), DataLoader(samples(), 8), max_epochs=1)
    with pytest.raises(RuntimeError, match=r"RandomPruning.suspects: no sample has a finite loss yet.*RandomPruning\("):
        selector.suspects()


def test_a_method_that_scores_batches_tells_suspects_too():
    selector, _ = fitted(EvolvedSampling(batch_ratio=0.5, anneal=0.0))
    assert len({suspect.index for suspect in selector.suspects(len(WRONG))} & set(WRONG)) >= len(WRONG) - 1
