"""Why the authors' code and ours differ where they do."""

from benchmarks.originals.agreement import DIFFERS, Compared

GROUPS = (
    "Theirs takes the groups that scikit-learn's k-means comes to from one random start; ours solves it by dynamic"
    " programming, and leaves less distance within the groups."
)
BUDGETS = "Theirs rounds every budget up, and shares what full classes leave over by the whole number once more."

LARGEST_GAP = 0.02  # of two vectors, or two chances, that needs no reason

# (original, how the line begins): why
REASONS = {
    ("infobatch", "samples kept"): ("Theirs rounds the number of easy samples that stay down, ours to the nearest."),
    ("infobatch", "first epoch of annealing"): (
        "Where `delta * epochs` is no whole number, here 26.25, theirs anneals from the whole number below, ours from"
        " the one above."
    ),
    ("infobatch", "weights in the last"): (
        "A defect of theirs: weights are taken off only where `delta * epochs` is a whole number. Otherwise those of"
        " the last pruned epoch stay on in annealing."
    ),
    ("infobatch", "batches of 8"): (
        "A defect of theirs under a current torch, whose `BatchSampler` calls `iter()` of the sampler for every batch:"
        " each call chooses anew, and counts as an epoch. Without `drop_last` the epoch does not end, with it pruning"
        " is over before it begins. SeTa's sampler is the same. For all other lines it was told once an epoch."
    ),
    ("seta", "window"): GROUPS,
    ("seta", "squared distances"): GROUPS,
    ("seta", "kept with a tenth"): "Each side draws its own nine tenths, and makes its own groups.",
    ("bls", "below the mean score"): (
        "Theirs begins at 0 and keeps nine tenths of a score at each batch, so that after these epochs it still weighs"
        " all of them; ours begins with the first batch's loss and keeps half. With the same constant they agree."
    ),
    ("kakurenbo", "hidden, with the script's own"): (
        "A defect of theirs: the softmax is taken over the batch, `dim=0`, not over the classes, so that few samples"
        " seem to be predicted surely."
    ),
    ("kakurenbo", "factor of the learning rate"): (
        "Theirs divides by one minus the share that *may* be hidden, ours by one minus the share that is."
    ),
    (
        "datacull",
        "kept of 1,000",
    ): "A defect of theirs: documented as the share that is removed, used as that kept.",
    ("datacull", "kept of half"): BUDGETS,
    ("datacull", "kept of each class"): BUDGETS,
    ("datacull", "chance to be kept"): BUDGETS,
    ("datacull", "DataCull's CCS"): (
        "Theirs has 49 strata, and a fiftieth for the greatest score alone, since it takes 50 edges for 50 strata."
    ),
    ("selective-backprop", "probability"): (
        "Theirs counts the losses strictly below, ours gives equal losses the mean of their ranks, so that the highest"
        " of all has the percentile 1: 1/1024 apart where no two are equal, more where many are."
    ),
    ("progressive-dropout", "SRD"): (
        "Theirs draws within each batch and rounds down; ours draws from the whole set, as the paper writes it, and"
        " rounds up."
    ),
    ("dual", "TDDS in DUAL's repository"): (
        "A defect of theirs: it takes the first window again and again, and logits in place of probabilities. With the"
        " code of TDDS's own authors ours agrees, see there."
    ),
    ("deepcore", "GraNd: the tenth"): (
        "A defect of theirs: gradients are those of the batch's mean loss, so that the samples of a smaller last batch"
        " have larger ones."
    ),
    ("deepcore", "the same of a sample never learnt"): (
        "Theirs drops samples that were never learnt; the paper, its authors' code and ours keep them first."
    ),
}


def reason(original: str, one: Compared) -> str | None:
    """Return why the two differ; None where they agree, but for rounding and chance.

    Raises:
        KeyError: If nobody has said why.
    """
    if one.agreement.startswith("the same"):
        return None
    for (name, begin), why in REASONS.items():
        if name == original and one.what.startswith(begin):
            return why
    if one.agreement == DIFFERS or "% the same" in one.agreement or _gap(one.agreement) > LARGEST_GAP:
        raise KeyError(f"{original}: {one.what}: {one.theirs} against {one.ours}, and no reason in REASONS")
    return None


def _gap(agreement: str) -> float:
    parts = agreement.split()
    return float(parts[1]) if len(parts) == 2 and parts[1][0].isdigit() else 0.0
