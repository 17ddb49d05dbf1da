"""Make a step draw the same random numbers for a sample within a batch as for that sample alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_dataselect.step.communication import Communication

_aten = torch.ops.aten


class UnsteadyDrawError(Exception):
    """A step draws from a distribution that cannot be drawn from sample by sample."""


class SteadyDraws(Communication):
    """Replace the random numbers of a step by ones that do not depend on the number of samples.

    The entries along the first axis, which is assumed to be that of the samples, are all equal, and a permutation is
    the reverse order, so that its effect shows. Draws by NumPy and Python are unchanged.

    Raises:
        UnsteadyDrawError: Inside, at a draw from a distribution that is not one of those used for images, tokens and
            noise.

    Example:
        >>> with SteadyDraws():
        ...     three = torch.randn(3, 2)
        >>> with SteadyDraws():
        ...     one = torch.randn(1, 2)
        >>> torch.equal(three, one.expand(3, 2)), bool(one[0, 0] == one[0, 1])
        (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()
        self._n_draws = 0
        self.has_drawn = False
        """True once a step has drawn random numbers from torch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Call an operator, and replace what it has drawn."""
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return out
        arguments = func._schema.arguments
        given = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in arguments), args, strict=False)) | (kwargs or {})
        if given.get("dropout_p") == 0:  # attention in eval mode
            return out
        draw = _DRAWS.get(func.overloadpacket)
        if draw is None:
            raise UnsteadyDrawError(func)
        self.has_drawn = True
        draw(self, out, given)
        return out

    def during(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Return a function that runs a step in this mode, but nothing that happens to its loss afterwards."""

        def run() -> Any:
            with self:
                return step()

        return run

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers in (0, 1) with the shape of ``like``, on its device."""
        self._n_draws += 1
        self._generator.manual_seed(self._n_draws)
        row = torch.rand(like.shape[1:], generator=self._generator).clamp(1e-4, 1 - 1e-4)
        return row.expand(like.shape).to(like.device)


def _uniform(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    low, high = given.get("from", 0), given.get("to", 1)
    out.copy_(low + (high - low) * draws.uniform(out))


def _normal(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    out.copy_(given.get("mean", 0) + given.get("std", 1) * torch.special.ndtri(draws.uniform(out)))


def _integer(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    low, high = given.get("low", given.get("from", 0)), given.get("high", given.get("to"))
    if high is None:
        raise UnsteadyDrawError("an integer without a bound")
    out.copy_((low + (high - low) * draws.uniform(out)).floor())


def _bernoulli(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    p = given["p"] if "p" in given else given["self"]
    out.copy_(draws.uniform(out) < p)


def _dropout(draws: SteadyDraws, out: tuple[Tensor, Tensor], given: dict[str, Any]) -> None:
    dropped, mask = out
    if given["train"] is not False:
        mask.copy_(draws.uniform(mask) >= given["p"])
        dropped.copy_(given["input"] * mask / (1 - given["p"]))


def _exponential(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    out.copy_(-draws.uniform(out).log() / given["lambd"])


def _gamma(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    out.copy_(_near(draws, given["self"]))


def _dirichlet(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    shares = _near(draws, torch.atleast_2d(given["self"])).view_as(out)
    out.copy_(shares / shares.sum(-1, keepdim=True))


def _near(draws: SteadyDraws, mean: Tensor) -> Tensor:
    """Return numbers around their mean: the share of a mixup that is next to 0 or 1 would show no mixture."""
    return mean * (0.4 * torch.special.ndtri(draws.uniform(mean))).exp()


def _permutation(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    out.copy_(torch.arange(out.numel()).flip(0))


def _multinomial(draws: SteadyDraws, out: Tensor, given: dict[str, Any]) -> None:
    weights, n = given["self"].float(), given["num_samples"]
    if given["replacement"]:
        shares = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        drawn = torch.searchsorted(shares, draws.uniform(out).float().contiguous())
        out.copy_(drawn.clamp(max=weights.shape[-1] - 1))
        return
    if weights.dim() == 1:
        raise UnsteadyDrawError("several draws from one distribution")
    noise = -(-draws.uniform(weights).log()).log()  # Gumbel's distribution
    out.copy_((weights.log() + noise).topk(n).indices)


_DRAWS: dict[Any, Callable[[SteadyDraws, Any, dict[str, Any]], None]] = {
    _aten.rand: _uniform,
    _aten.rand_like: _uniform,
    _aten.uniform: _uniform,
    _aten.uniform_: _uniform,
    _aten.randn: _normal,
    _aten.randn_like: _normal,
    _aten.normal: _normal,
    _aten.normal_: _normal,
    _aten.normal_functional: _normal,
    _aten.randint: _integer,
    _aten.randint_like: _integer,
    _aten.random_: _integer,
    _aten.bernoulli: _bernoulli,
    _aten.bernoulli_: _bernoulli,
    _aten.native_dropout: _dropout,
    _aten.exponential_: _exponential,
    _aten._standard_gamma: _gamma,
    _aten._sample_dirichlet: _dirichlet,
    _aten.randperm: _permutation,
    _aten.multinomial: _multinomial,
}
