"""Files that are there as a whole, or as they were."""

import pickle

import pytest

from lightning_dataselect.utils.errors import UnwritableFileError
from lightning_dataselect.utils.writing import written_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_what_was_there(tmp_path, earlier):
    path = tmp_path / "a.txt"
    if earlier:
        path.write_text("earlier")
    (tmp_path / "a.txt.unfinished").symlink_to("/dev/full")
    words = "a.txt cannot be written: No space left on device; the one that was" if earlier else "on device. Make room"
    with pytest.raises(UnwritableFileError, match=words) as told, written_whole(path) as unfinished:
        unfinished.write_text("new")
    assert isinstance(told.value, OSError) and str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
    assert names(tmp_path) == ["a.txt"] * earlier and (not earlier or path.read_text() == "earlier")


def test_several_files_change_together_or_not_at_all(tmp_path):
    def write(text):
        with written_whole(tmp_path / "a.txt") as a, written_whole(tmp_path / "b.txt") as b:
            a.write_text(text)
            b.write_text(text)

    write("earlier")
    (tmp_path / "b.txt.unfinished").symlink_to("/dev/full")
    with pytest.raises(UnwritableFileError, match=r"b\.txt cannot be written"):
        write("new")
    assert names(tmp_path) == ["a.txt", "b.txt"]
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"earlier"}


def test_another_error_is_passed_on_and_leaves_nothing_either(tmp_path):
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        1 / 0  # noqa: B018
    assert not names(tmp_path)
