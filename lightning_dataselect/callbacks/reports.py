"""Export and plot the results of a fit; the code for that is imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_dataselect.state.results import Results
from lightning_dataselect.state.store import Identity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Reports(Results):
    """Export and plot the results of a fit."""

    def export(self, path: str | Path) -> Path:
        """Write one row per sample as .csv or .parquet.

        :func:`~lightning_dataselect.report.export.to_frame` describes the columns; `key`, `method.…` and `fit` are for
        a later fit that starts from the file, see :func:`~lightning_dataselect.report.export.write_samples`.

        Raises:
            ValueError: If ``path`` has another suffix, or the samples come from a stream without keys.
            UnwritableFileError: If the disk is full, say; an earlier file stays as it was.
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
            dataset: For the gallery, images or text in the order of the training set; None for the training set itself.
            decode: Turns a sample's token ids into a string, such as ``tokenizer.decode``.

        Raises:
            NoFitYetError: If no fit has begun.
            ValueError: If the kind does not exist, or there is no data set to show, or nothing in it can be shown.
        """
        if kind != "kept_share":
            others = () if kind == "gallery" else (Identity.KEY,)
            self.check_known_by(f"plot({kind!r})", Identity.INDEX, *others)
        from lightning_dataselect.report.gallery import plot_results

        _ = self.run_state.fit  # raises where there is none
        return plot_results(self, kind, dataset, decode)
