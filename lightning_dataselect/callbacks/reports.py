"""The results of a fit, written and drawn by the room that does so, which is loaded when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_dataselect.state.results import Results
from lightning_dataselect.state.store import Identity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Reports(Results):
    """Export a fit's results, and draw them."""

    def export(self, path: str | Path) -> Path:
        """Write one row a sample as .csv or .parquet.

        Its columns are named and explained at :func:`~lightning_dataselect.report.export.to_frame`; `key`, `method.…`
        and `fit` are for a fit that starts from it, see :func:`~lightning_dataselect.report.export.write_samples`.

        Raises:
            ValueError: If ``path`` has another ending, or the samples are those of a stream without keys.
        """
        from lightning_dataselect.report.export import write_samples

        self.check_known_by("export()", Identity.INDEX, Identity.KEY)
        return write_samples(self, path)

    def plot(
        self, kind: str = "kept_share", *, dataset: Any = None, decode: Callable[[Any], str] | None = None
    ) -> Figure:
        """Draw a matplotlib figure.

        Args:
            kind: ``"kept_share"`` by epoch, ``"score_histogram"``, ``"data_map"`` (with classes each sample by
                confidence and variability, else by its last loss and its score), or ``"gallery"``: the probable label
                errors, the hardest, the easiest and the most often forgotten samples themselves.
            dataset: For the gallery, images or text in the order of the training set; None takes the training set.
            decode: Makes a string of a sample's token ids, such as ``tokenizer.decode``.

        Raises:
            NoFitYetError: If no fit has begun.
            ValueError: If there is no such kind, no data set to show, or nothing in it that can be shown.
        """
        if kind != "kept_share":
            others = () if kind == "gallery" else (Identity.KEY,)
            self.check_known_by(f"plot({kind!r})", Identity.INDEX, *others)
        from lightning_dataselect.report.gallery import plot_results

        _ = self.run_state.fit  # raises where there is none
        return plot_results(self, kind, dataset, decode)
