"""Each common argument that a method accepts changes what a fit does or tells; all others are refused."""

import pytest
import torch
import torch.nn.functional as F
from matrix_settings import SETTINGS, N, Tiny, fit, of_each_kind
from streams import Keyed, stream
from torch.optim.lr_scheduler import LambdaLR

from lightning_dataselect import (
    CCS,
    DUAL,
    EL2N,
    ESWP,
    TDDS,
    AutoAssist,
    BatchSelector,
    DataSelector,
    GraNd,
    InfoBatch,
    RandomPruning,
    RHOLoss,
    ScoreSelector,
    Selection,
    list_methods,
)
from lightning_dataselect.methods.registry import get
from lightning_dataselect.utils.arguments import accepted_arguments
from lightning_dataselect.utils.errors import DataSelectError, InvalidArgumentError, UnexpectedArgumentError

pytest.importorskip("pandas")  # an export is what a fit starts from
METHODS = {name: setting for name, setting in SETTINGS.items() if name == setting.method}
each_kind = pytest.mark.parametrize("setting", of_each_kind(METHODS))
each_method = pytest.mark.parametrize("setting", METHODS.values(), ids=METHODS)
COMMON = set(accepted_arguments(DataSelector)) | set(accepted_arguments(BatchSelector)) | {"batch_ratio"}
COMMON |= {"prune_ratio", "every_n_epochs", "balance", "whole_batches", "logged_loss", "history_size"}
ELSEWHERE = {"loader": "callbacks/test_several_loaders.py", "scratch_dir": "callbacks/test_matrix.py"}
OTHER_KEYS = range(100, 100 + N)

# what is given, and what else is given to both fits, so that it can have an effect
GIVEN = {
    "prune_ratio": (0.375, {}),
    "warmup_epochs": (lambda selector: selector.warmup_epochs + 1, {}),
    "anneal": (0.5, {}),
    "every_n_epochs": (3, {"prune_ratio": "linear(start=0.25, end=0.75)"}),
    "seed": (7, {}),
    "lr_schedule": ("steps", {"budget": 0.75}),
    "sample_loss": ("batch", {}),
    "balance": ("class", {}),
    "whole_batches": (True, {"prune_ratio": 0.4}),
    "budget": (0.6, {}),
    "sample_id": (lambda selector: lambda data: OTHER_KEYS, {}),
    "logged_loss": ("weighted", {"rescale": True}),
    "log": (False, {}),
    "batch_ratio": (0.75, {}),
    "score_dtype": ("bfloat16", {}),
    "score_every_n_batches": (3, {}),
    "score_scale": (0.5, {}),
    "whole_every_n_batches": (4, {}),
    "constant_batch_size": (True, {}),
}


