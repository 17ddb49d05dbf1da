"""Projects that import ``pytorch_lightning`` in place of ``lightning``."""

import pytest
import torch
import torch.nn.functional as F
from helpers import SAFELY, Hardest, WeightedShares, loader, trainer

pl = pytest.importorskip("pytorch_lightning")


class Theirs(pl.LightningModule):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = torch.nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=total)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@pytest.mark.parametrize("make", [lambda: Hardest(prune_ratio=0.4), lambda: WeightedShares(1.0, 0.6)])
def test_fits_and_resumes(tmp_path, make):
    def run(path=None):
        selector, net = make(), Theirs()
        keep = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
        made = trainer(selector, keep, cls=pl.Trainer, enable_checkpointing=True, max_epochs=3)
        made.fit(net, loader(), loader(20, 10, False), ckpt_path=path, **SAFELY)
        return selector, net, made

    selector, net, made = run()
    assert made.lr_scheduler_configs[0].scheduler.last_epoch == 30
    assert "dataselect/kept_share" in made.callback_metrics
    again, resumed, _ = run(tmp_path / "step=14.ckpt")
    assert torch.equal(again.scores, selector.scores) and torch.equal(again.selected, selector.selected)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))
    assert "training_step" not in vars(net)
