"""A look at a step that trains leaves nothing behind: every fit comes to the same numbers as without a callback."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, dataset, trainer
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_dataselect.step.rehearsal import Rehearsal, UnknownOptimizerError
from lightning_dataselect.step.witness import Witness


class Gan(L.LightningModule):
    """Leaves a trace wherever a step that optimizes by itself can."""

    seen: ClassVar[list[int]] = []  # of the class: what an instance holds is put back

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.critic = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1))
        self.average = copy.deepcopy(self.generator)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        self.called: list[str] = []

    def losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        self.seen.append(len(batch[0]))
        real, fake = F.one_hot(batch[1], 3).float(), self.generator(batch[0])
        of_critic = F.softplus(self.critic(fake.detach())).mean() + F.softplus(-self.critic(real)).mean()
        return F.softplus(-self.critic(fake)).mean(), of_critic

    def configure_optimizers(self) -> Any:
        made = [
            torch.optim.Adam(self.generator.parameters(), 0.01, amsgrad=True),
            torch.optim.SGD(self.critic.parameters(), 0.01, momentum=0.9),
        ]
        return made, [torch.optim.lr_scheduler.StepLR(one, 2, 0.9) for one in made]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.called.append("step")


class TwoOptimizers(Gan):
    """Toggles, clips gradients and weights, averages weights, and puts itself into train mode."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.generator.train()
        first, second = self.optimizers()
        self.toggle_optimizer(first)
        first.zero_grad()
        self.manual_backward(self.losses(batch)[0])
        self.clip_gradients(first, 0.5)
        first.step()
        self.untoggle_optimizer(first)
        with second.toggle_model():
            second.zero_grad()
            self.manual_backward(self.losses(batch)[1])
            second.step()
        for weight in self.critic.parameters():
            weight.data.clamp_(-0.1, 0.1)
        for scheduler in self.lr_schedulers():
            scheduler.step()
        for average, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.data = average.data * 0.9 + weight.data * 0.1


class Accumulated(Gan):
    """Accumulates by hand, reads gradients, and changes rates, schedules and an optimizer's state by hand."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(sum(self.losses(batch)) / 3)
        self.log("norm", sum(weight.grad.norm() for weight in self.generator.parameters()))
        for optimizer in self.optimizers():
            if (batch_idx + 1) % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] *= 0.99
        self.lr_schedulers()[0].base_lrs[0] *= 0.99
        state = self.optimizers()[1].state[self.critic.bias]
        state["passes"] = state.get("passes", 0) + 1
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.mul_(0.9).add_(weight, alpha=0.1)


class Scaled(Gan):
    """Scales its losses by itself, and keeps gradients of 0."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad(set_to_none=False)
        self.manual_backward(self.scaler.scale(sum(self.losses(batch))))
        self.scaler.unscale_(first.optimizer)
        self.scaler.step(first.optimizer)
        self.scaler.step(second.optimizer)
        self.scaler.update()
        self.scaler.set_growth_factor(self.scaler.get_growth_factor() * 1.01)


