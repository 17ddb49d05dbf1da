"""Modules whose passes can be watched, and what must be equal of two fits."""

import inspect

import torch
import torch.nn.functional as F
from helpers import Net
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def watch_eval_steps(net):
    """Lists the inputs of every pass in eval mode, as the module's own ``training_step`` gets them.

    Those of the witness, before the first step that trains and in its later looks, are left out.
    """
    seen, trained = [], []
    step = net.training_step

    def training_step(batch, batch_idx):
        if net.training:
            trained.append(batch_idx)
        elif trained and not any(frame.function == "hear" for frame in inspect.stack(0)):
            seen.append(batch[0].detach().clone())
        return step(batch, batch_idx)

    net.training_step = training_step
    return seen


class Regressor(Net):
    """Predicts ``width`` numbers of the same 8."""

    def __init__(self, width=3, by_hand=False, **options):
        super().__init__(**options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.net = self.head = nn.Linear(8, width)
        self.by_hand = by_hand

    def training_step(self, batch, batch_idx):
        x, _ = batch
        out, target = self.head(x), x[:, : self.head.out_features]
        return ((out - target) ** 2).mean() if self.by_hand else F.mse_loss(out, target)

    def validation_step(self, batch, batch_idx):
        self.head(batch[0])


VOCABULARY, LENGTH, IGNORED = 50, 12, -100


class Tokens(Net):
    """Predicts each token from itself; the targets of padding are ignored."""

    def __init__(self, **options):
        super().__init__(**options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.embedding, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY)
            self.net = nn.Sequential(self.embedding, self.head)

    def forward(self, tokens):
        return self.net(tokens)

    def training_step(self, batch, batch_idx):
        tokens, targets = batch
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def validation_step(self, batch, batch_idx):
        pass


def token_loader(n=40, batch_size=8):
    """Right-padded sequences of 3 to 12 tokens, cut to the longest of their batch."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCABULARY, (n, LENGTH), generator=generator)
    lengths = torch.randint(3, LENGTH + 1, (n,), generator=generator)
    inside = torch.arange(LENGTH) < lengths.unsqueeze(1)
    data = TensorDataset(tokens * inside, torch.where(inside, tokens.roll(1, 1), IGNORED))

    def collate(samples):
        x, y = map(torch.stack, zip(*samples, strict=True))
        longest = int((y != IGNORED).sum(1).max())
        return x[:, :longest], y[:, :longest]

    return DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=collate)
