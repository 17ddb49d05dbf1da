"""Made-up sentences and a small encoder: what `benchmarks.text --quick` learns."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.schedule import linear_with_warmup

N_WORDS, PAD = 60, 0
Sample = tuple[Tensor, int]


class SentenceData(pl.LightningDataModule):
    """Sentences of 3 to 12 words, of class 1 if words from the upper half of the vocabulary prevail.

    Args:
        n_train: Sentences to train on; a quarter as many validate.
        batch_size: Of training.
    """

    def __init__(self, n_train: int = 1200, batch_size: int = 32) -> None:
        super().__init__()
        self.n_train, self.batch_size = n_train, batch_size

    def setup(self, stage: str) -> None:
        """Draw the sentences."""
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 13, (self.n_train + self.n_train // 4,), generator=generator).tolist()
        words = [torch.randint(1, N_WORDS, (length,), generator=generator) for length in lengths]
        samples = [(ids, int((ids >= N_WORDS / 2).float().mean() > 0.5)) for ids in words]
        self.train, self.val = samples[: self.n_train], samples[self.n_train :]

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return shuffled training batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=padded)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return validation batches in order."""
        return DataLoader(self.val, 4 * self.batch_size, collate_fn=padded)  # type: ignore[arg-type]


class SentenceClassifier(pl.LightningModule):
    """One layer of attention and a head on the mean over words.

    Args:
        width: Of the residual stream.
        lr: The peak of AdamW under a linear schedule.
    """

    def __init__(self, width: int = 32, lr: float = 3e-3) -> None:
        super().__init__()
        self.lr = lr
        self.words = nn.Embedding(N_WORDS, width, padding_idx=PAD)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute logits, (B, 2), of word ids and their mask, (B, T)."""
        hidden = self.layer(self.words(input_ids), src_key_padding_mask=attention_mask == 0)
        hidden = hidden * attention_mask.unsqueeze(2)
        return self.head(hidden.sum(1) / attention_mask.sum(1, keepdim=True))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy of a batch."""
        return F.cross_entropy(self(batch["input_ids"], batch["attention_mask"]), batch["labels"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        logits = self(batch["input_ids"], batch["attention_mask"])
        accuracy = (logits.argmax(1) == batch["labels"]).float().mean()
        self.log("val_acc", accuracy, batch_size=len(logits))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and its linear schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        return linear_with_warmup(optimizer, int(self.trainer.estimated_stepping_batches), warmup=0.1)


def padded(samples: list[Sample]) -> dict[str, Tensor]:
    """Pad sentences to the longest of them, and return them as a batch."""
    ids = pad_sequence([ids for ids, _ in samples], batch_first=True, padding_value=PAD)
    labels = torch.tensor([label for _, label in samples])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}
