"""Writing files whole: whoever looks finds the new file or the earlier one, and never a part of either."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lightning_dataselect.utils.errors import UnwritableFileError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, which takes the place of ``path`` once the ``with`` block ends.

    Args:
        path: Where the file will be. If writing fails, as on a full disk, what is there stays as it was.

    Yields:
        A path beside it.

    Raises:
        UnwritableFileError: If the system refuses to write the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder) / "a.txt") as unfinished:
        ...         _ = unfinished.write_text("all of it")
        ...     print([path.name for path in Path(folder).iterdir()])
        ['a.txt']
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except UnwritableFileError:
        raise  # of another file, written within the same block
    except OSError as error:
        stays = "; the one that was there is as it was" if path.exists() else ""
        raise UnwritableFileError(
            f"{path} cannot be written: {error.strerror or error}{stays}. Make room, or give another place that can be"
            " written to, and write it again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
