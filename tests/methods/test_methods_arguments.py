"""The arguments of every method: which it takes, which it refuses, and what the command line says of them."""

import inspect
import math

import numpy as np
import pytest
import torch

from lightning_dataselect import DataSelector, list_methods
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.methods.registry import get
from lightning_dataselect.utils.arguments import accepted_arguments
from lightning_dataselect.utils.errors import ArgumentTypeError, DataSelectError, InvalidArgumentError
from lightning_dataselect.utils.validation import SET_LEVEL

every_method = pytest.mark.parametrize("name", [method.name for method in list_methods()])
COMMON = set(accepted_arguments(DataSelector))
GIVEN = {"prune_ratio": 0.3, "every_n_epochs": 2, "balance": "class", "batch_ratio": 0.2, "whole_batches": False}
WITHIN_BATCHES = ("AutoAssist", "DBPD", "EvolvedSampling", "RHOLoss", "SelectiveBackprop", "SMRD")


def described(cls):
    """Help of each argument on the command line, by name."""
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(cls, "x", fail_untyped=False)
    prefix = "--x."
    options = {name: action.help for action in parser._actions for name in action.option_strings}
    return {name.removeprefix(prefix): text for name, text in options.items() if name.startswith(prefix)}


@every_method
def test_command_line_has_every_argument_that_means_something_with_its_help(name):
    cls = get(name).cls
    found = {argument: text for argument, text in described(cls).items() if not argument.endswith(".help")}
    own = {name for name, p in inspect.signature(cls).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert own | (COMMON - cls.unused) <= found.keys() and not found.keys() & cls.unused
    assert all(text and len(text) > 15 for text in found.values()), found


@pytest.mark.parametrize("name", WITHIN_BATCHES)
def test_method_within_batches_refuses_what_it_cannot_heed(name):
    cls = get(name).cls
    assert cls.unused >= SET_LEVEL
    for argument in cls.unused:
        words = rf"{name} has no use for {argument}=.*every sample in every epoch.*such as InfoBatch, or ESWP"
        with pytest.raises(TypeError, match=words):
            cls(**{argument: GIVEN[argument]})


@every_method
def test_every_other_argument_of_the_base_class_is_taken(name):
    cls = get(name).cls
    values = {
        "prune_ratio": 0.3,
        "warmup_epochs": 11,
        "anneal": 0.2,
        "every_n_epochs": 2,
        "seed": 5,
        "lr_schedule": "steps",
        "sample_loss": "batch",
        "balance": "class",
    }
    assert values.keys() <= COMMON
    if get(name).kind == "static":
        values["every_n_epochs"] = 1  # one subset is kept
    taken = {argument: value for argument, value in values.items() if argument not in cls.unused}
    selector = cls(**taken)
    assert {argument: getattr(selector, argument) for argument in taken} == taken
    prune_ratio = 1 - selector.budget if name == "Frontier" else 0.0
    kept = {"prune_ratio": prune_ratio, "every_n_epochs": 1, "balance": None}
    assert all(getattr(selector, argument) == kept[argument] for argument in cls.unused & kept.keys())


@pytest.mark.parametrize("name", WITHIN_BATCHES)
def test_compare_hands_on_what_is_taken_alone(name):
    (spec,) = parse_methods(name)
    assert spec.build(prune_ratio=0.4, seed=3).seed == 3


def test_eswp_takes_the_arguments_of_both_kinds():
    (spec,) = parse_methods("ESWP(balance='class', score_every_n_batches=2)")
    selector = spec.build(prune_ratio=0.4, seed=3)
    assert (selector.prune_ratio, selector.balance, selector.score_every_n_batches) == (0.4, "class", 2)


OF_RAJU = {"alpha": 0.8, "uncertainty": "cross_entropy", "every_n_epochs": 10, "rescore": False}
OF_STATIC_SCORES = {"prune_ratio": 0.5, "warmup_epochs": None, "scores": None, "sampler": "highest"}
DEFAULTS = {
    "RandomPruning": {"prune_ratio": 0.5, "mode": "fresh", "warmup_epochs": 0, "rescale": False},
    "EpsilonGreedy": {"epsilon": 0.1} | OF_RAJU,
    "UCB": {"c": 1.0} | OF_RAJU,
    "EL2N": OF_STATIC_SCORES,
    "Forgetting": OF_STATIC_SCORES,
    "GraNd": OF_STATIC_SCORES | {"layers": "last"},
    "CCS": {
        "prune_ratio": 0.7, "cutoff": 0.1, "n_strata": 50, "on": "probabilities", "warmup_epochs": None, "scores": None,
    },
    "DUAL": {"prune_ratio": 0.5, "window": 10, "exponent": 4.0, "warmup_epochs": None, "scores": None},
    "TDDS": OF_STATIC_SCORES | {"window": 10, "decay": 0.9},
    "RCAP": {"prune_ratio": 0.5, "temperature": 1.0, "class_loss": "importance", "warmup_epochs": 1},
    "ScoreSelector": OF_STATIC_SCORES | {"score": "loss", "dynamic": False},
    "SwiftLearn": {
        "prune_ratio": 0.9, "warmup_epochs": 2, "every_n_epochs": 5, "measure": "mse", "on": "logits", "mode": "topk",
        "max_width": 256, "outputs": "auto",
    },
    "AutoAssist": {
        "base_prob": None, "assistant": None, "synchronous": False, "inputs": None, "queue_size": None,
        "learning_rate": None, "memory": 0.75, "warmup_epochs": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_papers_and_of_the_docstrings(name):
    own = {p.name: p.default for p in inspect.signature(get(name).cls).parameters.values() if p.name != "common"}
    assert own == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "epochs"), [("EL2N", 10), ("GraNd", 10), ("Forgetting", 20), ("CCS", 20), ("TDDS", 30)]
)
def test_static_scores_are_measured_for_as_long_as_is_written_or_not_at_all(name, epochs):
    assert get(name).cls().warmup_epochs == epochs
    assert get(name).cls(scores=torch.zeros(3)).warmup_epochs == 0


WRONG = (-1, 1.5, math.nan, "x", True, None, [0.5], {}, np.int64(-2), torch.tensor(0.5), object())


@every_method
def test_a_wrong_value_of_any_argument_is_taken_or_refused_by_its_name(name):
    cls = get(name).cls
    for argument in accepted_arguments(cls):
        for value in WRONG:
            try:
                cls(**{argument: value})
            except DataSelectError as error:
                assert argument in str(error) and str(error).endswith(".")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("UCB", "rescore"),
        ("EpsilonGreedy", "rescore"),
        ("KAKURENBO", "scale_lr"),
        ("RandomPruning", "rescale"),
        ("AutoAssist", "synchronous"),
        ("ScoreSelector", "dynamic"),
        ("InfoBatch", "log"),
        ("InfoBatch", "whole_batches"),
        ("DBPD", "constant_batch_size"),
    ],
)
@pytest.mark.parametrize("value", ["no", 0, None])
def test_a_flag_is_true_or_false(name, argument, value):
    with pytest.raises(ArgumentTypeError, match=f"{argument}={value!r} is not a bool: give True or False"):
        get(name).cls(**{argument: value})


