"""Fine-tune a Hugging Face model; the loss is computed inside the model, and still each text's loss is found.

    pip install lightning-dataselect transformers
    python examples/hugging_face.py

The model here is tiny and starts from random weights, so that nothing is downloaded. For a real one write
`AutoModelForSequenceClassification.from_pretrained(NAME)` and its tokenizer.
"""

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from lightning_dataselect import InfoBatch

WORDS = {
    word: i + 1
    for i, word in enumerate(
        "the a film book was is really quite good great lovely bad awful dull and but never always".split()
    )
}
GOOD, BAD = ("good", "great", "lovely"), ("bad", "awful", "dull")


def make_texts(n: int) -> list[tuple[str, int]]:
    generator = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(n):
        label, word, noun, adverb = torch.randint(0, 2, (4,), generator=generator).tolist()
        adjective = (GOOD if label else BAD)[word]
        texts.append((f"the {('film', 'book')[noun]} was {('really', 'quite')[adverb]} {adjective}", label))
    return texts


def collate(samples: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[WORDS[word] for word in text.split()] for text, _ in samples])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([label for _, label in samples]),
    }


class TextClassifier(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=len(WORDS) + 1,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=16,
        )
        self.model = BertForSequenceClassification(config)

    def on_fit_start(self) -> None:
        self.model.train()  # from_pretrained returns models in eval mode

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.model(**batch).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    L.seed_everything(0)
    texts = make_texts(512)
    selector = InfoBatch(prune_ratio=0.5)
    trainer = L.Trainer(max_epochs=4, callbacks=[selector], accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(TextClassifier(), DataLoader(texts, batch_size=32, shuffle=True, collate_fn=collate))

    for i in selector.losses.argsort(descending=True)[:3].tolist():
        print(f"{selector.losses[i]:.3f}  {texts[i][0]}")
    print(f"kept by epoch: {[epoch['n_selected'] for epoch in selector.history]} of {len(texts)}")


if __name__ == "__main__":
    main()
