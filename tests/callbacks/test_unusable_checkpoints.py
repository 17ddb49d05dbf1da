"""A fit whose checkpoint is cut short, damaged or another thing's stops with a sentence, and trains nothing."""

import pickle

import pytest
import torch
from helpers import Net, fit
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dataselect import InfoBatch
from lightning_dataselect.utils.errors import CheckpointMismatchError, UnreadableCheckpointError

KEY = "lightning_dataselect.InfoBatch"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    fit(InfoBatch(), callbacks=[ModelCheckpoint(folder, filename="last")], enable_checkpointing=True, max_epochs=2)
    return folder / "last.ckpt"


def resumed(path, **flags):
    net = Net()
    made, _ = fit(InfoBatch(), net, ckpt_path=path, max_epochs=3, **flags)
    return made, net


BYTES = {
    "empty": (lambda data: b"", "is empty"),
    "half": (lambda data: data[: len(data) // 2], r"is cut short: it ends after [\d,]+ bytes, without the list"),
    "without its last byte": (lambda data: data[:-1], "is cut short: it ends after"),
    "with a hole": (lambda data: data[:2000] + bytes(1000) + data[3000:], "is damaged: the bytes of its part '.*pkl'"),
    "a page of the web": (lambda data: b"<html>404</html>", "is no checkpoint: it begins with '<html>404</html>'"),
    "zeros": (lambda data: bytes(len(data)), r"is no checkpoint: it begins with '\\x00"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BYTES)
def test_a_damaged_file_is_named_with_its_fault(damage, whole, tmp_path):
    change, words = BYTES[damage]
    path = tmp_path / "last.ckpt"
    path.write_bytes(change(whole.read_bytes()))
    with pytest.raises(UnreadableCheckpointError, match=f"last.ckpt' {words}.*Resume from an earlier checkpoint") as e:
        resumed(path)
    assert e.value.__cause__ is not None  # what torch says is kept


FOREIGN = {
    "weights": ({"net.0.weight": torch.zeros(1)}, "it holds 1 entries .'net.0.weight', ....*load_state_dict"),
    "a list": ([1, 2], "it holds a list"),
    "a tensor": (torch.zeros(3), "it holds a Tensor"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_something_else_is_named_with_what_it_holds(kind, tmp_path):
    content, words = FOREIGN[kind]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UnreadableCheckpointError, match=f"last.ckpt' is none of a Trainer: {words}"):
        resumed(tmp_path / "last.ckpt")


def test_what_is_wrong_with_no_file_is_left_to_lightning(tmp_path, whole):
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(IsADirectoryError):
        resumed(tmp_path / "folder.ckpt")
    with pytest.raises(FileNotFoundError):
        resumed(tmp_path / "none.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"object": object()}))
    with pytest.raises(pickle.UnpicklingError):
        resumed(tmp_path / "pickle.ckpt")


STATES = {
    "it lacks 'ranks', 'samples'": lambda state: [state.pop(name) for name in ("ranks", "samples")],
    "'fit' lacks 'seconds'": lambda state: state["fit"].pop("seconds"),
    "'plan' lacks 'order'": lambda state: state["fit"]["plan"].pop("order"),
    "it has 'more', which this version does not know": lambda state: state.update(more=1),
    "'ranks' is no mapping, but int": lambda state: state.update(ranks=[3]),
    "its column 'loss' is of 5 samples, and the data set has 100": lambda state: state["columns"].update(
        loss=torch.zeros(5)
    ),
}


@pytest.mark.parametrize("words", STATES)
def test_the_state_of_another_version_is_refused_before_it_is_taken_up(words, whole, tmp_path):
    checkpoint = torch.load(whole)
    STATES[words](checkpoint["callbacks"][KEY])
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointMismatchError, match=f"of InfoBatch cannot be taken up: {words}. Another version"):
        resumed(tmp_path / "last.ckpt")


def test_a_state_that_is_no_mapping_is_refused(whole, tmp_path):
    checkpoint = torch.load(whole)
    checkpoint["callbacks"][KEY] = 3
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointMismatchError, match="it is no mapping, but int"):
        resumed(tmp_path / "last.ckpt")


def test_nothing_is_trained_on_and_all_is_given_back(whole, tmp_path):
    path, net = tmp_path / "last.ckpt", Net()
    path.write_bytes(whole.read_bytes()[:-1])
    selector = InfoBatch()
    with pytest.raises(UnreadableCheckpointError):
        fit(selector, net, ckpt_path=path)
    assert net.steps == [] and "training_step" not in vars(net)
    made, _ = fit(selector, net, ckpt_path=whole, max_epochs=3)
    assert "load_checkpoint" not in vars(made.strategy) and {step.epoch for step in net.steps} == {2}


@pytest.mark.parametrize("ending", [".pt", ".npy", ".csv", ".parquet"])
def test_a_damaged_file_of_losses_is_named_with_its_argument(ending, tmp_path):
    from lightning_dataselect import RHOLoss

    pytest.importorskip("pandas")
    path = tmp_path / f"losses{ending}"
    path.write_bytes(b"\x93NUM" if ending != ".csv" else b'loss\n"1.0\n2.0')
    with pytest.raises(ValueError, match=f"holdout_losses='.*losses{ending}' cannot be read: it is truncated, damaged"):
        RHOLoss(holdout_losses=path)


def test_a_damaged_file_to_start_from_is_named_with_its_argument(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "samples.parquet"
    selector = InfoBatch()
    fit(selector, max_epochs=1)
    selector.export(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="start_from='.*samples.parquet' cannot be read: it is truncated, damaged"):
        InfoBatch(start_from=path)
