"""The place of tensors of one number a sample: in memory, or in files that are mapped into it."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from lightning_dataselect.utils.errors import ArgumentTypeError, InvalidArgumentError, MissingFileError

_ZEROS = bytes(1 << 20)
LARGE = 1 << 22  # bytes; of as many NumPy asks for huge pages


class InMemory:
    """Make tensors as torch does.

    Example:
        >>> InMemory().full((2,), 0.5, torch.float32)
        tensor([0.5000, 0.5000])
    """

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the CPU whose values are still to be written."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes < LARGE:
            return torch.empty(tuple(shape), dtype=dtype)
        # NumPy's memory, not torch's: Linux gives it huge pages, and a page that is touched for the first time is slow
        return torch.from_numpy(np.empty(n_bytes, dtype=np.uint8)).view(dtype).view(tuple(shape))

    def full(
        self, shape: Sequence[int], value: float, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return a tensor that holds ``value`` everywhere."""
        if torch.device(device).type != "cpu":
            return torch.full(tuple(shape), value, dtype=dtype, device=device)
        return self.empty(shape, dtype).fill_(value)

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of ``tensor`` on the CPU."""
        return self.empty(tensor.shape, tensor.dtype).copy_(tensor)

    def hold(self, tensor: Tensor) -> Tensor:
        """Return ``tensor``, moved to where others lie."""
        return tensor

    def arange(self, n: int) -> Tensor:
        """Return the numbers from 0 to ``n - 1``, int64 (n,)."""
        return torch.arange(n, out=self.empty((n,), torch.int64))

    def device(self, wanted: torch.device | str) -> torch.device:
        """Return where tensors go that are to be on the device ``wanted``."""
        return torch.device(wanted)

    def check_room(self, n_bytes: int, what: str) -> None:
        """Refuse to go on where there is no room for ``n_bytes`` more: in memory that shows by itself."""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Let :func:`placement` answer with this one, within this thread."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)


@dataclass(frozen=True)
class OnDisk(InMemory):
    """Make tensors whose values lie in files, so that the operating system has in memory what there is room for.

    The files have no name from the moment that they are there: nobody else finds them, and their room on the disk comes
    back when the tensor goes, or the process ends, however it does. It is set aside beforehand, as a disk that is full
    when a page is written ends the process.

    Attributes:
        folder: Of the files, on a local disk.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     column = OnDisk(Path(folder)).full((3,), 0.5, torch.float32)
        ...     column, list(Path(folder).iterdir())
        (tensor([0.5000, 0.5000, 0.5000]), [])
    """

    folder: Path

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the CPU, of zeros, whose values lie in a file.

        Raises:
            InvalidArgumentError: If the file cannot be made, or the disk has no room for it.
        """
        n = math.prod(shape)
        n_bytes = n * dtype.itemsize
        if n_bytes == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        try:
            with tempfile.TemporaryFile(dir=self.folder, buffering=0) as file:
                _set_aside(file, n_bytes)
                pages = mmap.mmap(file.fileno(), n_bytes)
        except OSError as error:
            raise InvalidArgumentError(
                f"scratch_dir={str(self.folder)!r} cannot take a file of {_gigabytes(n_bytes)} ({error.strerror}):"
                " give a folder on a local disk that can be written and has the room."
            ) from error
        return torch.frombuffer(pages, dtype=dtype, count=n).view(tuple(shape))

    def full(
        self, shape: Sequence[int], value: float, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return a tensor that holds ``value`` everywhere, on the CPU, whatever the device."""
        made = self.empty(shape, dtype)
        return made if value == 0 else made.fill_(value)  # a file is of zeros until it is written

    def hold(self, tensor: Tensor) -> Tensor:
        """Return a copy of ``tensor`` in a file."""
        return self.copy(tensor)

    def device(self, wanted: torch.device | str) -> torch.device:
        """Return the CPU: a device has no files."""
        return torch.device("cpu")

    def check_room(self, n_bytes: int, what: str) -> None:
        """Refuse to go on where the disk has no room for ``n_bytes`` more.

        Raises:
            InvalidArgumentError: If it has not.
        """
        free = shutil.disk_usage(self.folder).free
        if free < n_bytes:
            raise InvalidArgumentError(
                f"scratch_dir={str(self.folder)!r} has {_gigabytes(free)} free, and {what} takes {_gigabytes(n_bytes)}:"
                " give a folder on a disk with more room."
            )


IN_MEMORY = InMemory()
"""The default place of tensors."""

_active: ContextVar[InMemory] = ContextVar("placement", default=IN_MEMORY)


def placement() -> InMemory:
    """Return where large tensors are to lie, as :meth:`InMemory.active` says.

    Example:
        >>> placement() is IN_MEMORY
        True
    """
    return _active.get()


def placement_in(folder: str | Path | None) -> InMemory:
    """Return the placement in the files of ``folder``, or in memory for None.

    Raises:
        MissingFileError: If there is no such folder.
        InvalidArgumentError: If no file can be made in it.
    """
    if folder is None:
        return IN_MEMORY
    if not Path(folder).is_dir():
        raise MissingFileError(f"scratch_dir={str(folder)!r} is no folder: make it, or give another one.")
    on_disk = OnDisk(Path(folder))
    on_disk.empty((1,), torch.uint8)
    return on_disk


def check_folder(folder: object) -> str | Path | None:
    """Return ``folder`` if it can be the path of one.

    Raises:
        ArgumentTypeError: If it is no path.

    Example:
        >>> check_folder(3)
        Traceback (most recent call last):
        ...
        lightning_dataselect.utils.errors.ArgumentTypeError: scratch_dir=3 is no path: give that of a folder.
    """
    if folder is not None and not isinstance(folder, str | Path):
        raise ArgumentTypeError(f"scratch_dir={folder!r} is no path: give that of a folder.")
    return folder


def _set_aside(file: IO[Any], n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    for begin in range(0, n_bytes, len(_ZEROS)):
        file.write(_ZEROS[: n_bytes - begin])


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3g} GB"
