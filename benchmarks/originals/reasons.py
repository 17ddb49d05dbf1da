"""Why the authors' code and ours differ where they do."""

from benchmarks.originals.agreement import DIFFERS, Compared

GROUPS = (
    "Theirs uses the groups that scikit-learn's k-means finds from one random start; ours finds the best groups by"
    " dynamic programming, with smaller distances within them."
)
BUDGETS = "Theirs rounds every budget up, and shares out what full classes leave over by the whole number again."

LARGEST_GAP = 0.02  # of two vectors, or two chances, that needs no reason

# (original, how the line begins): why
REASONS = {
    ("infobatch", "samples kept"): ("Theirs rounds down how many easy samples are kept, ours rounds to the nearest."),
    ("infobatch", "first epoch of annealing"): (
        "If `delta * epochs` is not a whole number, here 26.25, theirs rounds down to find where annealing begins, and"
        " ours rounds up."
    ),
    ("infobatch", "weights in the last"): (
        "A bug in theirs: weights are removed only if `delta * epochs` is a whole number. Otherwise those of the last"
        " pruned epoch stay in place during annealing."
    ),
    ("infobatch", "batches of 8"): (
        "A bug in theirs with current versions of torch, whose `BatchSampler` calls `iter()` on the sampler for every"
        " batch: each call makes a new selection and counts as an epoch. Without `drop_last` the epoch never ends; with"
        " it, pruning is over before it begins. SeTa's sampler has the same bug. For all other rows, `iter()` was"
        " called once per epoch."
    ),
    ("seta", "window"): GROUPS,
    ("seta", "squared distances"): GROUPS,
    ("seta", "kept with a tenth"): "Each side draws its own nine tenths and forms its own groups.",
    ("bls", "below the mean score"): (
        "Theirs starts at 0 and keeps nine tenths of a score at each batch, so that after these epochs all of them"
        " still count; ours starts with the first batch's loss and keeps half. With the same constant they agree."
    ),
    ("kakurenbo", "hidden, with the script's own"): (
        "A bug in theirs: the softmax is taken over the batch, `dim=0`, not over the classes, so that few samples seem"
        " to be predicted with confidence."
    ),
    ("kakurenbo", "factor of the learning rate"): (
        "Theirs divides by one minus the share that *may* be hidden, ours by one minus the share that is."
    ),
    (
        "datacull",
        "kept of 1,000",
    ): "A bug in theirs: the argument is documented as the share that is removed, but used as the share that is kept.",
    ("datacull", "kept of half"): BUDGETS,
    ("datacull", "kept of each class"): BUDGETS,
    ("datacull", "chance to be kept"): BUDGETS,
    ("datacull", "DataCull's CCS"): (
        "Theirs has 49 strata and a fiftieth that holds the highest score alone, since it uses 50 edges for 50 strata."
    ),
    ("selective-backprop", "probability"): (
        "Theirs counts the losses strictly below; ours gives equal losses the mean of their ranks, so that the highest"
        " of all has the percentile 1. The two are 1/1024 apart if no two losses are equal, and more if many are."
    ),
    ("progressive-dropout", "SRD"): (
        "Theirs draws within each batch and rounds down; ours draws from the whole set, as in the paper, and rounds up."
    ),
    ("dual", "TDDS in DUAL's repository"): (
        "A bug in theirs: it uses the first window over and over, and logits instead of probabilities. Ours agrees with"
        " the code of TDDS's own authors, see there."
    ),
    ("deepcore", "GraNd: the tenth"): (
        "A bug in theirs: gradients are those of the batch's mean loss, so that samples in a smaller last batch have"
        " larger ones."
    ),
    ("deepcore", "the same of a sample never learnt"): (
        "Theirs drops samples that were never learnt; the paper, its authors' code and ours keep them first."
    ),
}


def reason(original: str, one: Compared) -> str | None:
    """Return why the two differ; None where they agree, but for rounding and chance.

    Raises:
        KeyError: If no reason is given.
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
