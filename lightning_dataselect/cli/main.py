"""The command `lightning-dataselect`."""

import os
import sys
from collections.abc import Sequence

from lightning_dataselect.cli.parser import LIGHTNING, parse
from lightning_dataselect.cli.spelling import refuse_misspelt
from lightning_dataselect.comparison.plans.spec import AUTO, parse_methods, parse_seeds
from lightning_dataselect.utils.errors import DataSelectError, one_line
from lightning_dataselect.utils.extras import require_report_extra

FILE_WIDTH = 120
NEEDS = {
    "compare": ("jinja2", "jsonargparse", "matplotlib", "pandas", "rich", "scipy", "sklearn"),
    "init": (),
    "list": ("rich",),
    **dict.fromkeys(LIGHTNING, ("jsonargparse",)),
}
"""Each command, and the packages beyond Lightning that it imports: those of the extra `report`."""


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


def _run(argv: list[str], given: Sequence[str] | None) -> int:
    if argv and argv[0] in LIGHTNING:
        require_report_extra("this command", *NEEDS[argv[0]])
        from lightning_dataselect.cli.lightning import run_lightning

        run_lightning(given)
        return 0
    arguments = parse(argv)
    if arguments.command == "init":
        from lightning_dataselect.cli.init import write_config

        write_config(arguments)
        return 0
    require_report_extra("this command", *NEEDS[arguments.command])
    from rich.console import Console

    # A notebook gets lines of text: no box of HTML for each, and no bars, though its FORCE_COLOR asks for a terminal's.
    console = Console(force_terminal=sys.stdout.isatty(), force_jupyter=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    if arguments.command == "list":
        from lightning_dataselect.cli.list import methods_json, tables

        if arguments.json:
            print(methods_json())
            return 0
        for table in tables():
            console.print(table)
        console.print("The arguments of a method: lightning-dataselect fit --select.help METHOD", highlight=False)
        console.print(
            "A score with a sampler: lightning-dataselect fit --select ScoreSelector --select.score 'dual(window=5)'"
            " --select.sampler stratified --select.warmup_epochs 10",
            highlight=False,
            soft_wrap=True,
        )
        console.print("Scores that `export` wrote, in place of a score: --select.scores FILE", highlight=False)
        return 0
    # what is misspelt is told before torch is loaded
    parse_seeds(arguments.seeds)
    if arguments.methods != AUTO:
        parse_methods(arguments.methods)
    from lightning_dataselect.comparison.command import run_command

    return run_command(arguments, console)


if __name__ == "__main__":
    sys.exit(main())
