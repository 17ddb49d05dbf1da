"""Multi30k English to German: joint byte-pair pieces, a small Transformer, greedy decoding, BLEU.

Needs the extra `benchmarks`, for `tokenizers` and `sacrebleu`; `ReversedData` needs neither.
"""

import functools
import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.schedule import linear_with_warmup

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("[PAD]", "[BEGIN]", "[END]", "[UNK]")
Pair = tuple[list[int], list[int]]
Batch = dict[str, Tensor]


class _PairData(pl.LightningDataModule):
    """Returns loaders over the pairs `train` and `val` that a subclass sets in `setup`.

    `references` are the sentences that `val` shall become, in its order.
    """

    train: list[Pair]
    val: list[Pair]
    references: list[str]
    batch_size: int

    def train_dataloader(self) -> DataLoader[Pair]:
        """Return shuffled training batches."""
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=padded)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Pair]:
        """Return validation batches in order."""
        return DataLoader(self.val, 2 * self.batch_size, collate_fn=padded)  # type: ignore[arg-type]

    def text(self, ids: Sequence[int]) -> str:
        """Return the sentence of target ids."""
        raise NotImplementedError


class Multi30kData(_PairData):
    """The 29,000 captions and, for validation, the 1,014 of the official split.

    Args:
        data_dir: Folder with `train.en.gz`, `train.de.gz`, `val.en.gz`, `val.de.gz`.
        n_pieces: Of the joint vocabulary, special ones included.
        batch_size: Of training.
        max_length: Pieces at most of each side; longer pairs are left out of the training set.
        n_train: Train on this many pairs, drawn once and for all seeds alike; None takes all.
        n_val: Validate on the first so many; None takes all.
    """

    def __init__(
        self,
        data_dir: str,
        n_pieces: int = 8000,
        batch_size: int = 128,
        max_length: int = 60,
        n_train: int | None = None,
        n_val: int | None = None,
    ) -> None:
        super().__init__()
        self.data_dir, self.n_pieces, self.batch_size = data_dir, n_pieces, batch_size
        self.max_length, self.n_train, self.n_val = max_length, n_train, n_val

    def setup(self, stage: str) -> None:
        """Read, train the vocabulary on the whole training set, and encode."""
        folder = self.data_dir
        train = [pair for pair in encoded(folder, "train", self.n_pieces) if max(map(len, pair)) <= self.max_length]
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        self.train = [train[i] for i in order[: self.n_train].tolist()]
        val, wanted = encoded(folder, "val", self.n_pieces), sentences(folder, "val", "de")
        # from short to long, so that decoding stops early
        by_length = sorted(range(len(val))[: self.n_val], key=lambda i: len(val[i][0]))
        self.val, self.references = [val[i] for i in by_length], [wanted[i] for i in by_length]

    def text(self, ids: Sequence[int]) -> str:
        """Return the sentence of target ids."""
        return pieces(self.data_dir, self.n_pieces).decode(list(ids))


