"""Check the package on a GPU, within twelve minutes, and write what came out as one JSON.

    python -m benchmarks.gpu_check [--data-dir DIR] [--out gpu_check.json]

- tests: all tests that are marked ``gpu``;
- overhead: the table of `benchmarks.overhead`;
- comparison: six epochs of ResNet-18 with a method of each kind, on CIFAR-10 if DIR has it (see benchmarks/README.md),
  or else on made-up images of its shape.

Each has its share of the time; what has not finished by then is stopped, and what it has found so far is kept. The exit
code is 0 if all went well, 1 if something failed or was stopped, and 2 where there is no GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from benchmarks.environment import environment, write_json

ROOT = Path(__file__).parents[1]
# Seconds, eleven and a half minutes together.
LIMITS = {"tests": 210, "overhead": 210, "comparison": 270}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="the folder of the data sets; made-up images without it")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON (%(default)s)")
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu_check needs a CUDA GPU, and torch finds none on this machine.", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory() as folder:
        for name, (command, read) in sections(Path(folder), arguments.data_dir).items():
            print(f"{name}: {' '.join(command)}", flush=True)
            found[name] = run_section(command, LIMITS[name]) | read()
            write_json(arguments.out, found)
    print(f"Results: {arguments.out}")
    return int(any(found[name]["exit_code"] != 0 for name in LIMITS))


def sections(folder: Path, data_dir: Path | None) -> dict[str, tuple[list[str], Any]]:
    """Return the command of each section, and what reads the file in ``folder`` that it leaves."""
    python = [sys.executable, "-m"]
    report, overhead, rows = folder / "tests.xml", folder / "overhead.json", folder / "images.json"
    part = "made_up_short" if data_dir is None else "cifar10_short"
    study = ["benchmarks.images", "--only", part, "--out", str(folder), "--results", str(rows)]
    study += [] if data_dir is None else ["--data-dir", str(data_dir)]
    return {
        "tests": (
            [*python, "pytest", "-m", "gpu", "-q", "tests", "--ignore=tests/libraries", f"--junitxml={report}"],
            lambda: read_tests(report),
        ),
        "overhead": (
            [*python, "benchmarks.overhead", "--out", str(overhead)],
            lambda: {"results": _json(overhead).get("results", {})},
        ),
        "comparison": ([*python, *study], lambda: {"part": _json(rows).get("parts", {}).get(part)}),
    }


def run_section(command: Sequence[str], limit: float) -> dict[str, Any]:
    """Run a command, and stop it with all its children after ``limit`` seconds.

    Returns:
        ``exit_code``, None for a command that was stopped, and ``seconds``.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        exit_code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"exit_code": exit_code, "seconds": round(time.perf_counter() - begun, 1)}


def read_tests(report: Path) -> dict[str, Any]:
    """Return the number of tests that passed and the names of the others, from pytest's JUnit XML."""
    if not report.exists():
        return {"passed": 0, "failed": [], "skipped": []}
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in ElementTree.parse(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        kind = "failed" if outcomes & {"failure", "error"} else "skipped" if "skipped" in outcomes else "passed"
        names[kind].append(f"{case.get('classname')}::{case.get('name')}")
    return {**names, "passed": len(names["passed"])}


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


if __name__ == "__main__":
    sys.exit(main())
