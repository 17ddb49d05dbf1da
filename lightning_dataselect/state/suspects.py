"""The samples whose labels are probably wrong, judged by averages over the epochs of a fit.

A network learns what most of the data agrees on before it memorizes a wrong label. So averages over the epochs reveal a
wrong label even if the last epoch no longer does: the area under the margin of Pleiss et al., "Identifying Mislabeled
Data using the Area Under the Margin Ranking" (NeurIPS 2020), and the confidence and variability of Swayamdipta et al.,
"Dataset Cartography" (EMNLP 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_dataselect.state.class_history import UNKNOWN
from lightning_dataselect.state.sample_history import SampleHistoryStore


@dataclass(frozen=True)
class Suspect:
    """A sample whose label is probably wrong.

    The averages are over all measurements of the sample, usually one per epoch. All but ``index``, ``suspicion`` and
    ``mean_loss`` are None if the training step shows no classes.

    Attributes:
        index: Index in the training set.
        suspicion: What suspects are ranked by, 0 to 1. With classes, the sigmoid of minus ``mean_margin``: the
            probability of the best other class against the label, by their mean log-odds, so above 0.5 the label was
            behind on average. Without classes, the share of samples with a lower mean loss.
        mean_loss: Mean loss.
        label: The class that the sample is labelled with.
        predicted: The class that the model predicted when the sample was last measured.
        confidence: Mean probability of the label.
        variability: Standard deviation of that probability.
        mean_margin: Mean logit of the label minus that of the best other class: the area under the margin.
    """

    index: int
    suspicion: float
    mean_loss: float
    label: int | None = None
    predicted: int | None = None
    confidence: float | None = None
    variability: float | None = None
    mean_margin: float | None = None


def mean_losses(store: SampleHistoryStore) -> Tensor:
    """Return the mean of each sample's finite losses, float32 (N,), on the CPU; NaN if there was none."""
    return store.column("loss_sum") / store.column("times_measured")


def averages(store: SampleHistoryStore) -> dict[str, Tensor]:
    """Return the averages of a store that knows classes, each float32 (N,), on the CPU; NaN if never classified.

    Returns:
        ``mean_margin``, ``confidence`` and ``variability``, see :class:`Suspect`.

    Example:
        >>> from lightning_dataselect.state.selection import Observation
        >>> store = SampleHistoryStore(2)
        >>> for logits in ([[0.0, 0.0]], [[50.0, 0.0]]):
        ...     store.record_logits(Observation(torch.tensor([0]), torch.zeros(1), torch.tensor(logits),
        ...                                     torch.tensor([0]), 0))
        >>> {name: values.tolist() for name, values in averages(store).items()}
        {'mean_margin': [25.0, nan], 'confidence': [0.75, nan], 'variability': [0.25, nan]}
    """
    times = store.column("times_classified")
    confidence = store.column("confidence_sum") / times
    # NaN stays NaN: clamping keeps it
    variance = (store.column("confidence_squares") / times - confidence * confidence).clamp(min=0)
    return {
        "mean_margin": store.column("margin_sum") / times,
        "confidence": confidence,
        "variability": variance.sqrt(),
    }


def suspicions(store: SampleHistoryStore) -> Tensor:
    """Return how suspicious each sample's label is, float32 (N,), on the CPU; NaN if never measured.

    With classes it is the sigmoid of minus the area under the margin; without, the share of the measured samples whose
    mean loss is lower.

    Example:
        >>> store = SampleHistoryStore(4)
        >>> store.record_losses(torch.tensor([0, 1, 2]), torch.tensor([0.5, 9.0, 1.0]))
        >>> suspicions(store)
        tensor([0.0000, 0.6667, 0.3333,    nan])
    """
    if store.knows_classes:
        return (-averages(store)["mean_margin"]).sigmoid()
    losses = mean_losses(store)
    known = losses.isfinite().nonzero()[:, 0]
    ranked = losses[known].sort().values
    found = torch.full_like(losses, torch.nan)
    found[known] = torch.searchsorted(ranked, losses[known]).float() / max(1, len(known))
    return found


def most_suspicious(store: SampleHistoryStore, n: int) -> list[Suspect]:
    """Return the ``n`` most suspicious samples, or all measured ones if there are fewer, the most suspicious first.

    Example:
        >>> store = SampleHistoryStore(3)
        >>> store.record_losses(torch.tensor([0, 1]), torch.tensor([0.5, 9.0]))
        >>> [(suspect.index, suspect.mean_loss) for suspect in most_suspicious(store, 5)]
        [(1, 9.0), (0, 0.5)]
    """
    suspicion = suspicions(store)
    known = suspicion.isfinite().nonzero()[:, 0]
    chosen = known[suspicion[known].argsort(descending=True, stable=True)][:n].tolist()
    losses = mean_losses(store)
    if not store.knows_classes:
        return [Suspect(i, float(suspicion[i]), mean_loss=float(losses[i])) for i in chosen]
    label, predicted, means = store.column("label"), store.column("predicted"), averages(store)
    return [
        Suspect(
            index=i,
            suspicion=float(suspicion[i]),
            mean_loss=float(losses[i]),
            label=int(label[i]),
            predicted=int(predicted[i]),
            confidence=float(means["confidence"][i]),
            variability=float(means["variability"][i]),
            mean_margin=float(means["mean_margin"][i]),
        )
        for i in chosen
        if label[i] != UNKNOWN
    ]
