"""A slip in a method of one's own is named when it is made, or when the fit begins, and not epochs later."""

import pytest
import torch
from helpers import fit

from lightning_dataselect import BatchSelector, DataSelectError, DataSelector, Selection
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.utils.errors import (
    InvalidSelectionError,
    MethodDefinitionError,
    SelectionTypeError,
    UnknownColumnError,
)


class All(DataSelector):
    returned = None

    def select(self, epoch, scores, generator):
        return Selection(torch.arange(scores.numel())) if self.returned is None else self.returned


def test_a_set_level_method_must_select():
    class Misspelt(DataSelector):
        def selects(self, epoch, scores, generator): ...

    with pytest.raises(MethodDefinitionError, match=r"Misspelt must define select\(self, epoch, scores, generator\)"):
        fit(Misspelt(), max_epochs=1)  # ends before its `select` is asked


def test_a_method_that_drops_nothing_needs_no_decision():
    class Watch(DataSelector):
        pass

    watch = Watch(prune_ratio=0)
    fit(watch, max_epochs=1)
    assert watch.losses.isfinite().all()


def test_a_batch_level_method_must_choose():
    class Undecided(BatchSelector):
        pass

    with pytest.raises(MethodDefinitionError, match=r"Undecided must define choose\(self, seen, k, generator\)"):
        fit(Undecided(), max_epochs=1)


def test_columns_are_names_with_initial_values():
    class Listed(All):
        def columns(self):
            return ["seen"]

    with pytest.raises(MethodDefinitionError, match=r"Listed.columns returned \['seen'\]: return a dict"):
        fit(Listed(), max_epochs=1)

    class Named(All):
        def columns(self):
            return {"seen": None}

    with pytest.raises(MethodDefinitionError, match=r"Named.columns returned \{'seen': None\}"):
        fit(Named(), max_epochs=1)


def test_the_base_class_must_be_initialized():
    class Own(All):
        def __init__(self, share=0.5):
            self.share = share

    with pytest.raises(MethodDefinitionError, match=r"Own.__init__ does not call .* super\(\).__init__\(\*\*common\)"):
        fit(Own(), max_epochs=1)


def test_the_order_of_the_base_classes_is_checked_where_it_is_written():
    with pytest.raises(MethodDefinitionError, match="class Hard: name WithinBatches before BatchSelector"):

        class Hard(BatchSelector, WithinBatches):
            pass


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (Selection([1, 2]), SelectionTypeError, r"select returned indices as a list: .* torch.as_tensor\(indices\)"),
        (
            Selection(torch.tensor([1, 2]), [1, 2]),
            SelectionTypeError,
            r"weights as a list: .* torch.as_tensor\(weights",
        ),
        (Selection(torch.tensor([1, 2]), torch.tensor([1, torch.nan])), InvalidSelectionError, "NaN or infinite"),
        (Selection(torch.tensor([1, 2]), torch.tensor([1, torch.inf])), InvalidSelectionError, "NaN or infinite"),
    ],
)
def test_a_selection_holds_tensors_of_finite_numbers(returned, error, words):
    method = All(warmup_epochs=0)
    method.returned = returned
    with pytest.raises(error, match=words):
        fit(method, max_epochs=1)


def test_an_unknown_column_is_answered_with_the_nearest_one():
    class Asks(All):
        def columns(self):
            return {"seen": 0.0}

    asks = Asks()
    fit(asks, max_epochs=1)
    for ask in (asks.column, asks.store.__getitem__):
        with pytest.raises(UnknownColumnError, match=r"no column 'sen'. Did you mean seen\? There are .*loss"):
            ask("sen")
    assert issubclass(UnknownColumnError, KeyError) and issubclass(UnknownColumnError, DataSelectError)
