"""The report of an earlier comparison in the same folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_dataselect.comparison.tasks.task import Task


def name_of(described: Mapping[str, Any]) -> str:
    """Return the name of a task, by its module.

    Example:
        >>> name_of({"model": {"class_path": "my.Model"}}), name_of({"make_module": "make"}), name_of({})
        ('Model', 'make', 'the task')
    """
    model = described.get("model") or described.get("make_module") or "the task"
    name = model.get("class_path", "the task") if isinstance(model, dict) else model
    return str(name).rpartition(".")[2]


def overwritten(out: Path, task: Task, methods: Sequence[str]) -> str:
    """Return, in words, what a comparison will overwrite in its folder; nothing if it goes on from what is there.

    Args:
        out: The folder.
        task: What is compared on.
        methods: Labels of what is compared.
    """
    try:
        arguments = json.loads((out / "results.json").read_text())["arguments"]
        before, labels = arguments["task"], arguments["methods"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    now = json.loads(json.dumps(task.described(), default=repr))
    # a budget decides anew which part of the data is trained on
    if {**before, "share_of_data": None} != {**now, "share_of_data": None}:
        lost = f"on {name_of(before)}, of another task or with other settings, and its report and runs are overwritten"
    elif not set(labels) <= set(methods):
        lost = f"of {', '.join(labels)}, and its report is overwritten; its finished runs stay"
    else:
        return ""
    return f"{out} holds an earlier comparison {lost}. --out with another folder keeps both."
