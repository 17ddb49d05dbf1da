import pytest
import torch

from lightning_dataselect.state.selection import Selection, check_selection


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
