"""Say why a step's samples have no losses that can be told."""

from __future__ import annotations

from lightning_dataselect.capture.ways_out import NO_OWN_LOSS, OWN_LOSS

ORDER = (
    "The step puts the samples of a batch into another order, as by their lengths, so what one sample loses would be"
    " taken for another's. Put the outputs back into the order of the batch before the loss, as"
    " torch.nn.utils.rnn.pack_padded_sequence(..., enforce_sorted=False) does."
)


JUDGED = (
    "The step picks rows out of the batch by what the model's outputs decide, maybe those of other samples, as where"
    " the hardest of a batch are kept, and single samples have not shown otherwise. Return each sample's own loss under"
    " a key and give sample_loss='that key', or leave the choice of hard samples to SelectiveBackprop."
)


COUNT = (
    "The loss is divided by a number that was counted in the batch outside of torch, or in a way that cannot be"
    " followed to its samples, so what each of them adds to that number is not known. Divide by a count that torch"
    " sums up over the batch, such as (labels != -100).sum()."
)


SCALE = (
    "What the loss is divided by, or multiplied with, is another number for a sample alone than its share in that of"
    " several, as the length of the longest text, the root of a count, or a count and 1 is, so what each sample loses"
    " cannot be told from a batch of them. Divide by a count that torch sums up over the batch, such as"
    " (labels != -100).sum(), or by the number of samples."
)


CUT_OFF = (
    "The loss is cut off at a bound, as by clamp, relu or maximum, once the samples' losses have been put together, so"
    " a batch may be beyond the bound where one of its samples alone is not. Cut off the samples' own losses, and take"
    " the mean over them then: losses.clamp(max=bound).mean()."
)


DRAWN = (
    "The step takes some samples of its batch more than once, or leaves some out, by an index of its own, as one that"
    " is drawn with replacement, so what it loses on a batch is not what its samples lose. Leave the choice to a"
    " sampler of the train loader, such as torch.utils.data.WeightedRandomSampler, or multiply the losses of all"
    " samples by weights."
)


MIXED_INSIDE = (
    "What the model makes of a sample depends on the other samples of its batch, as where samples attend to each other"
    " or are scaled by the mean of a batch, in eval mode, too, so a sample alone would lose something else. Scale by"
    " running statistics, as torch.nn.BatchNorm1d does in eval mode. To go by what a sample loses among the others,"
    " return that under a key and give sample_loss='that key'; RandomPruning needs no per-sample loss."
)


OTHER_SAMPLES = (
    "What a sample loses in this step depends on the other samples of its batch, as in a contrastive loss."
    f" {NO_OWN_LOSS}"
)


GROUPS = (
    "The loss is a mean over groups of samples, as over the classes that are there, so how much a sample's loss counts"
    " depends on how many groups its batch holds. Weigh the samples' own losses and take the mean over them, or return"
    " each sample's own loss under a key and give sample_loss='that key'."
)


ROWS = (
    "The losses of all samples lie one after the other, as those of boxes, nodes or tokens do, some samples have more"
    f" of them than others, and nothing shows which rows are whose. {OWN_LOSS}"
)


PICKED = (
    "The step picks rows out of the batch by a mask or an index, so which sample a row of losses belongs to is another"
    " in each batch. Use ignore_index or multiply the losses by the mask. Rows of pairs of samples, as of a contrastive"
    f" loss, are no sample's own: {NO_OWN_LOSS}"
)


FOLDED = (
    "The step takes the mean or the sum over its samples first, and puts the loss together from what is left of each"
    " output, so no reduction holds what each sample adds. Put it together sample by sample, and reduce over the"
    " samples last: (errors * weights).sum(1).mean() in place of (errors.mean(0) * weights).sum()."
)


QUOTIENT = (
    "The loss is no weighted sum of means or sums over the batch, but a quotient, a product or the like of them, such"
    f" as a Dice loss over the whole batch: no sample has a share of its own in it. {NO_OWN_LOSS}"
)


OTHER_LOADERS = (
    "None of the step's losses is computed from the samples of the named train loader: all of them come from other"
    " loaders. Name another loader, or use this one's batch in the step."
)
