"""The part that every study shares: parts x methods x seeds through `compare`, resumed, summed up, written and drawn.

The finished runs and the pictures stay in the output folder; the rows of the tables go to one JSON a study.

A study is a module with a function ``parts(arguments) -> list[Part]``, run by `run_study`; `benchmarks.tabular` is the
shortest one.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.environment import environment, write_json
from benchmarks.plots import draw
from benchmarks.rows import summed_up
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.runner import run_all
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import FULL, SHORT, parse_methods
from lightning_dataselect.comparison.runs.progress import watching
from lightning_dataselect.comparison.tasks.config_task import ConfigTask
from lightning_dataselect.utils.errors import UserInputError

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Part:
    """One task of a study, on which methods are compared.

    Attributes:
        name: As in ``--only``.
        title: What it is, for a reader of the tables: data, network, recipe, in a line.
        config: LightningCLI's sections ``model``, ``data`` and ``trainer``, with ``class_path`` and ``init_args``.
        epochs: Of a full run.
        methods: As in ``compare --methods``, one text each, with their ratios; `full` and `short` are added.
        seeds: How many, unless ``--seeds`` says otherwise.
        monitor: The metric of the validation split, read after every epoch.
        maximize: Whether more of it is better.
        metric: What the module logs in ``test_step``, read once after the last epoch; None reports ``monitor``.
        metric_maximize: Whether more of that is better; None: as ``maximize``.
        note: What a reader must know besides, such as that a part of the data was taken.
        packages: On whose versions the figures depend, too.
        headline: Which of the methods the README shows, the others being in RESULTS.md alone; empty for all.
    """

    name: str
    title: str
    config: dict[str, Any]
    epochs: int
    methods: Sequence[str]
    seeds: int = 3
    monitor: str = "val_acc"
    maximize: bool = True
    metric: str | None = "test_acc"
    metric_maximize: bool | None = None
    note: str = ""
    packages: Sequence[str] = ()
    headline: Sequence[str] = ()


@dataclass
class _Progress:
    """The state of a part: its task, its settings, and what has finished."""

    part: Part
    task: ConfigTask
    settings: Settings
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = Outcome(self.part.epochs)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every study takes."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-dir", type=Path, help="the folder of the data sets, see benchmarks/README.md")
    made.add_argument("--out", type=Path, default=Path("bench-out"), help="where finished runs are kept (%(default)s)")
    made.add_argument("--quick", action="store_true", help="a minute on two cores; its figures mean nothing")
    made.add_argument("--seeds", type=int, help="how many seeds")
    made.add_argument("--only", nargs="+", metavar="PART", help="parts to run")
    made.add_argument("--methods", nargs="+", metavar="TEXT", help="only methods that contain one of these texts")
    made.add_argument("--collect", action="store_true", help="run nothing: write and draw what has finished")
    made.add_argument("--results", type=Path, help="the JSON (benchmarks/results/STUDY.json; with --quick: in --out)")
    return made


def run_study(
    name: str,
    parts: Callable[[argparse.Namespace], Sequence[Part]],
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run what has not finished, and write the study's JSON and pictures after every seed of every part.

    Args:
        name: Of the study; names its JSON and the folder of its runs.
        parts: Makes the parts of the arguments ``data_dir`` and ``quick``; may raise `UserInputError`.
        description: For ``--help``.
        argv: The arguments; None takes the process's own.

    Returns:
        The exit code: 0, 1 if a run failed, 2 for a wrong input, 130 after Ctrl-C.
    """
    arguments = parser(description).parse_args(argv)
    try:
        chosen = _chosen(parts(arguments), arguments.only)
        return _run(name, chosen, arguments)
    except UserInputError as error:
        print(f"benchmarks.{name}: {error}", file=sys.stderr)
        return 2


def data_file(arguments: argparse.Namespace, *path: str) -> str:
    """Return the folder of a data file under ``--data-dir``.

    Raises:
        UserInputError: If there is no such file.
    """
    if arguments.data_dir is None:
        raise UserInputError(f"--data-dir is needed for {'/'.join(path)}; --quick does without.")
    file = arguments.data_dir.joinpath(*path)
    if not file.is_file():
        raise UserInputError(f"{file} does not exist: give --data-dir a folder with {'/'.join(path)}.")
    return str(file.parent)


