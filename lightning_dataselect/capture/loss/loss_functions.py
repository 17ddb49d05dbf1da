"""List the loss functions of `torch.nn.functional` that reduce, and how each of them does it.

Every one answers ``reduction="none"``; they differ in what a mean divides by, and in whether
the arguments are the logits and the targets of a classification.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import nll_loss  # before any patch

from lightning_dataselect.capture.loss.arguments import names_of_arguments
from lightning_dataselect.capture.loss.graph import saving_unnoticed
from lightning_dataselect.utils.errors import InvalidArgumentError

Function = Callable[..., Tensor]
Bound = dict[str, Any]
Split = tuple[Tensor | None, Tensor]
Classes = tuple[Tensor, Tensor]


def _of_classes(bound: Bound) -> Tensor | None:
    target, weight = bound["target"], bound.get("weight")
    if target.is_floating_point():
        return None
    ignore_index = bound.get("ignore_index", -100)
    valid = target != (-100 if ignore_index is None else ignore_index)
    if weight is None:
        return valid
    return weight.gather(0, (target * valid).flatten()).view_as(target) * valid


def _of_elements(bound: Bound) -> Tensor | None:
    return bound.get("weight")


def _evenly(bound: Bound) -> Tensor | None:
    return None


def _multiclass(bound: Bound) -> Classes | None:
    logits, target, ignored = bound["input"], bound["target"], bound.get("ignore_index")
    if logits.dim() != 2:
        return None
    if ignored is not None and ignored >= 0:  # callers know an ignored target by its sign
        target = target.masked_fill(target == ignored, -1)
    return logits, target


def _binary(to_logit: Callable[[Tensor], Tensor]) -> Callable[[Bound], Classes | None]:
    def classes(bound: Bound) -> Classes | None:
        one, target = bound["input"], bound["target"]
        if one.dim() != 1 and (one.dim() != 2 or one.shape[1] != 1):
            return None  # several independent labels, not one class of C
        one, target = to_logit(one.detach().flatten()), target.detach().flatten()
        return torch.stack([torch.zeros_like(one), one], 1), torch.stack([1 - target, target], 1)

    return classes


def _no_classes(bound: Bound) -> Classes | None:
    return None


def _softmax(values: Tensor) -> Tensor:
    return values.softmax(-1)


def _are_probabilities(values: Tensor) -> Tensor:
    return values


def _as_is(bound: Bound, losses: Tensor) -> Tensor:
    return losses


def _batchmean_rows(bound: Bound, losses: Tensor) -> Tensor:
    return losses.flatten(1).sum(1) if bound.get("reduction") == "batchmean" else losses


def _ctc_rows(bound: Bound, losses: Tensor) -> Tensor:
    if bound.get("reduction", "mean") == "sum":
        return losses
    lengths = torch.as_tensor(bound["target_lengths"], device=losses.device)
    return losses / lengths.clamp(min=1)


_HALVES = (torch.float16, torch.bfloat16)


def twice(function: Function, bound: Bound, graph: bool) -> Split:
    """Compute the loss as it is, and its unreduced losses besides: no bit of value or gradient changes."""
    value = function(**bound)
    with torch.set_grad_enabled(graph), saving_unnoticed():
        return value, function(**{**bound, "reduction": "none"})


def once(function: Function, bound: Bound, graph: bool) -> Split:
    """Compute the losses unreduced, with their graph: the way to split that all have."""
    return None, function(**{**bound, "reduction": "none"})


def _cross_entropy(function: Function, bound: Bound, graph: bool) -> Split:
    logits, target, weight = bound["input"], bound["target"], bound.get("weight")
    foreign = function.__module__ != "torch.nn.functional"  # a fused kernel in its place, say
    if foreign or bound.get("label_smoothing") or target.is_floating_point():
        return once(function, bound, graph)
    if logits.dtype in _HALVES and torch.is_autocast_enabled(logits.device.type):
        logits = logits.float()  # as autocast does for the loss, but on a CPU not for log_softmax
    logs = torch.log_softmax(logits, 0 if logits.dim() == 1 else 1)
    ignored, reduction = bound.get("ignore_index", -100), bound.get("reduction", "mean")
    value = nll_loss(logs, target, weight, ignore_index=ignored, reduction=reduction)
    logs = logs if graph else logs.detach()
    return value, nll_loss(logs, target, weight, ignore_index=ignored, reduction="none")


@dataclass(frozen=True)
class Loss:
    """Describe how one function of `torch.nn.functional` reduces.

    Attributes:
        name: Its name there.
        split: (function, arguments, whether the losses need a graph) -> (what the function
            returns, or None where that is left to `reductions.reduce`; the losses unreduced).
        rows: (arguments, unreduced losses) -> what the reduction is a plain mean or sum of.
        units: Arguments -> what a mean divides by the sum of (see `reductions.reduce`), or None.
        classes: Arguments -> (logits, targets), of a classification; else None.
        probabilities: Turns its input into probabilities; None where that holds no classes' scores.
        takes_features: True if its input comes before the last layer, and is no output of the model.
        arguments: The names of its parameters, in order.
    """

    name: str
    split: Callable[[Function, Bound, bool], Split] = twice
    rows: Callable[[Bound, Tensor], Tensor] = _as_is
    units: Callable[[Bound], Tensor | None] = _evenly
    classes: Callable[[Bound], Classes | None] = _no_classes
    probabilities: Callable[[Tensor], Tensor] | None = None
    takes_features: bool = False
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.arguments:
            object.__setattr__(self, "arguments", tuple(inspect.signature(getattr(F, self.name)).parameters))

    def bind(self, args: tuple[Any, ...], kwargs: Bound) -> Bound:
        """Name the arguments, with the two legacy ones turned into ``reduction``."""
        bound = dict(zip(self.arguments[: len(args)], args, strict=True))
        bound.update(kwargs)
        average, several = bound.pop("size_average", None), bound.pop("reduce", None)
        if average is not None or several is not None:
            mean_or_sum = "mean" if average is None or average else "sum"
            bound["reduction"] = mean_or_sum if several is None or several else "none"
        return bound

    @property
    def has_class_axis(self) -> bool:
        """True if the second axis of its input is that of the classes."""
        return self.classes is _multiclass

    def shows_outputs(self, bound: Mapping[str, Any]) -> bool:
        """Tell if it is given the model's outputs.

        Example:
            >>> Loss("mse_loss").shows_outputs({"input": 1}), Loss("triplet_margin_loss").shows_outputs({"anchor": 1})
            (True, False)
        """
        return "input" in bound and not self.takes_features

    def classes_of(self, bound: Bound, batch_size: int) -> Classes | None:
        """Return the logits and targets of the samples; not those of tokens, which are many and never asked for."""
        classes = self.classes(bound)
        return classes if classes is not None and classes[0].shape[0] == batch_size else None

    def counts(self, bound: Bound) -> Tensor | None:
        """Return the elements that the caller does not have ignored, if there is a way to ignore some."""
        return _of_classes({**bound, "weight": None}) if self.units is _of_classes else None

    def weighs_classes(self, bound: Bound) -> bool:
        """Tell if the caller has given each class a weight."""
        return self.units is _of_classes and bound.get("weight") is not None

    def weighs_elements(self, bound: Bound) -> bool:
        """Tell if the caller has given each element a weight, whose sum a mean divides by."""
        return self.units is _of_elements and bound.get("weight") is not None

    def call_name(self, bound: Bound) -> str:
        """Return what calls are counted under: a sum counts as another one, since something else may divide it."""
        return f"{self.name} (sum)" if bound.get("reduction", "mean") == "sum" else self.name

    def reduces(self, bound: Bound) -> bool:
        """Tell if these arguments ask for a reduction that exists."""
        reduction = bound.get("reduction", "mean")
        return reduction in ("mean", "sum") or (
            reduction == "batchmean" and self.rows is _batchmean_rows and bound["input"].dim() > 0
        )


_TABLE: dict[str, dict[str, Any]] = {
    "cross_entropy": {
        "split": _cross_entropy,
        "units": _of_classes,
        "classes": _multiclass,
        "probabilities": _softmax,
    },
    "nll_loss": {"units": _of_classes, "classes": _multiclass, "probabilities": torch.exp},
    "linear_cross_entropy": {"split": once, "units": _of_classes, "takes_features": True},  # newer than torch 2.6
    "binary_cross_entropy": {"classes": _binary(torch.logit), "probabilities": _are_probabilities},
    "binary_cross_entropy_with_logits": {"classes": _binary(torch.Tensor.detach), "probabilities": torch.sigmoid},
    "multi_margin_loss": {"classes": _multiclass, "probabilities": _softmax},
    "mse_loss": {"units": _of_elements},
    "l1_loss": {"units": _of_elements},
    "ctc_loss": {"split": once, "rows": _ctc_rows},
    "kl_div": {"rows": _batchmean_rows},
    "smooth_l1_loss": {},
    "huber_loss": {},
    "poisson_nll_loss": {},
    "gaussian_nll_loss": {},
    "soft_margin_loss": {"probabilities": torch.sigmoid},
    "multilabel_margin_loss": {},
    "multilabel_soft_margin_loss": {"probabilities": torch.sigmoid},
    "hinge_embedding_loss": {},
    "cosine_embedding_loss": {},
    "margin_ranking_loss": {},
    "triplet_margin_loss": {},
    "triplet_margin_with_distance_loss": {"split": once},  # its distance function may be a network
}


LOSSES = tuple(Loss(name, **how) for name, how in _TABLE.items() if hasattr(F, name))


REGISTERED: dict[Function, Loss] = {}


def register_loss(function: Function, *, input: str | None = None, target: str | None = None) -> Function:  # noqa: A002
    """Teach capture a loss function from outside of `torch.nn.functional`.

    It must take ``reduction="mean"``, ``"sum"`` and ``"none"``, as torch's own do. A loss that is put together from
    torch's functions, means and sums needs no registering; one that computes its mean in a kernel of its own does.

    Args:
        function: Called by the step, under whatever name. Returns one loss a sample, or several, for
            ``reduction="none"``.
        input: The name of its argument that holds the logits, (B, C), of a classification. Default None: no methods
            that need logits can be used with it.
        target: The name of its argument that holds the classes, int64 (B,). Default None.

    Returns:
        The function, so that this can be used as a decorator.

    Raises:
        ArgumentTypeError: If it is no function, or one whose arguments cannot be told.
        InvalidArgumentError: If it has no argument ``reduction``, or none of the given names.

    Example:
        >>> from lightning_dataselect.capture import LossCapture
        >>> class Fused(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, out, y):
        ...         ctx.save_for_backward(out - y)
        ...         return (out - y) ** 2 / 2
        ...     @staticmethod
        ...     def backward(ctx, slope):
        ...         return slope * ctx.saved_tensors[0], None
        >>> @register_loss
        ... def half_squares(out, y, reduction="mean"):
        ...     losses = Fused.apply(out, y)
        ...     return losses if reduction == "none" else torch.einsum("b->", losses) / len(y)
        >>> w, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(2)
        >>> LossCapture().run(lambda: half_squares(w * 2, y), batch_size=2)[1].losses
        tensor([2., 8.])
    """
    arguments = names_of_arguments(function)
    for name in ("reduction", *(name for name in (input, target) if name is not None)):
        if name not in arguments:
            raise InvalidArgumentError(
                f"register_loss({function.__name__}) needs an argument {name!r}, but it takes"
                f" {', '.join(arguments) or 'none'}."
            )

    def classes(bound: Bound) -> Classes | None:
        return (bound[input], bound[target]) if input is not None and target is not None else None

    name = f"{function.__module__}.{function.__qualname__}"
    REGISTERED[function] = Loss(name, once, classes=classes, arguments=arguments)
    return function
