"""Read the losses of several groups of samples from the same steps, such as those of two train loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from torch import nn

from lightning_dataselect.capture.capture import LossCapture
from lightning_dataselect.capture.loss.terms import name_of
from lightning_dataselect.capture.recording.interception import Interceptors
from lightning_dataselect.capture.recording.shared import SharedRecorder
from lightning_dataselect.utils.errors import CaptureError


class SharedSteps:
    """Make captures whose runs may be nested, so that each reads the losses of other samples of the same step.

    A step is probed for one of them at a time, by runs without another purpose. When all of them read a step, each loss
    function, mean and sum is recorded by the one whose samples it belongs to.

    Args:
        module: Searched for loss functions that it holds as attributes.

    Example:
        >>> import torch
        >>> model, x, u = nn.Linear(3, 1), torch.ones(4, 3), torch.zeros(2, 3)
        >>> def step():
        ...     return model(x).square().mean() + nn.functional.l1_loss(model(u), torch.ones(2, 1))
        >>> steps = SharedSteps(model)
        >>> first, second = steps.add_capture(), steps.add_capture()
        >>> first.batch_tensors, second.batch_tensors = lambda: ([x], [u]), lambda: ([u], [x])
        >>> sizes = {first: 4, second: 2}
        >>> for capture in steps.due(sizes):
        ...     _ = capture.probe(step, sizes[capture])
        >>> _, of_second = second.run(lambda: first.run(step, 4)[0], 2)
        >>> torch.allclose(of_second.losses, (model(u) - 1).abs().flatten())
        True
    """

    def __init__(self, module: nn.Module | None = None) -> None:
        self._module = module
        self._interceptors = Interceptors(SharedRecorder(), module)

    def add_capture(self) -> LossCapture:
        """Return one more capture that reads the steps."""
        return LossCapture(self._module, self._interceptors)

    def due(self, sizes: Mapping[LossCapture, int]) -> Iterator[LossCapture]:
        """Yield each capture for which the next step is to be probed by `LossCapture.probe`, before the next is taken.

        A capture is probed again once another one has found other terms, so that it knows which are left to it.

        Args:
            sizes: How many of its samples the step has, for each capture that reads it.

        Raises:
            CaptureError: If two of them are to measure the same samples.
        """
        for capture, size in sizes.items():
            capture.meet_size(size)
        due = [capture for capture, size in sizes.items() if capture.will_probe(size)]
        if not due:
            return
        n_left = len(sizes) ** 2  # of probes: findings settle at once, or never
        while due and n_left:
            capture, n_left = due.pop(0), n_left - 1
            before = capture.own_terms
            yield capture
            if capture.own_terms != before:
                for other in sizes:
                    if other is not capture:
                        other.probe_next()
                        due += [] if other in due else [other]
        for one, another in combinations(sizes, 2):
            if both := one.own_terms & another.own_terms:
                shared = name_of(min(both, key=repr))
                raise CaptureError(
                    f"{shared} is computed from samples that two captures of the same steps are to"
                    " measure. Let each of them measure other samples, as batch_tensors says which are its own."
                )
