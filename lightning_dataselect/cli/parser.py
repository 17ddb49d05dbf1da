"""Read the arguments of `compare`, `init` and `list`; a wrong one is told in one sentence."""

import argparse
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.utils.arguments import did_you_mean
from lightning_dataselect.utils.errors import UserInputError
from lightning_dataselect.utils.validation import hint_at_percent

LIGHTNING = ("fit", "validate", "test", "predict")
EPILOG = """\
examples:
  lightning-dataselect compare                      the demo: scikit-learn's digits, minutes on a laptop
  lightning-dataselect compare exp.yaml             your own task: any LightningCLI config
  lightning-dataselect compare train.py --epochs 30    or a script with make_module() and make_data()
  lightning-dataselect compare exp.yaml --budget 20min
  lightning-dataselect compare exp.yaml --methods full,short,random,InfoBatch,ESWP --seeds 5
  lightning-dataselect init --model my.Model --data my.Data     writes exp.yaml for classes of your own
  lightning-dataselect fit --model my.Model --data my.Data --select InfoBatch --select.prune_ratio 0.3
  lightning-dataselect fit --select.help UCB        every argument of a method
  lightning-dataselect fit --help                   every argument of Lightning's own command line
"""


class _Parser(argparse.ArgumentParser):
    """Parse a command line; a wrong one is told in one sentence."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"the following arguments are required: (.*)", r"\1 is missing", message)
        text = re.sub(r"invalid (\w+) value: '(.*)'", r"expected \1, got \2", message.removeprefix("argument "))
        text = re.sub(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", r"expected one of \2, got \1", text)
        raise UserInputError(f"{text}; see {self.prog} --help.{hint_at_percent(text)}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `compare`, `init` and `list`; the other commands are LightningCLI's."""
    parser = _Parser(
        prog="lightning-dataselect",
        description="Train on the samples that are worth it, and find out whether that pays.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('lightning-dataselect')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_compare(commands.add_parser("compare", help="which method pays on a task?"))
    _add_init(commands.add_parser("init", help="write exp.yaml for a module and a datamodule of your own"))
    listing = commands.add_parser("list", help="the methods, the scores and the samplers, a line each")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name in LIGHTNING:
        commands.add_parser(name, help=f"LightningCLI's {name}, with --select METHOD", add_help=False)
    return parser


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a LightningCLI config for a module and a datamodule that can be imported from here, with every "
        "argument that they take and its default. What has no default is left for you to fill in."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="PATH", help="import path of the LightningModule, as in my.Model")
    add(
        "--data",
        metavar="PATH",
        help="import path of the LightningDataModule, as in my.Data; not needed where the model has a train_dataloader",
    )
    add("--max-epochs", type=int, default=30, metavar="E", help="how long to train (default: %(default)s)")
    add("--out", default="exp.yaml", metavar="FILE", help="the file to write (default: %(default)s)")
    add("--force", action="store_true", help="overwrite the file if there is one")


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
        help="what it may cost, in full runs (30) or time (20min, 2h): chooses seeds, epochs and a part of the "
        "data that fit, and gives up the worse half of the methods after each seed",
    )
    add("--jobs", type=int, default=1, metavar="J", help="runs at once, each a process with a GPU of its own")
    add("--json", action="store_true", help="print what was found as JSON, and the progress on stderr")
    add("--data-dir", metavar="DIR", help="given to the datamodule as `data_dir`")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of `compare`, `init` or `list`.

    Raises:
        UserInputError: If one is unknown, missing or of the wrong type.
    """
    arguments, unknown = make_parser().parse_known_args(argv)
    if unknown:
        options = [f"--{name.replace('_', '-')}" for name in vars(arguments) if name != "command"]
        hint = did_you_mean(unknown[0], options) or f" See lightning-dataselect {arguments.command} --help."
        if arguments.command == "list" and (method := next((each for each in unknown if each in CATALOG), None)):
            hint = f" The arguments of {method}: lightning-dataselect fit --select.help {method}."
        raise UserInputError(f"{unknown[0]} is not understood.{hint}")
    return arguments
