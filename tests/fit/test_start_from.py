"""Fits that start from the scores of an earlier one: the same samples, more of them, fewer, or a stream."""

import json
import subprocess
import sys

import lightning as L
import pandas as pd
import pytest
import torch
from helpers import Hardest, Net, dataset, fit
from ranks import on_ranks
from streams import Keyed, stream
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from lightning_dataselect import EL2N, UCB, EvolvedSampling, InfoBatch, SelectiveBackprop


class Named(Dataset):
    """The samples of `helpers.dataset`, each with a name."""

    def __init__(self, n=100, seed=0, names=None):
        self.rows = dataset(n, seed)
        self.names = names or [f"s{i:04}" for i in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def batches(of):
    return DataLoader(of, 10, shuffle=True)


def exported(path, train, make=InfoBatch, **options):
    selector = make(**options)
    fit(selector, Net(), batches(train), max_epochs=2)
    return selector.export(path), selector


def begun(make, path, train, **options):
    """A selector after no epoch, with what it was given to begin with."""
    selector = make(start_from=path, warmup_epochs=0, **options)
    fit(selector, Net(), batches(train), max_epochs=1, limit_train_batches=1)
    return selector


class Kept(Hardest):
    """Keeps in mind the scores that it chose the first epoch by."""

    first = None

    def select(self, epoch, scores, generator):
        self.first = scores.clone() if self.first is None else self.first
        return super().select(epoch, scores, generator)


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_the_same_samples_begin_with_what_they_lost(kind, tmp_path):
    path, earlier = exported(tmp_path / f"samples{kind}", dataset())
    selector = begun(Kept, path, dataset(), prune_ratio=0.5)
    torch.testing.assert_close(selector.first, earlier.losses)
    assert selector.selected.tolist() == earlier.losses.topk(50).indices.sort().values.tolist()


def test_a_set_that_has_grown_at_its_end_has_samples_never_measured(tmp_path):
    path, earlier = exported(tmp_path / "samples.csv", dataset())
    selector = begun(Kept, path, ConcatDataset([dataset(), dataset(20, seed=1)]))
    torch.testing.assert_close(selector.first[:100], earlier.losses)
    assert selector.first[100:].isnan().all() and len(selector.first) == 120


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_a_cleaned_and_extended_set_is_known_by_its_keys(kind, tmp_path):
    path, earlier = exported(tmp_path / f"samples{kind}", Named(), sample_id="names")
    cleaned = Subset(Named(), [7, 3, *range(20, 100)])
    more = Named(15, seed=2, names=[f"new{i}" for i in range(15)])
    selector = begun(Kept, path, ConcatDataset([more, cleaned]), sample_id="names")
    torch.testing.assert_close(selector.first[15:], earlier.losses[cleaned.indices])
    assert selector.first[:15].isnan().all()
    assert selector.sample_ids[:17] == [*more.names, "s0007", "s0003"]


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_whole_numbers_from_a_function_are_keys(kind, tmp_path):
    path, earlier = exported(tmp_path / f"samples{kind}", Named(), sample_id=lambda data: range(1000, 1100))
    reverse = Subset(Named(), list(range(99, -1, -1)))
    selector = begun(Kept, path, reverse, sample_id=lambda data: torch.arange(1099, 999, -1))
    torch.testing.assert_close(selector.first, earlier.losses.flip(0))


class Table(Dataset):
    """Has columns, as a Hugging Face data set does."""

    column_names = ["id", "x"]

    def __len__(self):
        return 100

    def __getitem__(self, name):
        return [f"row {i}" for i in range(100)] if name == "id" else dataset()[name]


def test_a_column_holds_keys(tmp_path):
    path, earlier = exported(tmp_path / "samples.csv", Table(), sample_id="id")
    assert pd.read_csv(path)["key"].tolist() == earlier.sample_ids == Table()["id"]


class Begin(L.Callback):
    """Keeps the columns that a fit begins with; to be listed after the selector."""

    def __init__(self, selector):
        self.selector = selector

    def on_train_start(self, trainer, pl_module):
        self.columns = self.selector.store.state_dict()


@pytest.mark.parametrize("make", [EvolvedSampling, UCB, EL2N], ids=lambda make: make.__name__)
def test_a_methods_own_columns_go_along(make, tmp_path):
    path, earlier = exported(tmp_path / "samples.parquet", dataset(), make, warmup_epochs=1)
    again = make(start_from=path, warmup_epochs=1)
    begin = Begin(again)
    fit(again, Net(), batches(dataset()), max_epochs=1, callbacks=[begin])
    assert earlier.columns()
    for name in ("loss", "score", *earlier.columns()):
        torch.testing.assert_close(begin.columns[name], earlier.store.column(name), equal_nan=True)


def test_a_stream_finds_its_samples_by_their_keys(tmp_path):
    first = SelectiveBackprop(sample_id="id")
    fit(first, Keyed(), stream(keyed=True), max_epochs=2)
    path = first.export(tmp_path / "samples.csv")
    second = SelectiveBackprop(sample_id="id", start_from=path, history_size=40)
    fit(second, Keyed(), stream(keyed=True), max_epochs=1, limit_train_batches=1)
    known = dict(zip(first.sample_ids, first.losses.tolist(), strict=True))
    now = dict(zip(second.sample_ids, second.losses.tolist(), strict=True))
    assert len(now) == 40 and set(now) == {f"s{i}" for i in (*range(8), *range(64, 96))}
    assert all(now[f"s{i}"] == pytest.approx(known[f"s{i}"]) for i in range(64, 96))


def test_a_stream_and_an_indexed_set_know_each_others_keys(tmp_path):
    first = SelectiveBackprop(sample_id="id")
    fit(first, Keyed(), stream(keyed=True), max_epochs=1)
    path = first.export(tmp_path / "samples.parquet")
    names = [f"s{i}" for i in range(95, -1, -1)]
    selector = begun(Kept, path, Named(96, names=names), sample_id="names")
    torch.testing.assert_close(selector.first, first.losses.flip(0))


def test_a_resumed_fit_goes_on_from_its_checkpoint(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", dataset())
    selector = InfoBatch(start_from=path, anneal=0.0)
    trainer, _ = fit(selector, Net(), batches(dataset()), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = InfoBatch(start_from=path, anneal=0.0)
    fit(resumed, Net(), batches(dataset()), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert torch.equal(resumed.losses, selector.losses)


def on_one_rank(path, **spread):
    selector = Kept(start_from=path, warmup_epochs=0)
    fit(selector, Net(), batches(dataset()), max_epochs=1, **spread)
    return selector.first.tolist()


def test_two_ranks_begin_alike(tmp_path):
    path, earlier = exported(tmp_path / "samples.csv", dataset())
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", path=path)
    assert first == second
    torch.testing.assert_close(torch.tensor(first), earlier.losses)


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_other_samples_are_refused(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", dataset())
    for train in (dataset(seed=1), Subset(dataset(), range(1, 100)), Subset(dataset(), list(range(99, -1, -1)))):
        with pytest.raises(ValueError, match="was written for 100 samples, but .* Give both fits sample_id="):
            begun(InfoBatch, path, train)


def test_a_file_without_keys_for_a_fit_with_keys(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", Named())
    with pytest.raises(ValueError, match="has no column 'key'. Give both fits sample_id="):
        begun(InfoBatch, path, Named(), sample_id="names")


def test_keys_that_nobody_knows(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", Named(), sample_id="names")
    with pytest.raises(ValueError, match="knows none of the 20 samples of the train loader"):
        begun(InfoBatch, path, Named(20, names=[f"x{i}" for i in range(20)]), sample_id="names")


def test_scores_of_another_method_mean_something_else(tmp_path):
    path, earlier = exported(tmp_path / "samples.csv", dataset(), UCB)
    with pytest.raises(
        ValueError, match="was written by UCB, whose scores mean something different from those of Evolved"
    ):
        begun(EvolvedSampling, path, dataset())
    torch.testing.assert_close(begun(Kept, path, dataset()).first, earlier.losses)


def test_a_stream_without_keys(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", dataset(96))
    with pytest.raises(ValueError, match="by their keys alone, but sample_id is not given"):
        fit(SelectiveBackprop(start_from=path), Net(), stream())
    with pytest.raises(ValueError, match="by their keys alone, but .* has no column 'key'"):
        fit(SelectiveBackprop(start_from=path, sample_id="id"), Keyed(), stream(keyed=True))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"x": [1]}, r"has the columns \['x'\]: give a file that a selector's export"),
        ({"index": [], "loss": []}, "own.csv' has no row"),
        ({"index": [0, 0], "loss": [1.0, 2.0]}, "names a sample twice"),
        ({"index": [0, 100], "loss": [1.0, 2.0]}, "was written for 101 samples"),
    ],
)
def test_tables_that_are_none(rows, words, tmp_path):
    pd.DataFrame(rows).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(ValueError, match=words):
        begun(InfoBatch, tmp_path / "own.csv", dataset())


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", dataset())
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="entries in line 101, not .*: the file is cut short"):
        begun(InfoBatch, path, dataset())


def test_a_table_of_ones_own(tmp_path):
    pd.DataFrame({"index": [5, 2], "loss": [1.5, 2.5]}).to_parquet(tmp_path / "own.parquet")
    first = begun(Kept, str(tmp_path / "own.parquet"), dataset()).first
    assert first[[5, 2]].tolist() == [1.5, 2.5] and first.isnan().sum() == 98


def test_paths_that_are_none(tmp_path):
    with pytest.raises(TypeError, match="start_from=3 must be the path"):
        InfoBatch(start_from=3)
    with pytest.raises(ValueError, match=r"must end in .csv or .parquet, as what export\(\) writes.$"):
        InfoBatch(start_from="a.json")
    with pytest.raises(ValueError, match=r"To resume a fit: trainer.fit\(..., ckpt_path='last.ckpt'\)"):
        InfoBatch(start_from="last.ckpt")
    with pytest.raises(FileNotFoundError, match="start_from='nope.csv': there is no such file"):
        InfoBatch(start_from="nope.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"x,y\n1,2\n", r"has the columns \['x', 'y'\]: give a file that a selector's export"),
        ("a.csv", b"", r"has the columns \[\]"),
        ("a.csv", b"\x80\x81\xff", "cannot be read: it is truncated, damaged, or not the kind of file"),
        ("a.parquet", b"index,loss", "cannot be read: it is truncated, damaged, or not the kind of file"),
    ],
)
def test_a_file_that_is_no_export_is_refused_before_a_fit(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        InfoBatch(start_from=tmp_path / name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a"] * 100, "gives two samples of Named the same key"),
        (["a"], "gives 1 keys for the 100"),
        ([1.5] * 100, "key 1.5"),
        ([True, False] * 50, "key True"),
    ],
)
def test_keys_that_are_none(names, words):
    with pytest.raises(ValueError, match=words):
        fit(InfoBatch(sample_id="names"), Net(), batches(Named(names=names)))


def test_csv_needs_no_package_and_parquet_names_the_one_that_is_missing(tmp_path):
    path, _ = exported(tmp_path / "samples.csv", dataset())
    code = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("pandas", "pyarrow") else find(name, *rest)
sys.modules["pandas"] = sys.modules["pyarrow"] = None
from lightning_dataselect.state.earlier_scores import read_earlier_scores
print(len(read_earlier_scores(sys.argv[1]).columns["loss"]))
try:
    read_earlier_scores(__import__("shutil").copy(sys.argv[1], sys.argv[1] + ".parquet"))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (
        done.stdout.startswith("100\n") and "needs pyarrow: pip install 'lightning-dataselect[report]'" in done.stdout
    )


def test_what_a_file_tells_of_its_fit(tmp_path):
    path, selector = exported(tmp_path / "samples.csv", dataset())
    told = pd.read_csv(path)["fit"]
    assert json.loads(told[0])["method"] == "InfoBatch" and told[1:].isna().all()
    assert len(json.loads(told[0])["samples"]) == 8
