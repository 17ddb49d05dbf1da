"""Reading files that others have written: what is wrong with one that cannot be read."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lightning_dataselect.utils.errors import DataSelectError, InvalidArgumentError, one_line

_ZIP = b"PK\x03\x04"
_OLD_CHECKPOINT = (b"\x80", b"PK")  # a pickle, or a zip archive
_SHOWN = 24


@contextlib.contextmanager
def reading(named: str) -> Iterator[None]:
    """Say which argument names a file, if that turns out to be damaged in a ``with`` block.

    Args:
        named: The argument and its value.

    Raises:
        InvalidArgumentError: If the file cannot be read.

    Example:
        >>> with reading("holdout_losses='losses.npy'"):
        ...     int("1;2")
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.InvalidArgumentError: holdout_losses='losses.npy' cannot be read: it is tr...
    """
    try:
        yield
    except (DataSelectError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise InvalidArgumentError(
            f"{named} cannot be read: it is truncated, damaged, or not the kind of file that its name says"
            f" ({one_line(error)[:200]}). Write it anew, with a selector's export() for one."
        ) from error


def fault_of_checkpoint(path: Path) -> str | None:
    """Say what is wrong with a file in which torch has not found a checkpoint; None if nothing is, or none can tell.

    Args:
        path: A file on this machine. It is read as a whole, which loading one does anyway.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = Path(folder) / "last.ckpt"
        ...     _ = page.write_text("<html>Not found</html>")
        ...     print(fault_of_checkpoint(page))
        is no checkpoint: it begins with '<html>Not found</html>'
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(_SHOWN)
    if not start:
        return "is empty"
    if start.startswith(_ZIP):
        return _fault_of_archive(path)
    if start.startswith(_OLD_CHECKPOINT):
        return None
    return f"is no checkpoint: it begins with {start.decode('latin-1')!r}"


def _fault_of_archive(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return f"is cut short: it ends after {path.stat().st_size:,} bytes, without the list of contents at its end"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # whatever the bytes make of the archive's own records
        return f"is damaged ({one_line(error)})"
    return None if damaged is None else f"is damaged: the bytes of its part {damaged!r} are not those that were written"
