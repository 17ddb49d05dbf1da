"""Selective-Backprop: train on a sample with a probability that grows with the rank of its loss.

Jiang, Wong, Zhou, Andersen, Dean, Ganger, Joshi, Kaminksy, Kozuch, Lipton, Pillai, "Accelerating Deep Learning by
Focusing on the Biggest Losers", 2019, arXiv 1910.00762. With ``R`` the losses of the last R samples forwarded:

    P(train on i) = (percentile of l_i in R) ^ beta

The first epoch trains on everything. Defaults R = 1024 and beta = 3. As in the authors' code the losses of a whole
batch enter R before they are ranked. Choices of our own: equal losses share the mean of their ranks, and the highest of
R has the percentile 1, where the code counts the losses strictly below, which is 1 / R less, and for many equal losses
as if each were the lowest of them; each rank keeps an R of the samples it has seen; a loss that is not finite has the
probability 1 and stays out of R.

What was chosen of a batch is trained on at once, with the mean of its losses, so that steps differ in size; the
authors collect chosen samples until a batch is full. ``constant_batch_size=True`` does so, too, but lets what is left
of an epoch wait for the next one, where theirs makes a smaller batch of it. The share expected is ``1 / (beta + 1)``
while the losses do not drift. Where chance takes fewer than two, and they are not collected, the samples that came
nearest are trained on too: two, since BatchNorm cannot train on one, but one if the share expected of a batch is no
more and the module has no BatchNorm. With the defaults chance does so in 37 % of batches of 8, in 6 % of 16 and in
0.1 % of 32. The algorithm of the same name in MosaicML's composer is another one: it ranks within the batch, without
R, draws a fixed number of samples, and does so in every second batch between 50 and 90 % of the training.

How many samples are chosen is known on the device alone, and the batch cannot be cut without that number: a step waits
for it, once. The other methods within a batch take a fixed number and wait for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_dataselect.callbacks.batch_selector import BatchSelector
from lightning_dataselect.callbacks.within_batches import WithinBatches
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.info import MethodInfo
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.store import ScoreStore
from lightning_dataselect.utils.errors import InvalidArgumentError
from lightning_dataselect.utils.validation import check_count, check_number, refuse_unused


def percentile(losses: Tensor, recent: Tensor) -> Tensor:
    """Return the share of ``recent`` below each loss; equal ones count by the mean of their ranks.

    Args:
        losses: float32 (B,).
        recent: float32 (R,), NaN = no loss.

    Returns:
        float32 (B,), in [0, 1]; NaN where the loss is NaN.

    Example:
        >>> percentile(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0, 2.0, 3.0, float("nan")]))
        tensor([1.0000, 0.2500])
    """
    ordered = recent.nan_to_num(nan=torch.inf, posinf=torch.inf).sort().values  # beyond every rank
    below = torch.searchsorted(ordered, losses)
    not_above = torch.searchsorted(ordered, losses, right=True)
    known = (~recent.isnan()).sum().clamp(min=1)
    ranks = (below + not_above + (below < not_above)) / 2
    return torch.where(losses.isnan(), torch.nan, ranks / known)


def take_by_chance(probabilities: Tensor, generator: torch.Generator, fewest: int = 1) -> Tensor:
    """Draw positions independently of each other, filled up by those that came nearest; waits for the device once.

    Args:
        probabilities: float32 (B,), NaN counts as 1.
        generator: On the device of ``probabilities``.
        fewest: The least number that is taken, at most B.

    Returns:
        int64 (b,), ``fewest <= b <= B``.

    Example:
        >>> take_by_chance(torch.tensor([0.0, 1.0, 0.0]), torch.Generator().manual_seed(0))
        tensor([1])
    """
    chances = torch.rand(probabilities.shape, generator=generator, device=probabilities.device)
    excess = probabilities.nan_to_num(1.0) - chances
    taken = int((excess > 0).sum().clamp(min=fewest))
    return excess.topk(taken).indices


class SelectiveBackprop(WithinBatches, BatchSelector):
    """Score each batch, and train on a sample with the probability ``percentile(loss) ** beta``.

    Args:
        beta: How strongly high losses are preferred, 0 (everything is trained on) or more. Default 3, the paper's.
        history: Number ``R`` of losses that a loss is ranked among. Default 1024, the paper's.
        warmup_epochs: Epochs on everything at the start. Default 1, the paper's.
        **common: Arguments of `BatchSelector` but ``batch_ratio``, which follows from ``beta``, and ``prune_ratio``,
            ``every_n_epochs`` and ``balance``, which have no effect here.

    Raises:
        TypeError: If an argument is of the wrong type, or means nothing here.
        ValueError: If an argument is out of its range.

    Example:
        >>> SelectiveBackprop(beta=3).batch_ratio  # expected
        0.25
    """

    unused: ClassVar[frozenset[str]] = WithinBatches.unused | {"batch_ratio"}
    chosen_by = "beta"
    info: ClassVar[MethodInfo] = CATALOG["SelectiveBackprop"]
    other_words: ClassVar[Mapping[str, str]] = {
        "prob_pow": "beta",
        "history_length": "history",
        "max_history_len": "history",
    }

    def __init__(
        self,
        *,
        beta: float = 3.0,
        history: int = 1024,
        warmup_epochs: int = 1,
        **common: Any,
    ) -> None:
        self.beta = check_number("beta", beta)
        if not 0 <= self.beta < torch.inf:
            raise InvalidArgumentError(f"beta={beta!r} must be finite and 0 or more: 3 is the paper's.")
        refuse_unused(type(self).__name__, {"batch_ratio"}, common, self.chosen_by)
        super().__init__(
            batch_ratio=1 / (1 + self.beta),
            warmup_epochs=warmup_epochs,
            **common,
        )
        self.n_recent = check_count("history", history, minimum=1)
        self._recent = self._no_losses()

    def observe(self, seen: Observation, store: ScoreStore) -> None:
        """Take up the losses, and rank them; the score is the probability."""
        recent = self._recent.to(seen.losses.device, non_blocking=True)
        if seen.is_full_batch:  # the losses of those trained on are not the usual ones
            own = torch.where(seen.indices < store.n, seen.losses, torch.nan)
            recent = torch.cat([recent, own])[-self.n_recent :]
        self._recent = recent
        store["score"][seen.indices] = percentile(seen.losses, self._recent) ** self.beta

    def choose(self, seen: Observation, k: int, generator: torch.Generator) -> Tensor:
        """Take each sample by its own chance, or those that came nearest where they are too few."""
        return take_by_chance(self.store["score"][seen.indices], generator, fewest=self.fewest(k))

    def forget(self) -> None:
        """Let go of the recent losses."""
        self._recent = self._no_losses()

    def rank_state(self) -> dict[str, Any]:
        """Return the recent losses, float32 (R,)."""
        return {"recent": self._recent.cpu()}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Take over recent losses."""
        self._recent = state["recent"]

    def _no_losses(self) -> Tensor:
        return torch.full((self.n_recent,), torch.nan)