def parts_by_name(
    arguments: argparse.Namespace,
    for_gpu: Mapping[str, Callable[[], Part]],
    for_cpu: Mapping[str, Callable[[], Part]],
) -> list[Part]:
    """Make the parts named by ``--only``, or else those for this machine's hardware.

    Raises:
        UserInputError: If ``--only`` names one that there is not.
    """
    makers = {**for_gpu, **for_cpu}
    unknown = [name for name in arguments.only or () if name not in makers]
    if unknown:
        raise UserInputError(f"--only {' '.join(unknown)}: the parts are {', '.join(makers)}.")
    names = arguments.only or (for_gpu if torch.cuda.is_available() else for_cpu)
    return [make() for name, make in makers.items() if name in names]


def trainer_section(**more: Any) -> dict[str, Any]:
    """Return the Trainer's options: one device, in bf16 if that is a GPU."""
    on_gpu = torch.cuda.is_available()
    precision = {"precision": "bf16-mixed"} if on_gpu else {}
    return {"accelerator": "gpu" if on_gpu else "cpu", "devices": 1, **precision, **more}


def _chosen(parts: Sequence[Part], only: Sequence[str] | None) -> list[Part]:
    names = [part.name for part in parts]
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise UserInputError(f"--only {' '.join(unknown)}: the parts are {', '.join(names)}.")
    return [part for part in parts if only is None or part.name in only]


def _run(name: str, parts: Sequence[Part], arguments: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    standing = [_begin(name, part, arguments) for part in parts]
    most = max(len(each.settings.seeds) for each in standing)
    results = arguments.results or (arguments.out if arguments.quick else RESULTS) / f"{name}.json"
    for position in range(most):  # seeds outermost: what is there when time runs out is whole for every part
        for each in standing:
            if position >= len(each.settings.seeds):
                continue
            seed = each.settings.seeds[position]
            console.print(f"{name}, {each.part.name}, seed {seed}", highlight=False)
            with watching(console, each.settings.maximize) as watcher:
                settings = dataclasses.replace(each.settings, seeds=[seed])
                outcome = run_all(each.task, settings, watcher, run_nothing=arguments.collect)
            each.outcome.runs += outcome.runs
            each.outcome.failures += outcome.failures
            part = _write(results, name, each, arguments.quick)
            if part is not None:
                draw(part, each.outcome.runs, arguments.out / name / each.part.name)
            if outcome.interrupted:
                return 130
    print(f"Results: {results}")
    return 1 if any(each.outcome.failures for each in standing) else 0


def _begin(name: str, part: Part, arguments: argparse.Namespace) -> _Progress:
    n_seeds = arguments.seeds or (1 if arguments.quick else part.seeds)
    wanted = [text for text in part.methods if _contains_one(text, arguments.methods)]
    settings = Settings(
        methods=parse_methods(",".join(dict.fromkeys([FULL, SHORT, *wanted]))),
        seeds=range(n_seeds),
        prune_ratio=0.5,
        monitor=part.monitor,
        maximize=part.maximize,
        out=arguments.out / name / (f"{part.name}-quick" if arguments.quick else part.name),
        test=part.metric is not None,
    )
    for spec in settings.methods:
        if spec.cls is not None:
            spec.build(settings.prune_ratio, seed=0)
    return _Progress(part, ConfigTask(part.config, part.epochs), settings)


def _contains_one(text: str, pieces: Sequence[str] | None) -> bool:
    return pieces is None or any(piece in text for piece in pieces)


def _write(path: Path, name: str, each: _Progress, quick: bool) -> dict[str, Any] | None:
    """Put the part into the study's JSON, beside the parts that are there, and return it; None before its first run.

    A ``remark`` in it stays: what whoever ran the study has to say of this run of it.
    """
    if not each.outcome.runs:
        return None
    known = json.loads(path.read_text())["parts"] if path.exists() else {}
    known[each.part.name] = {
        "title": each.part.title,
        "note": each.part.note,
        "remark": known.get(each.part.name, {}).get("remark", ""),
        "headline": list(each.part.headline or each.part.methods),
        "environment": environment(*each.part.packages),
        **summed_up(
            each.outcome,
            each.settings,
            each.part.metric,
            each.part.maximize if each.part.metric_maximize is None else each.part.metric_maximize,
            "wall" if torch.cuda.is_available() else "cpu",
        ),
    }
    write_json(path, {"study": name, "quick": quick, "parts": known})
    return known[each.part.name]  # type: ignore[no-any-return]
