"""The facts of a method, known without importing it."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lightning_dataselect.callbacks.selector import DataSelector

Kind = Literal["set-level", "batch-level", "static"]


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """The paper of a method, what the method reads of each sample, and the module of its class.

    Attributes:
        name: Name of the class.
        module: Its module, below ``lightning_dataselect.methods``.
        year: Year of publication.
        paper: Authors, title and venue.
        url: The address of the paper; empty for a method that no paper describes.
        kind: ``"set-level"`` chooses the samples of an epoch, ``"batch-level"`` those of a batch,
            ``"static"`` one subset for good.
        needs: What the method reads of each sample; ``"nothing"`` if it needs none.
        drops: What it leaves out, and what ``prune_ratio`` means to it.
        published: The result that the authors report, in a line.

    Example:
        >>> from lightning_dataselect import InfoBatch
        >>> InfoBatch.info.kind, InfoBatch.info.needs
        ('set-level', 'losses')
    """

    name: str
    module: str
    year: int
    paper: str
    url: str
    kind: Kind
    needs: str
    drops: str
    published: str

    @property
    def cls(self) -> type[DataSelector]:
        """The callback, imported when it is first asked for."""
        cls: type[DataSelector] = pkgutil.resolve_name(self.path)
        return cls

    @property
    def path(self) -> str:
        """The import path of the class."""
        return f"lightning_dataselect.methods.{self.module}.{self.name}"
