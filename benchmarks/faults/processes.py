"""Fits in processes of their own, what they end in, and whether two of them ended alike."""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

PATIENCE = 120  # seconds after which a fit counts as hanging


def _child(function: Callable[..., object], folder: Path, options: dict[str, Any]) -> None:
    with (folder / "output.txt").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a test that times out by an alarm is the parent's affair
    try:
        function(folder, **options)
    except BaseException as error:
        words = "".join(traceback.format_exception_only(error)).strip()
        (folder / "error.txt").write_text(words)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def start(function: Callable[..., object], folder: Path, **options: Any) -> Any:
    """Start ``function(folder, **options)`` in a process, which writes an error that it ends in to ``folder``."""
    (folder / "error.txt").unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(function, folder, options))
    process.start()
    return process


def error_left(process: Any, folder: Path) -> str:
    """Wait for a process to end; return the error that it ends in, ``""`` for none."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        return "it hangs"
    if process.exitcode == 0:
        return ""
    told = folder / "error.txt"
    return told.read_text() if told.exists() else f"it ends with exit code {process.exitcode}"


def error_of(function: Callable[..., object], folder: Path, **options: Any) -> str:
    """Run ``function`` in a process; return the error that it ends in, ``""`` for none."""
    return error_left(start(function, folder, **options), folder)


def same(one: Path, other: Path) -> bool:
    """Return whether the fits of two folders ended alike, bit for bit."""
    ends = [sorted(path.name for path in folder.glob("end-*")) for folder in (one, other)]
    if not ends[0] or ends[0] != ends[1]:
        return False
    return all(torch.load(one / end) == torch.load(other / end) for end in ends[0])


def free_port() -> str:
    """Return a port that is free, and that the system gives to no client before it is used."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # below what Linux, macOS and Windows give to clients
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return str(port)


@contextlib.contextmanager
def folders() -> Iterator[Callable[[], Path]]:
    """Make folders, which are gone in the end."""
    with tempfile.TemporaryDirectory() as root:
        yield lambda: Path(tempfile.mkdtemp(dir=root))
