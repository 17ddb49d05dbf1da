"""Summarize in one line, at the end of a fit, what it dropped and saved."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lightning_dataselect.state.fit_state import EpochRecord

_FEWEST_FULL = 2
_MOST_APART = 0.1


def fit_summary(name: str, history: Sequence[EpochRecord], share_spent: float | None = None) -> str:
    """Summarize what a fit has trained on, and how much time that saved.

    The time is given if the fit itself has measured what full data costs: the median seconds per sample of its full
    epochs, of which it needs two besides the first one, which includes start-up costs. It is left out if the clock
    cannot be trusted, that is, if these epochs disagree on whether there was a saving, or by more than 10 points on how
    large it was, or if more time than samples was saved. It is also left out if other models were trained as well.

    Dropped samples are counted relative to the samples that the epochs would have had with nothing dropped, given the
    sampler, loader and Trainer. An epoch that the end of the fit cut short counts in part.

    Args:
        name: Name of the method.
        history: One record for each epoch that has ended, at least one.
        share_spent: Share of the compute of training on everything that a fit with a budget has spent; None without.

    Example:
        >>> def record(n, seconds):
        ...     return {"epoch": 0, "n_total": 100, "n_selected": n, "n_forward": n, "n_backward": n, "n_trained": n,
        ...             "n_left_out": 0, "n_full": 100, "done": 1.0, "seconds": seconds, "select_seconds": 0.1}
        >>> full, pruned = record(100, 2.0), record(50, 1.1)
        >>> fit_summary("InfoBatch", [full, pruned, pruned])
        'InfoBatch: trained on 67 of 100 samples an epoch (33 % dropped)'
        >>> fit_summary("InfoBatch", [full, pruned, pruned, full, full])
        'InfoBatch: trained on 80 of 100 samples an epoch (20 % dropped), 13 % less time than planned'
        >>> fit_summary("InfoBatch", [full])
        'InfoBatch dropped nothing: trained on all 100 samples an epoch, for 1 epoch'
        >>> fit_summary("FewerEpochs", [full, full, full | {"n_trained": 50, "n_full": 50, "done": 0.5}])
        'FewerEpochs dropped nothing: trained on all 100 samples an epoch, for 2.5 epochs'
        >>> fit_summary("InfoBatch", [full | {"n_trained": 0}])
        'InfoBatch: trained on no sample, as training_step returned no loss'
        >>> fit_summary("Frontier", [full | {"n_selected": 50, "n_trained": 50, "n_full": 50}], share_spent=0.5)
        'Frontier: trained on 50 samples an epoch for 1 epoch, 50 % of the compute of training on everything'
    """
    if not any(r["n_trained"] or r["n_left_out"] for r in history):
        return f"{name}: trained on no sample, as training_step returned no loss"
    trained, full, epochs = (sum(r[key] for r in history) for key in ("n_trained", "n_full", "done"))
    an_epoch, span = f"{trained / epochs:,.0f}", "1 epoch" if epochs == 1 else f"{round(epochs, 2):g} epochs"
    if all(map(_is_whole, history)):
        return f"{name} dropped nothing: trained on all {an_epoch} samples an epoch, for {span}"
    if share_spent is not None:
        of = "" if trained >= full else f" of {full / epochs:,.0f}"
        spent = f"{100 * share_spent:.0f} % of the compute of training on everything"
        return f"{name}: trained on {an_epoch}{of} samples an epoch for {span}, {spent}"
    if trained >= full:
        return (
            f"{name} saved nothing: trained on {an_epoch} samples an epoch, as many as without it, since the Trainer or"
            " the loader limits their number"
        )
    dropped = 100 * (1 - trained / full)
    percent = f"{dropped:.0f}" if dropped >= 0.5 else "less than 1"
    text = f"{name}: trained on {an_epoch} of {full / epochs:,.0f} samples an epoch ({percent} % dropped)"
    saved = _time_saved(history)
    if saved is None or round(100 * saved) > round(dropped):
        return text
    return f"{text}, {100 * abs(saved):.0f} % {'less' if saved > 0 else 'more'} time than planned"


def _is_whole(record: EpochRecord) -> bool:
    return record["n_selected"] == record["n_total"] and record["n_left_out"] == 0


def _time_saved(history: Sequence[EpochRecord]) -> float | None:
    """Return the share of the time that was saved, below 0 if time was lost; None if that cannot be told."""
    # the time of an epoch that a killed fit had almost finished is lost
    if any(r["n_backward"] != r["n_trained"] or r["seconds"] == 0 for r in history):
        return None
    full = [r["seconds"] / r["n_trained"] for r in history[1:] if _is_whole(r) and 0 < r["n_forward"] <= r["n_trained"]]
    if len(full) < _FEWEST_FULL:
        return None
    first, others = history[0], history[1:]
    spent = sum(r["seconds"] + r["select_seconds"] for r in history)

    def saved(seconds: float) -> float:
        """Return the share saved if a sample of full data takes so long."""
        if _is_whole(first):
            return 1 - spent / (first["seconds"] + seconds * sum(r["n_full"] for r in others))
        return 1 - spent / (seconds * sum(r["n_full"] for r in history))

    least, likely, most = round(saved(min(full)), 2), round(saved(median(full)), 2), round(saved(max(full)), 2)
    return likely if least * most > 0 and most - least <= _MOST_APART else None
