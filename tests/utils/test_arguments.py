"""Accepted arguments of a class, and the nearest one to a name that it does not take."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import lightning_dataselect
from lightning_dataselect import DataSelector, InfoBatch, LogFigures, RatioSchedule, list_methods
from lightning_dataselect.utils.arguments import accepted_arguments, short_text
from lightning_dataselect.utils.errors import UnexpectedArgumentError

METHODS = {method.name: method.cls for method in list_methods()}


@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_keyword_names_the_class_and_the_nearest_argument(name):
    arguments = list(accepted_arguments(METHODS[name]))
    with pytest.raises(UnexpectedArgumentError) as caught:
        METHODS[name](warmup_epoch=1)
    hint = "Did you mean warmup_epochs? " if "warmup_epochs" in arguments else ""
    assert str(caught.value) == f"{name} takes no argument 'warmup_epoch'. {hint}It takes {', '.join(arguments)}."
    with pytest.raises(TypeError, match=f"{name} takes no argument 'colour'. It takes"):
        METHODS[name](colour=1)


@pytest.mark.parametrize("name", METHODS)
def test_an_argument_without_a_name_is_answered_with_the_call_to_write(name):
    first = next(iter(accepted_arguments(METHODS[name])))
    with pytest.raises(
        UnexpectedArgumentError, match=re.escape(f"write {name}({first}=0.5), if that is what is meant")
    ):
        METHODS[name](0.5)


def test_all_arguments_without_a_name_are_named():
    with pytest.raises(UnexpectedArgumentError, match=r"write InfoBatch\(prune_ratio=0.5, anneal=0.1\), if that"):
        InfoBatch(0.5, 0.1)
    with pytest.raises(
        UnexpectedArgumentError, match=r"write RatioSchedule\(start=0.2, end=0.7\), if that.* n_epochs\."
    ):
        RatioSchedule(0.2, 0.7)


def test_a_data_set_given_to_a_selector_is_sent_to_the_fit():
    words = (
        "InfoBatch takes its arguments by name, and no model or data, which are those of trainer.fit. It takes prune"
    )
    with pytest.raises(UnexpectedArgumentError, match=words):
        InfoBatch(TensorDataset(torch.zeros(3)), 30)


@pytest.mark.parametrize(
    ("name", "word", "hint"),
    [
        # InfoBatch(dataset, num_epochs, prune_ratio, delta) of the authors, ratio of their script
        ("InfoBatch", "num_epochs", "How long a fit is the Trainer says: Trainer(max_epochs=...)."),
        ("InfoBatch", "ratio", "Did you mean prune_ratio, the share that is dropped?"),
        ("InfoBatch", "delta", "Did you mean anneal, which is 1 - delta?"),
        ("InfoBatch", "dataset", "Model and data are those of trainer.fit, and a selector is given none of them."),
        ("SeTa", "num_group", "Did you mean n_groups?"),
        ("SeTa", "num-epoch", "How long a fit is the Trainer says: Trainer(max_epochs=...)."),
        ("OrderDP", "random_len_ratio", "Did you mean random_ratio?"),
        ("OrderDP", "top_q_ratio", "Did you mean prune_ratio, which is 1 - random_len_ratio * top_q_ratio?"),
        ("KAKURENBO", "fraction", "Did you mean prune_ratio, the share that is dropped?"),
        ("KAKURENBO", "static_epochs", "Did you mean warmup_epochs?"),
        ("EvolvedSampling", "beta1", "Did you mean betas, the pair (beta1, beta2)?"),
        ("RHOLoss", "percent_train", "Did you mean batch_ratio, the share of each batch that is trained on?"),
        ("RHOLoss", "irreducible_loss_generator", "Did you mean holdout_model?"),
        ("SelectiveBackprop", "prob_pow", "Did you mean beta?"),
        ("SelectiveBackprop", "interrupt", "Did you mean whole_every_n_batches?"),
        ("SelectiveBackprop", "keep", "Did you mean beta, by which SelectiveBackprop chooses?"),
        ("DBPD", "start_revision", "Did you mean anneal, the share of the epochs at the end?"),
        ("IES", "moving_average_rate", "Did you mean window?"),
        ("IES", "delta", "Did you mean threshold?"),
        ("CCS", "mis_ratio", "Did you mean cutoff?"),
        ("DUAL", "c_d", "Did you mean exponent?"),
        ("TDDS", "window_size", "Did you mean window?"),
        # what another method calls it
        ("InfoBatch", "batch_ratio", "Did you mean prune_ratio, the share that is dropped?"),
        ("SRD", "batch_ratio", "Did you mean decay, by which SRD chooses?"),
        ("IES", "batch_ratio", "Did you mean threshold, by which IES chooses?"),
        (
            "Frontier",
            "batch_ratio",
            "Did you mean budget, the share of the compute of training on everything that is spent?",
        ),
        (
            "ESWP",
            "ratio",
            "Did you mean batch_ratio, the share of each batch that is trained on, or prune_ratio, the share that is"
            " dropped?",
        ),
    ],
)
def test_the_words_of_papers_and_of_other_methods_are_known(name, word, hint):
    with pytest.raises(UnexpectedArgumentError) as caught:
        METHODS[name](**{word: 0.5})
    assert str(caught.value).startswith(f"{name} takes no argument {word!r}. {hint} It takes ")


@pytest.mark.parametrize("name", METHODS)
def test_every_other_word_is_of_an_argument_that_there_is(name):
    cls = METHODS[name]
    accepted = accepted_arguments(cls)
    for base in cls.__mro__:
        for word, meant in vars(base).get("other_words", {}).items():
            assert meant.partition(",")[0] in accepted and word not in accepted


def test_what_is_meant_by_a_batch_ratio_is_said_by_every_method_without_one():
    for cls in METHODS.values():
        if "batch_ratio" in accepted_arguments(cls):
            continue
        with pytest.raises(UnexpectedArgumentError, match=r"Did you mean \w+, |by `\w+`"):
            cls(batch_ratio=0.5)


def test_a_schedule_names_what_it_does_not_take_and_what_it_lacks():
    with pytest.raises(UnexpectedArgumentError, match="RatioSchedule takes no argument 'stop'. Did you mean end?"):
        RatioSchedule(start=0.2, stop=0.7)
    with pytest.raises(
        UnexpectedArgumentError, match="RatioSchedule takes no argument 'num_epochs'. Did you mean n_ep"
    ):
        RatioSchedule(start=0.2, end=0.7, num_epochs=3)
    with pytest.raises(UnexpectedArgumentError, match="RatioSchedule lacks end: give both ends, start and end"):
        RatioSchedule(start=0.2)
    schedule = RatioSchedule(start=0.2, end=0.7)
    assert copy.copy(schedule) == pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule


def test_figures_name_what_they_do_not_take():
    with pytest.raises(
        UnexpectedArgumentError, match="LogFigures takes no argument 'interval'. Did you mean every_n_ep"
    ):
        LogFigures(interval=5)
    assert LogFigures(7).every_n_epochs == 7


def test_a_misspelt_name_of_the_package_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"has no attribute 'Infobatch'\. Did you mean InfoBatch\?"):
        _ = lightning_dataselect.Infobatch


def test_a_call_is_written_with_numbers_of_numpy_as_numbers():
    assert "prune_ratio=np.float32(0.5)" in repr(InfoBatch(prune_ratio=np.float32(0.5)))


def test_a_method_of_ones_own_may_take_arguments_by_place():
    class Mine(DataSelector):
        def __init__(self, share, **common):
            super().__init__(prune_ratio=share, **common)

    assert Mine(0.25).prune_ratio == 0.25


def test_a_method_of_ones_own_is_named_too():
    class Mine(DataSelector):
        def __init__(self, *, temperature=1.0, **common):
            super().__init__(**common)

    with pytest.raises(UnexpectedArgumentError, match=r"Mine takes no argument 'sed'. Did you mean seed\? It takes"):
        Mine(sed=1)


def test_every_argument_that_is_listed_is_taken():
    for cls in METHODS.values():
        assert "unknown" not in accepted_arguments(cls) and "seed" in accepted_arguments(cls)
    assert lightning_dataselect.UCB(**dict.fromkeys(("seed", "warmup_epochs"), 1)).seed == 1


def test_what_a_message_quotes_is_on_one_line():
    assert short_text(torch.nn.Sequential(torch.nn.Linear(2, 2))) == "Sequential(...)"
    assert short_text(torch.zeros(100, 100)) == "<Tensor of shape (100, 100)>"
    assert short_text("two\nlines") == r"'two\nlines'"