class Stepped(Tiny):
    """Has a schedule by steps, and writes down the loss and the learning rate of each."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.shown = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.shown.append((loss.item(), self.trainer.optimizers[0].param_groups[0]["lr"]))
        return loss

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [{"scheduler": LambdaLR(optimizer, lambda step: 1 / (1 + step)), "interval": "step"}]


def all_of(trainer, module, selector):
    """Return what a fit has done and what it tells, but for the time it took."""
    records = [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]
    told = [values.nan_to_num(-1).tolist() for values in (selector.losses, selector.scores)]
    weights = [values.tolist() for values in module.parameters()]
    return records, told, weights, module.shown, selector.sample_ids, sorted(trainer.callback_metrics)


def fitted(setting, folder, module=None, changes=None, **flags):
    cls = get(setting.method).cls
    own = set(accepted_arguments(cls))
    selector = setting.make(folder, **{name: value for name, value in (changes or {}).items() if name in own})
    made, module = fit(selector, Stepped() if module is None else module, **flags)
    return all_of(made, module, selector), selector


def test_every_common_argument_is_looked_at():
    assert COMMON == GIVEN.keys() | ELSEWHERE.keys() | {"start_from", "history_size"}
    assert METHODS.keys() == {method.name for method in list_methods()}


@each_kind
def test_accepted_argument_has_an_effect(setting, tmp_path):
    accepted = accepted_arguments(get(setting.method).cls)
    plain, selector = fitted(setting, tmp_path)
    assert fitted(setting, tmp_path)[0] == plain  # else anything would seem to have an effect
    for argument in GIVEN.keys() & accepted.keys():
        value, beside = GIVEN[argument]
        value = value(selector) if callable(value) else value
        if (argument, setting.method) == ("whole_batches", "Frontier"):
            beside = {"budget": 0.6}  # which says what is dropped
        flags = {"max_epochs": 6} if argument == "every_n_epochs" else {}  # so that a static method has chosen twice
        before = fitted(setting, tmp_path, changes=beside, **flags)[0] if beside or flags else plain
        try:
            after = fitted(setting, tmp_path, changes={**beside, argument: value}, **flags)[0]
        except DataSelectError:
            assert argument in ("sample_loss", "score_scale")  # refused on the first batch
            continue
        assert after != before, argument


@each_kind
def test_fit_that_starts_from_a_file_knows_what_is_in_it(setting, tmp_path):
    if "start_from" not in accepted_arguments(get(setting.method).cls):
        return
    _, earlier = fitted(setting, tmp_path, Stepped(seed=5))
    path = earlier.export(tmp_path / "earlier.csv")
    short = {"limit_train_batches": 1, "max_epochs": 1}
    before, after = (fitted(setting, tmp_path, changes=more, **short)[0] for more in ({}, {"start_from": path}))
    assert after != before


@each_kind
def test_only_the_last_samples_of_a_stream_are_remembered(setting, tmp_path):
    cls = get(setting.method).cls
    if "history_size" not in accepted_arguments(cls):
        return
    on_stream = {RHOLoss: {"holdout_losses": None, "holdout_model": Keyed()}, ESWP: {"prune_ratio": 0}}
    selector = setting.make(tmp_path, sample_id="id", history_size=32, **on_stream.get(cls, {}))
    fit(selector, Keyed(), stream(keyed=True), max_epochs=1, limit_train_batches=12)
    assert len(selector.losses) == 32


@each_method
def test_common_argument_that_is_not_accepted_is_refused(setting, tmp_path):
    cls = get(setting.method).cls
    values = {name: value for name, (value, _) in GIVEN.items()} | {"history_size": 9, "start_from": "earlier.csv"}
    values |= {"warmup_epochs": 3, "sample_id": "id"}
    for argument in values.keys() - accepted_arguments(cls).keys():
        with pytest.raises(UnexpectedArgumentError, match=f"{cls.__name__} (has no use for|takes no argument)"):
            cls(**{argument: values[argument]})


class Hard(BatchSelector):
    def choose(self, seen, k, generator):
        return seen.losses.topk(k).indices


@pytest.mark.parametrize(
    ("argument", "value"),
    [("prune_ratio", 0.3), ("every_n_epochs", 2), ("balance", "class"), ("whole_batches", False)],
)
def test_batch_level_method_that_does_not_select_has_no_use_for_what_concerns_epochs(argument, value):
    words = (
        f"Hard has no use for {argument}={value!r}: it defines no `select`.*by `batch_ratio`. Leave it out, or define"
    )
    with pytest.raises(UnexpectedArgumentError, match=words):
        Hard(**{argument: value})
    assert argument not in repr(Hard()) and argument not in accepted_arguments(Hard)

    class Both(Hard):
        def select(self, epoch, scores, generator):
            return Selection(torch.arange(len(scores)))

    assert argument in repr(Both(**{argument: value}))


def test_the_defaults_of_arguments_without_effect_may_be_given():
    class Set(InfoBatch):
        gives_weights = False

    assert Hard(prune_ratio=0, every_n_epochs=1, balance=None, whole_batches=True).prune_ratio == 0
    assert Set(logged_loss="unweighted", history_size=1_000_000).logged_loss == "unweighted"
    with pytest.raises(UnexpectedArgumentError, match="Set has no use for logged_loss='weighted': it never weights"):
        Set(logged_loss="weighted")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ESWP(history_size=9), "history_size=9 is how many samples .* without sample_id= they have none"),
        (lambda: RandomPruning(logged_loss="weighted"), "logged_loss='weighted' without rescale=True"),
        (lambda: RHOLoss(holdout_losses=torch.zeros(3), holdout_epochs=2), "holdout_epochs=2 .* leave one of the two"),
        (lambda: AutoAssist(synchronous=True, queue_size=9), "queue_size=9 .* with synchronous=True none waits"),
        (lambda: EL2N(every_n_epochs=2), "EL2N has no use for every_n_epochs=2: it chooses one subset, and keeps it"),
        (lambda: CCS(scores=torch.zeros(3), on="logits"), "on='logits' says how CCS measures scores, but scores="),
        (lambda: DUAL(scores=torch.zeros(3), window=5), "window=5 says how DUAL measures scores, but scores="),
        (lambda: TDDS(scores=torch.zeros(3), decay=0.5), "decay=0.5 says how TDDS measures scores, but scores="),
        (lambda: GraNd(scores=torch.zeros(3), layers="all"), "layers='all' says how GraNd measures scores"),
        (lambda: ScoreSelector(scores=torch.zeros(3), score="el2n"), "score='el2n' says what ScoreSelector measures"),
    ],
)
def test_arguments_of_which_one_makes_the_other_idle_are_refused_together(make, words):
    with pytest.raises((InvalidArgumentError, UnexpectedArgumentError), match=words):
        make()


def test_every_n_epochs_is_taken_by_what_changes_its_choice():
    assert EL2N(every_n_epochs=2, prune_ratio="linear(start=0.2, end=0.7)").every_n_epochs == 2
    assert ScoreSelector(every_n_epochs=2, dynamic=True).every_n_epochs == 2


def test_a_share_that_begins_at_zero_chooses_epochs():
    assert ESWP(prune_ratio="linear(start=0, end=0.5)").chooses_epochs
    assert not ESWP(prune_ratio=0).chooses_epochs
