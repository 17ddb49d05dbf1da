"""A plain training script: the callback is the one line that was added.

pip install 'lightning-dataselect[report]'   # for scikit-learn's digits
python examples/train.py
"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_dataselect import InfoBatch


class Classifier(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main() -> None:
    L.seed_everything(0)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x).float() / 16, torch.tensor(y))
    train, val = random_split(data, [1400, 397])

    selector = InfoBatch(prune_ratio=0.5)
    trainer = L.Trainer(
        max_epochs=10, callbacks=[selector], accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.fit(Classifier(), DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=256))

    trained = sum(epoch["n_backward"] for epoch in selector.history)
    print(f"Trained on {trained:,} samples; without the callback it would have been {10 * len(train):,}.")
    print(f"Hardest samples: {selector.losses.argsort(descending=True)[:5].tolist()}")


if __name__ == "__main__":
    main()
