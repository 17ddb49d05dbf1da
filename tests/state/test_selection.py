import pytest
import torch

from lightning_dataselect.state.selection import BatchSamples, Selection, check_selection, take_chosen


def test_sorts_indices_and_their_weights():
    given = Selection(torch.tensor([4, 0, 2]), torch.tensor([0.4, 0.0, 0.2], dtype=torch.float64))
    checked = check_selection(given, 5, "Mine")
    assert checked.indices.tolist() == [0, 2, 4]
    torch.testing.assert_close(checked.weights, torch.tensor([0.0, 0.2, 0.4]))


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ([1, 2], TypeError, r"Mine\.select returned list: return a Selection"),
        (Selection(torch.tensor([0.0])), TypeError, r"dtype torch\.float32.*must be int64"),
        (Selection(torch.tensor([[0]])), TypeError, r"shape \(1, 1\).*of shape \(n,\)"),
        (Selection(torch.tensor([], dtype=torch.int64)), ValueError, "kept 0 of 5 samples.*Lower `prune_ratio`"),
        (Selection(torch.tensor([1, 1])), ValueError, "a sample twice: each index may be selected once"),
        (Selection(torch.tensor([3, 0, 3])), ValueError, "a sample twice"),
        (Selection(torch.tensor([-1, 2])), ValueError, "from -1 to 2, but the data set has the samples 0 to 4"),
        (Selection(torch.tensor([2, 5])), ValueError, "from 2 to 5"),
        (Selection(torch.tensor([0, 1]), torch.ones(3)), ValueError, r"\(3,\) weights for \(2,\) indices"),
    ],
)
def test_refuses_what_is_no_selection(answer, error, words):
    with pytest.raises(error, match=words):
        check_selection(answer, 5, "Mine")


def test_a_mask_is_told_how_it_becomes_a_selection():
    with pytest.raises(TypeError, match=r"dtype torch\.bool.*mask\.nonzero\(\)\.squeeze\(1\)"):
        check_selection(Selection(torch.tensor([True, False])), 2, "Mine")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ([1, 2], TypeError, r"Mine\.choose returned list: return an int64 tensor of the positions"),
        (torch.tensor([True, False, True, True]), TypeError, r"Mine\.choose returned positions of dtype torch\.bool"),
        (torch.tensor([[0]]), TypeError, r"shape \(1, 1\).*of shape \(n,\)"),
        (torch.tensor([], dtype=torch.int64), ValueError, "no position: choose at least one of 4 samples"),
        (torch.tensor([0, 17]), ValueError, "positions up to 17, but the batch has 4 samples.*no dataset indices"),
    ],
)
def test_refuses_what_are_no_positions(answer, error, words):
    with pytest.raises(error, match=words):
        take_chosen(BatchSamples(torch.arange(4)), answer, "Mine")