class Closures(Gan):
    """Back-propagates one loss in a closure, and the other without Lightning."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        first, second = self.optimizers()

        def closure() -> Tensor:
            first.zero_grad()
            loss = self.losses(batch)[0]
            self.manual_backward(loss)
            return loss

        first.step(closure)
        second.zero_grad()
        loss = self.losses(batch)[1]
        loss.backward()
        second.step()
        return loss


class Sharp(Gan):
    """Goes uphill and back before it steps, as SAM does."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, _ = self.optimizers()
        weights = list(self.generator.parameters())
        self.manual_backward(self.losses(batch)[0])
        before = [weight.data.clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.add_(weight.grad, alpha=0.05)
        first.zero_grad()
        self.manual_backward(self.losses(batch)[0])
        for weight, value in zip(weights, before, strict=True):
            weight.data = value
        first.step()
        first.zero_grad()


class ItsOwnOptimizer(Gan):
    """Has an optimizer that the Trainer does not know."""

    def on_fit_start(self) -> None:
        self.mine = torch.optim.AdamW(self.generator.parameters(), 0.01)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.mine.zero_grad()
        self.manual_backward(self.losses(batch)[0])
        self.mine.step()


class SeveralPasses(Gan):
    """Steps by L-BFGS."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.generator.parameters(), 0.1, max_iter=3)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.losses(batch)[0]
            self.manual_backward(loss)
            return loss

        optimizer.step(closure)


class UpdatedInBackward(Gan):
    """Has weights that are updated as soon as they have a gradient."""

    n_updates: ClassVar[list[int]] = []

    def on_fit_start(self) -> None:
        self.n_updates.clear()
        for weight in self.generator.parameters():
            weight.register_post_accumulate_grad_hook(self.update)

    def update(self, weight: Tensor) -> None:
        self.n_updates.append(1)
        weight.data.add_(weight.grad, alpha=-0.01)
        weight.grad = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.losses(batch)[0].backward()
        loss = self.losses(batch)[0]
        self.manual_backward(loss)
        self.called[:] = ["update"] * len(self.n_updates)


class Attacked(Gan):
    """Optimizes automatically, on inputs that a gradient of its own has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = True

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()[0][0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].clone().requires_grad_()
        self.losses((x, batch[1]))[0].backward()
        return self.losses((x.detach() + 0.1 * x.grad.sign(), batch[1]))[0]


def numbers_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(part)
    else:
        yield value


def fitted(module: Gan, *callbacks: L.Callback, **flags: Any) -> list[Any]:
    torch.manual_seed(5)
    made = trainer(*callbacks, max_epochs=3, **flags)
    made.fit(module, DataLoader(dataset(50), 10))
    schedules = [config.scheduler.state_dict() for config in made.lr_scheduler_configs]
    states = [optimizer.state_dict() for optimizer in made.optimizers]
    weights = [[weight.detach(), weight.grad, weight.requires_grad] for weight in module.parameters()]
    of_module = [module.state_dict(), module.scaler.state_dict(), module.called]
    return list(numbers_in([weights, states, schedules, of_module, made.global_step]))


@pytest.mark.parametrize(
    "kind",
    [TwoOptimizers, Accumulated, Scaled, Closures, Sharp, ItsOwnOptimizer, SeveralPasses, UpdatedInBackward, Attacked],
)
def test_a_fit_with_a_look_is_that_without_bit_for_bit(kind: type[Gan]) -> None:
    Gan.seen.clear()
    mine = fitted(kind(), Hardest(prune_ratio=0))
    assert Gan.seen[0] == 3 and 3 in Gan.seen[Gan.seen.index(1) :]  # together, alone, and together the other way round
    theirs = fitted(kind())
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def with_and_without(**flags: Any) -> list[list[Any]]:
    """No fit without a callback: it would give the ranks their samples in another order."""
    flags["strategy"] = "ddp_find_unused_parameters_true"
    with_look = fitted(Accumulated(), Hardest(prune_ratio=0), **flags)
    with mock.patch.object(Witness, "hear"):
        return [with_look, fitted(Accumulated(), Hardest(prune_ratio=0), **flags)]


def test_a_look_on_two_ranks_leaves_no_trace(tmp_path: Path) -> None:
    for mine, theirs in on_ranks(with_and_without, 2, tmp_path / "ranks"):
        for one, other in zip(mine, theirs, strict=True):
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_a_step_that_is_rehearsed_shows_the_sum_of_what_it_back_propagates_and_closures_are_called() -> None:
    shown: list[float] = []

    class Rehearsed(Closures):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            rehearse = Rehearsal(self)
            with rehearse() as rehearsed:
                loss = rehearsed(lambda: self.training_step(batch, batch_idx))()
                shown.append((loss - self.losses(batch)[0]).item())
                assert all((weight.grad == 0).all() for weight in self.generator.parameters())
                assert not any(part.training for part in self.modules())

    fitted(Rehearsed())
    assert shown == [0.0] * 15


def test_a_step_by_an_optimizer_that_nobody_knows_ends_the_rehearsal() -> None:
    module = Attacked()
    unknown = [torch.optim.SGD(module.parameters(), 1.0)]
    before = copy.deepcopy(module.state_dict())

    def step() -> None:
        module.generator.requires_grad_(False)
        unknown[0].step()

    with pytest.raises(UnknownOptimizerError), Rehearsal(module)() as rehearsed:
        rehearsed(step)()
    assert all(weight.requires_grad for weight in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    unknown[0].step()  # may go on outside