@pytest.mark.parametrize(
    ("name", "argument", "value", "words"),
    [
        ("ESWP", "betas", 0.5, r"betas=0\.5 is not a list or tuple of numbers: give one, say \(0\.2, 0\.9\)"),
        ("KAKURENBO", "phases", 0.5, r"phases=0\.5 is not a list or tuple of numbers"),
        ("RHOLoss", "holdout_losses", [0.5], r"holdout_losses holds \[0\.5\]: give a tensor of one number a sample"),
        ("EL2N", "scores", np.zeros(3), r"scores holds <ndarray of shape \(3,\)>: give a tensor.*torch.as_tensor"),
        ("EL2N", "scores", [0.5, 0.2], r"scores holds 0\.5: give a tensor"),
        ("SwiftLearn", "outputs", "", "outputs='' must be 'auto' or the name of a submodule"),
        ("SwiftLearn", "outputs", 3, "outputs=3 must be 'auto' or the name of a submodule"),
    ],
)
def test_an_argument_of_another_kind_is_answered_with_what_to_give(name, argument, value, words):
    with pytest.raises(ArgumentTypeError, match=words):
        get(name).cls(**{argument: value})


def test_scores_of_which_none_is_a_number_are_no_scores():
    with pytest.raises(InvalidArgumentError, match="scores= of 3 samples holds no number, for no sample was measured"):
        get("EL2N").cls(scores=torch.full((3,), math.nan))
