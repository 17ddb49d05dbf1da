"""The command `lightning-dataselect`."""

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from lightning_dataselect.cli.spelling import refuse_misspelt
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import DataSelectError, UserInputError, one_line

LIGHTNING = ("fit", "validate", "test", "predict")
FILE_WIDTH = 120
NEEDS = {
    "compare": ("jinja2", "jsonargparse", "matplotlib", "pandas", "rich", "scipy", "sklearn"),
    "list": ("rich",),
    **dict.fromkeys(LIGHTNING, ("jsonargparse",)),
}
"""Each command, and the packages beyond Lightning that it imports: those of the extra `report`."""

EPILOG = """\
examples:
  lightning-dataselect compare                      the demo: scikit-learn's digits, minutes on a laptop
  lightning-dataselect compare exp.yaml             your own task: any LightningCLI config
  lightning-dataselect compare train.py --epochs 30    or a script with make_module() and make_data()
  lightning-dataselect compare exp.yaml --budget 20min
  lightning-dataselect compare exp.yaml --methods full,short,random,InfoBatch,ESWP --seeds 5
  lightning-dataselect fit --model my.Model --data my.Data --select UCB --select.prune_ratio 0.3
  lightning-dataselect fit --select.help UCB        every argument of a method
  lightning-dataselect fit --help                   every argument of Lightning's own command line
"""


class _Parser(argparse.ArgumentParser):
    """A parser that tells what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"invalid (\w+) value: '(.*)'", r"expected \1, got \2", message.removeprefix("argument "))
        text = re.sub(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", r"expected one of \2, got \1", text)
        raise UserInputError(f"{text}; see {self.prog} --help.")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `compare` and `list`; the other commands are LightningCLI's."""
    parser = _Parser(
        prog="lightning-dataselect",
        description="Train on the samples that are worth it, and find out whether that pays.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('lightning-dataselect')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_compare(commands.add_parser("compare", help="which method pays on a task?"))
    listing = commands.add_parser("list", help="the methods, a line each")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name in LIGHTNING:
        commands.add_parser(name, help=f"LightningCLI's {name}, with --select METHOD", add_help=False)
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Runs methods x seeds on a task, beside full data and full data for fewer epochs, says what "
        "to do, and writes a report. The default task is scikit-learn's digits. A rerun with the same "
        "--out goes on from the runs that have finished, and runs again what your code, your data or "
        "other versions have changed."
    )
    add = parser.add_argument
    add(
        "task",
        nargs="?",
        metavar="TASK",
        help="a LightningCLI config with class_path under model and data, a script with make_module() and make_data(), "
        "or a demo: digits, fashion_mnist (default: digits)",
    )
    add("--config", metavar="FILE", help="the same, as an option")
    add(
        "--methods",
        default="auto",
        metavar="LIST",
        help="auto (full, short, and what suits the task), or a list of: full, short, "
        "random, random_rescaled (with rescaling and annealing), names of "
        "`lightning-dataselect list`, or dotted paths of your own, with arguments in brackets: "
        "'full,short,UCB(every_n_epochs=2)' (default: %(default)s)",
    )
    add(
        "--prune-ratio",
        type=float,
        default=0.5,
        metavar="R",
        help="handed to every method that takes one, unless its own arguments say otherwise; what a method makes of it "
        "is in `lightning-dataselect list` (default: %(default)s)",
    )
    add(
        "--seeds",
        default="3",
        metavar="N",
        help="how many seeds, or which, as in 1,2,3 (default: %(default)s)",
    )
    add("--epochs", type=int, metavar="E", help="of a full run (default: the config's max_epochs)")
    add(
        "--monitor",
        metavar="METRIC",
        help="what counts, as the model logs it (default: val_acc or another likely one)",
    )
    add(
        "--mode",
        choices=("max", "min"),
        help="whether more or less of it is better (default: min for losses and errors, else max)",
    )
    add(
        "--out",
        default="compare-out",
        metavar="DIR",
        help="the folder for runs and report (default: %(default)s)",
    )
    add(
        "--budget",
        metavar="B",
        help="what it may cost, in full runs (30) or time (20min, 2h): chooses seeds and epochs that fit, and gives up "
        "the worse half of the methods after each seed",
    )
    add("--jobs", type=int, default=1, metavar="J", help="runs at once, each a process with a GPU of its own")
    add("--json", action="store_true", help="print what was found as JSON, and the progress on stderr")
    add("--data-dir", metavar="DIR", help="given to the datamodule as `data_dir`")


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments, unknown = make_parser().parse_known_args(argv)
    if unknown:
        options = [f"--{name.replace('_', '-')}" for name in vars(arguments) if name != "command"]
        raise UserInputError(f"{unknown[0]} is not understood.{did_you_mean(unknown[0], options)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None takes the process's own.

    Returns:
        The exit code: 0, 1 if something failed, 2 for a wrong input, 130 after Ctrl-C.
    """
    given, argv = argv, list(sys.argv[1:] if argv is None else argv)
    # Classes of the user's own lie in the working directory, as with `python train.py`.
    sys.path.insert(0, os.getcwd())
    try:
        refuse_misspelt(argv, list(NEEDS))
        return _run(argv, given)
    except DataSelectError as error:
        command = f" {argv[0]}" if argv and argv[0] in NEEDS else ""
        print(f"lightning-dataselect{command}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _check_extras(command: str) -> None:
    missing = [name for name in NEEDS[command] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserInputError(f"{', '.join(missing)} is missing: pip install 'lightning-dataselect[report]'.")


def _run(argv: list[str], given: Sequence[str] | None) -> int:
    if argv and argv[0] in LIGHTNING:
        _check_extras(argv[0])
        from lightning_dataselect.cli.lightning import run_lightning

        run_lightning(given)
        return 0
    arguments = _parse(argv)
    _check_extras(arguments.command)
    from rich.console import Console

    # A notebook gets lines of text: no box of HTML for each, and no bars, though its FORCE_COLOR asks for a terminal's.
    console = Console(force_terminal=sys.stdout.isatty(), force_jupyter=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    if arguments.command == "list":
        from lightning_dataselect.cli.list import methods_json, methods_table

        if arguments.json:
            print(methods_json())
            return 0
        console.print(methods_table())
        console.print("What one of them takes: lightning-dataselect fit --select.help METHOD", highlight=False)
        return 0
    from lightning_dataselect.comparison.command import run_command

    return run_command(arguments, console)


if __name__ == "__main__":
    sys.exit(main())
