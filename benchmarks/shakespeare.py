"""A small GPT over the characters of tinyshakespeare; a sample is a sequence."""

import functools
import gzip
import math
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.schedule import linear_with_warmup

Sequences = tuple[Tensor, Tensor]


class CharacterData(pl.LightningDataModule):
    """Sequences of `block` characters and the characters that follow each; the last tenth of the text validates.

    Args:
        data_dir: Folder with `input.txt.gz`; None makes up a small text.
        block: Characters a sequence.
        batch_size: Of training.
        n_train: Train on this many sequences, drawn once and for all seeds alike; None takes all.
        n_val: Validate on the first so many; None takes all.
    """

    def __init__(
        self,
        data_dir: str | None,
        block: int = 256,
        batch_size: int = 64,
        n_train: int | None = None,
        n_val: int | None = None,
    ) -> None:
        super().__init__()
        self.data_dir, self.block, self.batch_size = data_dir, block, batch_size
        self.n_train, self.n_val = n_train, n_val

    def setup(self, stage: str) -> None:
        """Read the text and cut it."""
        ids = made_up_text() if self.data_dir is None else read_text(self.data_dir)
        n_val = len(ids) // 10
        train = sequences(ids[:-n_val], self.block)
        order = torch.randperm(len(train[0]), generator=torch.Generator().manual_seed(0))[: self.n_train]
        self.train: Dataset[tuple[Tensor, ...]] = TensorDataset(*(part[order] for part in train))
        self.val: Dataset[tuple[Tensor, ...]] = TensorDataset(
            *(part[: self.n_val] for part in sequences(ids[-n_val:], self.block))
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return shuffled training batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return validation batches in order."""
        return DataLoader(self.val, 4 * self.batch_size)


class CharacterGPT(pl.LightningModule):
    """A GPT with tied embeddings and no biases, under AdamW and a linear schedule.

    Args:
        n_layers: Blocks.
        n_heads: Of attention.
        width: Of the residual stream.
        block: Characters a sequence, at most.
        dropout: Everywhere.
        lr: The peak.
        n_classes: Distinct characters.
    """

    def __init__(
        self,
        n_layers: int = 6,
        n_heads: int = 6,
        width: int = 384,
        block: int = 256,
        dropout: float = 0.2,
        lr: float = 1e-3,
        n_classes: int = 65,
    ) -> None:
        super().__init__()
        self.lr = lr
        self.tokens = nn.Embedding(n_classes, width)
        self.places = nn.Embedding(block, width)
        self.blocks = nn.Sequential(*(Block(width, n_heads, dropout) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # the branches that are added up start small, as in GPT-2
                branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * n_layers) if branch else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Compute logits, (B, T, C), of characters, int64 (B, T)."""
        places = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.dropout(self.tokens(ids) + self.places(places))
        return F.linear(self.norm(self.blocks(hidden)), self.tokens.weight)

    def training_step(self, batch: Sequences, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of the next character."""
        return self.loss(batch)

    def validation_step(self, batch: Sequences, batch_idx: int) -> None:
        """Log the loss, in nats a character."""
        self.log("val_loss", self.loss(batch), batch_size=len(batch[0]))

    def loss(self, batch: Sequences) -> Tensor:
        """Compute the loss of sequences and of what follows each place in them."""
        ids, following = batch
        logits = self(ids)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), following.view(-1))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with nanoGPT's settings for this text."""
        groups = [
            {"params": [p for p in self.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in self.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.99))
        return linear_with_warmup(optimizer, int(self.trainer.estimated_stepping_batches), warmup=0.05)


class Block(nn.Module):
    """Attention to what went before, then two layers; each after a norm, and added to what came in."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.p = n_heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, width) to the same shape."""
        query, key, value = self.qkv(self.norm1(hidden)).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=p)
        hidden = hidden + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.down(F.gelu(self.up(self.norm2(hidden)))))


def sequences(ids: Tensor, block: int) -> Sequences:
    """Cut a text into all whole sequences without overlap, and into the same ones a place further on."""
    n = (len(ids) - 1) // block
    return ids[: n * block].view(n, block), ids[1 : n * block + 1].view(n, block)


@functools.cache
def read_text(data_dir: str) -> Tensor:
    """Read a text as int64 ids, in the order of the characters' code points."""
    with gzip.open(Path(data_dir) / "input.txt.gz", "rt", encoding="utf-8") as lines:
        text = lines.read()
    ids = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([ids[character] for character in text])


def made_up_text(n: int = 20_000, n_classes: int = 12) -> Tensor:
    """Draw a text from a second-order Markov chain, which a small model learns in seconds."""
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(n_classes, n_classes, n_classes, generator=generator) ** 8
    choices = torch.multinomial(chances.flatten(0, 1), n, replacement=True, generator=generator).tolist()
    ids = [0, 1]
    for i in range(n - 2):
        ids.append(choices[ids[-2] * n_classes + ids[-1]][i])
    return torch.tensor(ids)
