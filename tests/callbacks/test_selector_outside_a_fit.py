"""Before a fit a selector answers with its arguments, and says that there are no results yet."""

import copy
import pickle

import pytest
import torch
from helpers import Shares, fit

from lightning_dataselect import DataSelectError, InfoBatch, RHOLoss, SelectiveBackprop, SwiftLearn

RESULTS = ("scores", "losses", "selected", "weights", "store", "state")


@pytest.mark.parametrize("name", RESULTS)
def test_there_are_no_results_before_a_fit(name):
    assert not hasattr(InfoBatch(), name)
    with pytest.raises(DataSelectError, match="InfoBatch .*before a fit has begun: call trainer.fit first"):
        getattr(InfoBatch(), name)
    assert InfoBatch().history == []


def test_there_are_results_after_a_fit():
    selector = Shares(0.5)
    fit(selector, max_epochs=2)
    assert all(hasattr(selector, name) for name in RESULTS)


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (
            InfoBatch(anneal=0.2),
            "InfoBatch(prune_ratio=0.5, anneal=0.2, warmup_epochs=0, every_n_epochs=1, seed=0, lr_schedule='stretch',"
            " sample_loss='auto', balance=None",
        ),
        (
            SelectiveBackprop(history=8),
            "SelectiveBackprop(beta=3.0, history=8, warmup_epochs=1, score_dtype=None, score_every_n_batches=1,"
            " score_scale=1.0, whole_every_n_batches=0, constant_batch_size=False, anneal=0.0, seed=0,"
            " lr_schedule='stretch', sample_loss='auto'",
        ),
        (SwiftLearn(measure="l1", every_n_epochs=0), "every_n_epochs=0, measure='l1'"),
        (RHOLoss(holdout_losses=torch.zeros(9)), "RHOLoss(holdout_losses=<Tensor of shape (9,)>, holdout_model=None"),
        (Shares(0.5, 0.25, seed=1), "Shares(0.5, 0.25, prune_ratio=0.5, warmup_epochs=1,"),
    ],
)
def test_its_repr_is_the_call_that_made_it(selector, text):
    assert text in repr(selector)
    for copied in (copy.deepcopy(selector), pickle.loads(pickle.dumps(selector))):
        assert repr(copied) == repr(selector)


def test_its_repr_is_a_call_that_makes_it_again():
    selector = InfoBatch(prune_ratio=0.3, balance="class")
    assert repr(eval(repr(selector))) == repr(selector)
