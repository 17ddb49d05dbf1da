"""A loop of your own with Fabric: `LossCapture` finds the per-sample losses, and the loop drops what is learnt.

    pip install 'lightning-dataselect[report]'   # for scikit-learn's digits
    python examples/fabric.py

The callbacks belong to Lightning's Trainer; the capture does not. It needs the step as a function, and gives its loss
back with what each sample of the batch lost.
"""

import torch
from lightning.fabric import Fabric
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_dataselect.capture import LossCapture

EPOCHS, PRUNE_RATIO = 6, 0.5


def main() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    fabric.seed_everything(0)
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(x).float() / 16, torch.tensor(y), torch.arange(len(y)))

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=2e-3))
    capture = LossCapture(model)
    losses = torch.full((len(data),), float("inf"))  # never seen: highest
    generator = torch.Generator().manual_seed(0)

    for epoch in range(EPOCHS):
        # drop a random half of the samples whose loss is below the mean, as InfoBatch does, without its weights
        known = losses.isfinite()
        easy = known & (losses < losses[known].mean()) if known.any() else torch.zeros_like(known)
        dropped = easy & (torch.rand(len(data), generator=generator) < PRUNE_RATIO)
        kept = Subset(data, (~dropped).nonzero().squeeze(1).tolist())
        for images, labels, indices in fabric.setup_dataloaders(DataLoader(kept, batch_size=32, shuffle=True)):
            loss, captured = capture.run(
                lambda images=images, labels=labels: nn.functional.cross_entropy(model(images), labels),
                batch_size=len(labels),
            )
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            losses[indices] = captured.losses.cpu()
        print(f"epoch {epoch}: trained on {len(kept)} of {len(data)}, mean loss {losses.mean():.3f}")


if __name__ == "__main__":
    main()
