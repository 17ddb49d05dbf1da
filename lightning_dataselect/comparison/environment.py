"""The machine and the versions that a comparison ran on."""

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from lightning_dataselect.comparison.runs.records import RunRecord

_PACKAGES = ("lightning-dataselect", "lightning", "numpy", "scikit-learn")


def describe(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Versions, hardware and time, as they enter `results.json`.

    Args:
        runs: Those that have finished, which may have had fewer threads than torch has now.
    """
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, **{name: _version(name) for name in _PACKAGES}},
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": max((run.n_threads for run in runs), default=torch.get_num_threads()),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The model's name where Linux tells it; `platform` gives but the architecture there."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
