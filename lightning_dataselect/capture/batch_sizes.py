"""Tell if a batch of another size can show more of a step than those before."""

from __future__ import annotations


class BatchSizes:
    """Remember what the sizes of the batches so far could not show.

    Example:
        >>> sizes = BatchSizes()
        >>> sizes.learn(8, has_equal_axes=True)  # of 8 samples with 8 features each
        >>> sizes.tells_axes_apart(8), sizes.tells_axes_apart(7)
        (False, True)

    Attributes:
        may_tell_more: False if no size can: an attribute, since a call in every step would show in short ones.
    """

    def __init__(self) -> None:
        self.may_tell_more = True
        self._has_several = False
        self._unclear: int | None = None  # of batches in which another axis is as long

    def meet_several(self, *, has_several: bool) -> None:
        """Note whether the batch has more than one sample."""
        self._has_several = has_several
        self.may_tell_more = not has_several or self._unclear is not None

    def tells_more(self, size: int) -> bool:
        """Tell if a batch of this size can show more than those before."""
        return self.is_first_of_several(size) or self.tells_axes_apart(size)

    def is_first_of_several(self, size: int) -> bool:
        """Tell if a batch of this size is the first of more than one sample."""
        return size > 1 and not self._has_several

    def tells_axes_apart(self, size: int) -> bool:
        """Tell if a batch of this size tells axes apart that had the same length so far."""
        return self._unclear is not None and size > 1 and size != self._unclear

    def learn(self, size: int, *, has_equal_axes: bool) -> None:
        """Note whether another axis was as long as the batch that was probed."""
        if size > 1 or self._unclear is None:  # an axis of one shows nothing of another
            self._unclear = size if has_equal_axes else None
            self.meet_several(has_several=self._has_several)
