"""The machine and the packages that a figure was measured with."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def environment(*packages: str) -> dict[str, Any]:
    """Return hardware and versions, for the JSON of a study.

    Args:
        packages: Named beside torch, lightning and this one.
    """
    return {
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "lightning", "lightning-dataselect", *packages)},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


DIGITS = 7  # that a result is written with, more than any table shows


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write results with one row of a table a line and seven digits a number, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_indented(_rounded(content)) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _indented(value: Any, margin: str = "") -> str:
    """Return JSON that breaks the line only inside what holds dicts: a leaf dict or list is one line."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if margin and not any(isinstance(each, dict | list) and each for each in inner):
        return _compact(value)
    if isinstance(value, list):
        lines = [_compact(each) for each in value]
        return "[\n" + ",\n".join(f"{margin}  {line}" for line in lines) + f"\n{margin}]"
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {_indented(each, margin + '  ')}" for key, each in value.items()]
        return "{\n" + ",\n".join(f"{margin}  {line}" for line in lines) + f"\n{margin}}}"
    return json.dumps(value)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
