"""The authors' own code beside ours, fed with the same numbers.

    python -m benchmarks.originals --infobatch DIR [--seta DIR ...] [--data-dir DIR] [--seeds 10] [--out FILE]

Each flag takes a clone of the repository that --help names; what is not given keeps its rows of an earlier run. The
losses, logits and labels are made up from a seed, and with --data-dir come from a fit on Fashion-MNIST besides
(fashion_mnist/fashion_mnist.npz); InfoBatch, SeTa and OrderDP then train whole fits, too.

The authors' functions are imported, or where a script runs when it is imported, their definitions alone are run. Two
things stand in for what cannot be compared as it is. The samplers of InfoBatch and SeTa do not end an epoch under a
current torch: here they are told once an epoch to choose, as `iter()` told them once. And random numbers come from
generators of different kinds: where chance chooses, the chances of 200 draws and more are compared, not the samples.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import environment, write_json
from benchmarks.originals import batch_loss, batches, cost, epochs, fits, schedules, scores
from benchmarks.originals.agreement import Compared
from benchmarks.originals.author_code import commit
from benchmarks.originals.reasons import reason
from benchmarks.originals.trajectories import Trajectory, fitted, made_up

RESULTS = Path(__file__).parents[1] / "results" / "originals.json"
N, EPOCHS = 5000, 16


class Original(NamedTuple):
    """A repository, the methods it is compared with, and how."""

    repository: str
    methods: str
    on_values: tuple[Callable[[Path, Trajectory], list[Compared]], ...] = ()
    once: tuple[Callable[[Path], list[Compared]], ...] = ()
    in_fits: Callable[[Path, str, int], list[Compared]] | None = None


ORIGINALS = {
    "infobatch": Original(
        "NUS-HPC-AI-Lab/InfoBatch",
        "InfoBatch",
        (epochs.infobatch,),
        (schedules.infobatch, cost.infobatch),
        fits.infobatch,
    ),
    "seta": Original("mrazhou/SeTa", "SeTa", (epochs.seta,), (cost.seta,), fits.seta),
    "orderdp": Original("shengze-xu/OrderDP", "OrderDP", (epochs.orderdp,), (cost.orderdp,), fits.orderdp),
    "bls": Original("mrazhou/BLS", 'sample_loss="batch"', (batch_loss.bls,)),
    "kakurenbo": Original("TruongThaoNguyen/kakurenbo", "KAKURENBO", (epochs.kakurenbo,), (schedules.kakurenbo,)),
    "ies": Original("tmllab/2025_ICLR_IES", "IES", (epochs.ies,)),
    "datacull": Original(
        "atif-hassan/RCAP-dynamic-dataset-pruning", "RCAP, CCS", (epochs.rcap, scores.ccs_again), (schedules.datacull,)
    ),
    "selective-backprop": Original("angelajiang/SelectiveBackprop", "SelectiveBackprop", (batches.selective_backprop,)),
    "rho-loss": Original("OATML/RHO-Loss", "RHOLoss", (batches.rho_loss,)),
    "divbs": Original("Feng-Hong/DivBS", "DivBS", (batches.divbs,)),
    "progressive-dropout": Original(
        "bazyagami/LearningWithRevision", "DBPD, SMRD, SRD", (batches.progressive_dropout,)
    ),
    "autoassist": Original("zhangjiong724/autoassist-exp", "AutoAssist", (batches.autoassist,)),
    "dual": Original("behaapyy/dual-pruning", "DUAL, TDDS", (scores.dual, scores.tdds_again)),
    "tdds": Original("zhangxin-xd/Dataset-Pruning-TDDS", "TDDS", (scores.tdds,)),
    "ccs": Original("haizhongzheng/Coverage-centric-coreset-selection", "CCS, EL2N", (scores.ccs,)),
    "forgetting": Original("mtoneva/example_forgetting", "Forgetting", (scores.forgetting,)),
    "deepcore": Original("PatrickZH/DeepCore", "GraNd, Forgetting", (scores.deepcore,)),
}


def compared(
    original: Original, clone: Path, trajectories: dict[str, Trajectory], data_dir: str | None, seeds: int
) -> Iterator[tuple[str, Compared]]:
    """Give each thing compared, with what it was compared on."""
    for once in original.once:
        yield from (("", each) for each in once(clone))
    for on_values in original.on_values:
        for name, trajectory in trajectories.items():
            yield from ((name, each) for each in on_values(clone, trajectory))
    if original.in_fits is not None and data_dir is not None and seeds > 1:
        yield from (("Fashion-MNIST", each) for each in original.in_fits(clone, data_dir, seeds))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, original in ORIGINALS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="CLONE", help=f"of github.com/{original.repository}")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=10, help="of the fits; 0 for none")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON; rows of other originals stay in it")
    options = vars(parser.parse_args(argv))
    given = {name: options[name.replace("-", "_")] for name in ORIGINALS if options[name.replace("-", "_")]}
    if not given:
        parser.error(f"name a clone: {', '.join(f'--{name}' for name in ORIGINALS)}.")
    trajectories = {"made up": made_up(N, EPOCHS, seed=0)}
    if options["data_dir"] is not None:
        trajectories["Fashion-MNIST"] = fitted(options["data_dir"], N, EPOCHS, seed=0)
    out = options["out"]
    known = json.loads(out.read_text())["originals"] if out.exists() else {}
    for name, clone in given.items():
        original, rows = ORIGINALS[name], []
        for data, one in compared(original, clone.resolve(), trajectories, options["data_dir"], options["seeds"]):
            print(f"{name:20} {data:14} {' | '.join(one)}", flush=True)
            if why := reason(name, one):
                print(f"{'':35} {why}")
            rows.append([data, *one])
        known[name] = {
            "repository": original.repository, "methods": original.methods, "commit": commit(clone), "rows": rows
        }  # fmt: skip
        in_order = {each: known[each] for each in ORIGINALS if each in known}
        write_json(out, {"environment": environment("scikit-learn"), "originals": in_order})
    return 0


if __name__ == "__main__":
    sys.exit(main())
