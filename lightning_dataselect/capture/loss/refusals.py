"""Say why a step's samples have no losses that can be told, and what to do about it."""

from __future__ import annotations

from typing import Final

NEED_NONE: Final = "RandomPruning and FewerEpochs need no per-sample losses."
"""For a user whose method needs them."""

OWN_LOSS: Final = "Return each sample's own loss under a key and give sample_loss='that key'."
"""For a step in which each sample has a loss, but it is not told apart from the others'."""

NO_OWN_LOSS: Final = f"Return a score for each sample under a key and give sample_loss='that key'. {NEED_NONE}"
"""For a step in which no sample has a loss of its own."""

EITHER: Final = f"{OWN_LOSS} {NEED_NONE}"
"""For a step of which it is not known which of the two it is."""


ORDER = (
    "The step reorders the samples of a batch, for instance by length or into groups, so one sample's loss would be"
    " taken for another's. Restore the order of the batch before computing the loss, as"
    " torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) does."
)


JUDGED = (
    "The step selects rows of the batch by the model's outputs, possibly those of other samples, as when it keeps"
    " only the hardest, and running it on single samples has not shown otherwise. Return each sample's own loss under"
    " a key and give sample_loss='that key', or leave the choice of hard samples to SelectiveBackprop."
)


COUNT = (
    "The loss is divided by a number that was counted outside of torch, or in a way that cannot be traced back to the"
    " samples, so how much each sample adds to it is unknown. Divide by a count that torch sums over the batch, such"
    " as (labels != -100).sum()."
)


SCALE = (
    "The loss is divided or multiplied by a number that is not a sum over the samples, such as the length of the"
    " longest text, the square root of a count, or a count plus 1, or it is made of derivatives of a mean over the"
    " batch, so the losses of single samples cannot be told from those of a batch. Divide by a count that torch sums"
    " over the batch, such as (labels != -100).sum(), or by the number of samples; differentiate a sum over the batch."
)


CUT_OFF = (
    "The loss is clipped, by clamp, relu, maximum or where, after the samples' losses have been reduced, so a batch may"
    " exceed the bound when a single one of its samples does not. Clip the losses of the samples first, then take"
    " their mean: losses.clamp(max=bound).mean()."
)


DRAWN = (
    "The step indexes its batch so that some samples are repeated or left out, as when it draws with replacement, so"
    " the loss of a batch is not made of the losses of its samples. Leave the choice to a sampler of the train"
    " loader, such as torch.utils.data.WeightedRandomSampler, or multiply the losses of all samples by weights."
)


MIXED_INSIDE = (
    "The model's output for a sample depends on the other samples of its batch even in eval mode, as when samples"
    " attend to each other, are scaled by the mean of the batch, or are the time steps of a recurrent layer that lacks"
    " batch_first=True, so a sample alone would have a different loss."
    " Scale by running statistics, as torch.nn.BatchNorm1d does in eval mode. To select by a sample's loss among the"
    f" others, return it under a key and give sample_loss='that key'. {NEED_NONE}"
)


OTHER_SAMPLES = (
    f"A sample's loss in this step depends on the other samples of its batch, as in a contrastive loss. {NO_OWN_LOSS}"
)


ANOTHER_LOSS = (
    "What a sample loses in this step depends on which other samples are in its batch, or on how many there are: from"
    " the same outputs, it loses something else among fewer of them, as where a softmax is over the classes in the"
    " batch only. If a factor of the batch balances two parts of the loss, take the mean of each part before they are"
    f" added. Otherwise: {NO_OWN_LOSS}"
)


BESIDE = (
    "The step sets each sample beside another one of its batch, as where the rows of a batch are rolled, flipped or"
    " shuffled to serve as negatives, so what a sample loses depends on which others are in its batch. Draw negatives"
    f" from the data set instead. {NO_OWN_LOSS}"
)


PAIRS = (
    "A sample's loss in this step depends on the other samples of its batch: the loss compares each sample with all of"
    " them. If that is not meant, outputs of the shape (batch, 1) have met targets of the shape (batch,), which torch"
    " broadcasts to (batch, batch), so the model learns nothing but the mean of the targets: give both one shape, as by"
    f" outputs.squeeze(1). If it is, as in a contrastive loss: {NO_OWN_LOSS}"
)


GROUPS = (
    "The loss is a mean over groups of samples, such as the classes in the batch, so the weight of a sample's loss"
    " depends on how many groups its batch holds, unless their number is fixed, which nothing but samples alone can"
    " show. Weight the losses of the samples and take their mean, or return"
    " each sample's own loss under a key and give sample_loss='that key'."
)


