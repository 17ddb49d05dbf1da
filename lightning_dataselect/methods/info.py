"""What is known about a method, kept beside its class."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["set-level", "batch-level", "static"]


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """Where a method comes from and what it takes.

    Attributes:
        year: Year of publication.
        paper: Authors, title and venue.
        url: Where to read it.
        kind: ``"set-level"`` chooses the samples of an epoch, ``"batch-level"`` those of a batch,
            ``"static"`` one subset for good.
        needs: What the method reads of each sample; ``"nothing"`` if it does without.
        published: The result that the authors report, in a line.

    Example:
        >>> from lightning_dataselect.methods.infobatch import InfoBatch
        >>> InfoBatch.info.kind, InfoBatch.info.needs
        ('set-level', 'losses')
    """

    year: int
    paper: str
    url: str
    kind: Kind
    needs: str
    published: str