class ReversedData(_PairData):
    """Made-up pairs: the target is the source backwards, each piece shifted by one.

    Args:
        n_pieces: Of the vocabulary, special ones included.
        batch_size: Of training.
        n_train: Pairs to train on; a tenth as many validate.
    """

    def __init__(self, n_pieces: int = 16, batch_size: int = 64, n_train: int = 1500) -> None:
        super().__init__()
        self.n_pieces, self.batch_size, self.n_train = n_pieces, batch_size, n_train

    def setup(self, stage: str) -> None:
        """Draw the pairs."""
        first, generator = len(SPECIAL), torch.Generator().manual_seed(0)
        pairs = []
        for length in torch.randint(2, 7, (self.n_train + self.n_train // 10,), generator=generator).tolist():
            source = torch.randint(first, self.n_pieces - 1, (length,), generator=generator)
            pairs.append((source.tolist(), (source.flip(0) + 1).tolist()))
        self.train, self.val = pairs[: self.n_train], pairs[self.n_train :]
        self.references = [self.text(target) for _, target in self.val]

    def text(self, ids: Sequence[int]) -> str:
        """Return the ids as words."""
        return " ".join(map(str, ids))


class Translator(pl.LightningModule):
    """A Transformer with one embedding for both languages and the output, norms first, under AdamW.

    Args:
        n_pieces: Of the vocabulary.
        n_layers: Of the encoder, and of the decoder.
        n_heads: Of attention.
        width: Of the residual streams; the inner layers are four times as wide.
        dropout: Everywhere.
        lr: The peak.
        warmup: Share of the steps until it is reached.
        max_length: Pieces of a translation, at most.
        bleu: Log `val_bleu`, which needs sacrebleu.
    """

    places: Tensor

    def __init__(
        self,
        n_pieces: int,
        n_layers: int = 3,
        n_heads: int = 4,
        width: int = 256,
        dropout: float = 0.1,
        lr: float = 1e-3,
        warmup: float = 0.1,
        max_length: int = 60,
        bleu: bool = True,
    ) -> None:
        super().__init__()
        self.lr, self.warmup, self.max_length, self.bleu = lr, warmup, max_length, bleu
        self.pieces = nn.Embedding(n_pieces, width, padding_idx=PAD)
        nn.init.normal_(self.pieces.weight, std=width**-0.5)
        self.register_buffer("places", sinusoids(512, width), persistent=False)
        self.dropout = nn.Dropout(dropout)
        shape: dict[str, Any] = dict(
            d_model=width, nhead=n_heads, dim_feedforward=4 * width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**shape), n_layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**shape), n_layers, nn.LayerNorm(width))
        self._translations: list[str] = []

    def forward(self, batch: Batch) -> Tensor:
        """Compute the logits, (B, T, V), of the piece after each of `target_in`."""
        unseen = batch["source"] == PAD
        memory = self.encoder(self.embed(batch["source"]), src_key_padding_mask=unseen)
        return self.decode(batch["target_in"], memory, unseen)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the label-smoothed cross-entropy of a batch without its padding."""
        return self.loss(batch, label_smoothing=0.1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the plain cross-entropy of a piece, and translate."""
        n_pieces = int((batch["labels"] != PAD).sum())
        self.log("val_loss", self.loss(batch), batch_size=n_pieces)
        if self.bleu and not self.trainer.sanity_checking:
            text = self.trainer.datamodule.text  # type: ignore[attr-defined]
            self._translations += [text(until_end(ids)) for ids in self.translate(batch["source"]).tolist()]

    def on_validation_epoch_end(self) -> None:
        """Log BLEU, 0 to 100, of the whole set."""
        if self._translations:
            import sacrebleu

            wanted = self.trainer.datamodule.references[: len(self._translations)]  # type: ignore[attr-defined]
            self.log("val_bleu", sacrebleu.corpus_bleu(self._translations, [wanted]).score)
        self._translations = []

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Average the cross-entropy over all pieces that are not padding."""
        logits = self(batch)
        return F.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=PAD, label_smoothing=label_smoothing
        )

    def embed(self, ids: Tensor) -> Tensor:
        """Embed pieces and their positions, (B, T, width)."""
        scaled = self.pieces(ids) * math.sqrt(self.pieces.embedding_dim)
        return self.dropout(scaled + self.places[: ids.shape[1]])

    def decode(self, ids: Tensor, memory: Tensor, unseen: Tensor) -> Tensor:
        """Compute the logits of the piece after each of `ids`, (B, T), from the encoder's output."""
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        hidden = self.decoder(
            self.embed(ids), memory, tgt_mask=later, memory_key_padding_mask=unseen, tgt_is_causal=True
        )
        return F.linear(hidden, self.pieces.weight)

    def translate(self, source: Tensor) -> Tensor:
        """Decode greedily, int64 (B, T), until every sentence has ended."""
        unseen = source == PAD
        memory = self.encoder(self.embed(source), src_key_padding_mask=unseen)
        ids = torch.full((len(source), 1), BEGIN, device=source.device)
        ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        for _ in range(min(self.max_length, 2 * source.shape[1] + 8)):
            following = self.decode(ids, memory, unseen)[:, -1].argmax(1)
            ids = torch.cat([ids, following.masked_fill(ended, PAD)[:, None]], 1)
            ended |= following == END
            if bool(ended.all()):
                break
        return ids[:, 1:]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW and its linear schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, betas=(0.9, 0.98), weight_decay=0.01)
        return linear_with_warmup(optimizer, int(self.trainer.estimated_stepping_batches), self.warmup)


def until_end(ids: Sequence[int]) -> list[int]:
    """Return the pieces before the first end, without padding."""
    before = ids[: ids.index(END)] if END in ids else ids
    return [i for i in before if i != PAD]


def padded(pairs: Sequence[Pair]) -> Batch:
    """Return sources, the decoder's inputs and its targets, each padded to its longest."""
    source = [torch.tensor([*source, END]) for source, _ in pairs]
    target_in = [torch.tensor([BEGIN, *target]) for _, target in pairs]
    labels = [torch.tensor([*target, END]) for _, target in pairs]
    names = {"source": source, "target_in": target_in, "labels": labels}
    return {name: pad_sequence(ids, batch_first=True, padding_value=PAD) for name, ids in names.items()}


def sinusoids(length: int, width: int) -> Tensor:
    """Return the sinusoidal positions of Vaswani et al., (length, width)."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def sentences(folder: str, split: str, language: str) -> list[str]:
    """Return the lines of a file."""
    with gzip.open(Path(folder) / f"{split}.{language}.gz", "rt", encoding="utf-8") as lines:
        return [line.strip() for line in lines]


@functools.cache
def pieces(folder: str, n_pieces: int) -> Any:
    """Learn a byte-pair vocabulary of both languages from the training set."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=n_pieces, special_tokens=list(SPECIAL), show_progress=False)
    made.train_from_iterator([*sentences(folder, "train", "en"), *sentences(folder, "train", "de")], trainer)
    return made


@functools.cache
def encoded(folder: str, split: str, n_pieces: int) -> list[Pair]:
    """Encode every pair of a split as English and German ids."""
    known = pieces(folder, n_pieces)
    sides = [
        [encoding.ids for encoding in known.encode_batch(sentences(folder, split, language))]
        for language in ("en", "de")
    ]
    return list(zip(*sides, strict=True))