ROWS = (
    "The losses of all samples are concatenated, like those of boxes, nodes or tokens; some samples have more rows"
    f" than others, and nothing shows which rows belong to which sample. {OWN_LOSS}"
)


PICKED = (
    "The step selects rows of the batch by a mask or an index, so a row of losses belongs to a different sample in"
    " each batch. Use ignore_index, or multiply the losses by the mask. Rows that stand for pairs of samples, as in a"
    f" contrastive loss, belong to no single sample: {NO_OWN_LOSS}"
)


FILTERED = (
    "The step masks out some samples of its batch before the model sees them, so a row of losses belongs to a different"
    " sample in each batch. Leave those samples out of the data set, or multiply their losses by 0."
)


FOLDED = (
    "The step takes the mean or the sum over its samples first, and combines the outputs afterwards, so no reduction"
    " contains what each sample adds. Compute the loss sample by sample, and reduce over the samples last: (errors *"
    " weights).sum(1).mean() in place of (errors.mean(0) * weights).sum()."
)


QUOTIENT = (
    "The loss is not a weighted sum of means or sums over the batch, but a quotient or product of them, such as a"
    f" Dice loss over the whole batch: no part of it belongs to a single sample. {NO_OWN_LOSS}"
)


OTHER_LOADERS = (
    "None of the step's losses is computed from the samples of the named train loader: all of them come from other"
    " loaders. Name another loader, or use this one's batch in the step."
)


COMPARED = (
    "The step compares its outputs with numbers that are made of the whole batch, such as targets less their mean, or"
    " their ranks, so what a sample loses depends on the other samples of its batch. Centre or scale the targets by"
    " numbers of the whole data set, before the fit."
)


SHARED = (
    "The samples of a batch share out what their losses are multiplied by, as where a softmax over the batch gives them"
    " weights, so how much one counts depends on the others. Weigh each sample by numbers of its own, or return each"
    " sample's own loss under a key and give sample_loss='that key'."
)


SIZE = (
    "The loss holds the size of a number that is put together from all samples, as abs() gives it, also where it keeps"
    " a loss above a flood level, so a sample alone may count with the other sign than among others. Take abs() of the"
    " samples' own losses, and the mean over them then: losses.abs().mean()."
)


BRANCH = (
    "The step decides by a number of the whole batch which way it takes, in line {} of {}, and samples alone take the"
    " other way, by which they lose something else. Decide for each sample by itself, with torch.where over the losses"
    " of the samples before their mean, or return each sample's own loss under a key and give sample_loss='that key'."
)


OPEN_BRANCH = (
    "The step decides by a number of the whole batch, such as its loss or how many losses are high, in line {} of {}."
    " If its loss depends on that, a sample's loss is read along the way that its batch takes, although alone it might"
    " take the other. To decide for each sample by itself, use torch.where over the samples' losses before their mean."
)


UNSHOWN = (
    "The coefficient of {} changes from batch to batch, and nothing shows why: the step could not be run on"
    " single samples, or these have not told. If it is drawn or scheduled, each sample's loss is right. If it depends"
    " on a number that is taken out of torch, as by item(), tolist() or NumPy, it is wrong by a factor: divide by a"
    " count that torch sums over the batch, decide by torch.where over the samples' losses, or return each sample's own"
    " loss under a key and give sample_loss='that key'."
)


OTHER_WAY = (
    "{} is part of the loss of a batch, but not of that of its samples alone, although they lose something by it: the"
    " step takes another way, such as the other branch of an if, because of what the whole batch holds. Decide for"
    " each sample by itself, with torch.where over the samples' losses, or return each sample's own loss under a key"
    " and give sample_loss='that key'."
)


def nothing_found(batch_size: int, n_seen: int, n_entering: int) -> str:
    """Say what a loss has to be made of, where it is made of nothing that is known.

    Args:
        batch_size: The number of samples.
        n_seen: How many means and sums the step has computed.
        n_entering: How many of them are part of the loss.
    """
    return (
        f"No loss was found for each of the batch's {batch_size} samples ({n_seen} reductions seen, {n_entering} of"
        " them part of the loss). It has to be made of means and sums that torch takes over the batch: losses.sum() in"
        " place of Python's sum(losses), a sum of squares in place of a norm. Where a kernel computes it, as in a"
        " torch.autograd.Function, teach capture the function that calls it, by"
        f" lightning_dataselect.capture.register_loss(function): it must take reduction='none'. Otherwise: {EITHER}"
    )


def without_other_methods(advice: str) -> str:
    """Return advice for a user whose method needs no per-sample losses.

    Example:
        >>> without_other_methods(f"The step mixes its samples. {EITHER}")
        "The step mixes its samples. Return each sample's own loss under a key and give sample_loss='that key'."
    """
    return advice.replace(f" {NEED_NONE}", "")
