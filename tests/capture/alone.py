"""Steps on a net that learns nothing, in double precision: what is measured of samples, and what each loses alone."""

import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import LossCapture

N, B, D, C, T, V = 40, 8, 7, 5, 6, 11
Step = Callable[[Any, Any], Tensor]


class Net(nn.Module):
    """A body, and heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(D, 16), nn.Tanh())
        self.head, self.value, self.code = nn.Linear(16, C), nn.Linear(16, 1), nn.Linear(16, 3)
        self.embed, self.words, self.conv = nn.Embedding(V, 16), nn.Linear(16, V), nn.Conv2d(3, C, 3, padding=1)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def single(self, x: Tensor) -> Tensor:
        """One output of each sample."""
        return self.value(self.body(x)).squeeze(1)


class Fixed(L.LightningModule):
    """Takes a step, and learns nothing."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.net, self.step = Net(), step

    def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        return self.step(self.net, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def samples(seed: int = 0) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(seed)

    def one() -> dict[str, Tensor]:
        mask = torch.arange(T) < torch.randint(2, T + 1, (), generator=g)
        x, y = 2 * torch.randn(D, generator=g, dtype=torch.float64), torch.randint(C, (), generator=g)
        return {
            "x": x,
            "y": y,
            "name": "abcde"[int(y)],
            "r": torch.randn((), generator=g, dtype=torch.float64),
            "positive": torch.rand((), generator=g) < 0.4,
            "tokens": torch.randint(V, (T,), generator=g),
            "mask": mask,
            "image": torch.randn(3, 4, 4, generator=g, dtype=torch.float64),
            "segments": torch.randint(C, (4, 4), generator=g),
            "n": mask.sum(),
        }

    return [one() for _ in range(N)]


def alone(step: Step, net: Net, data: list[Any]) -> Tensor:
    """Return what each sample loses in a batch of its own."""
    return torch.stack([torch.as_tensor(step(net, default_collate([one]))).detach().reshape(()) for one in data])


def measured(step: Step) -> tuple[Tensor, Tensor, str]:
    """Return what is measured in a fit, what samples lose alone, and what was said."""
    module, selector, data = Fixed(step), InfoBatch(prune_ratio=0.0), samples()
    right = alone(step, module.net, data)
    trainer = L.Trainer(
        max_epochs=1, callbacks=[selector], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(data, B, shuffle=True, generator=torch.Generator().manual_seed(2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit(module, loader)
    return selector.losses.double(), right, " ".join(str(warning.message) for warning in said)


def captured(step: Step) -> tuple[Tensor, Tensor, str]:
    """Return the same where no sample shows what it loses alone."""
    net, data, found = Net(), samples(), []
    capture = LossCapture(net)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for i in range(0, N, B):
            batch = default_collate(data[i : i + B])
            found.append(capture.run(lambda batch=batch: step(net, batch), B, batch=(batch,))[1].losses)
    return torch.cat(found).double(), alone(step, net, data), " ".join(str(warning.message) for warning in said)
