"""Fits that are resumed from every checkpoint, and compared with the one that was never interrupted."""

from pathlib import Path

from helpers import Net, Seen, fit, loader
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from schedule_helpers import one_cycle

SHARES = (1.0, 0.5, 0.2, 0.9)
EPOCHS = 4


class SaveAt(Callback):
    """Saves a checkpoint after a batch of an epoch; to be listed after the selectors."""

    def __init__(self, path, epoch, batch_idx):
        self.path, self.at = path, (epoch, batch_idx)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)


def batches(**options):
    return loader(batch_size=20, **options)


def checkpoints(folder, *kinds):
    makers = {
        "step": {"every_n_train_steps": 1},
        "validation": {"monitor": "val_loss"},
        "epoch": {"save_on_train_epoch_end": True},
    }
    return [ModelCheckpoint(folder / kind, save_top_k=-1, filename="{epoch}-{step}", **makers[kind]) for kind in kinds]


def facts(selector, trainer, net):
    """All that must be equal, bit for bit."""
    records = [{k: v for k, v in r.items() if "seconds" not in k} for r in selector.history]
    schedulers = [config.scheduler.last_epoch for config in trainer.lr_scheduler_configs]
    tensors = [*net.state_dict().values(), selector.scores.nan_to_num(-1), selector.losses.nan_to_num(-1)]
    return records, schedulers, trainer.global_step, [t.tolist() for t in tensors], selector.selected.tolist()


def saved(folder):
    return sorted(Path(folder).rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)


def compare(tmp_path, make, *, kinds=("step", "validation", "epoch"), every=1, train=None, **flags):
    """Run once with checkpoints, resume from each; returns how many were tried."""
    train = train or batches
    flags = {"max_epochs": EPOCHS, **flags}
    selector, net = make(), Net(one_cycle)
    seen = Seen(selector)
    options = {"enable_checkpointing": True, **flags}
    trainer, _ = fit(selector, net, train(), callbacks=[seen, *checkpoints(tmp_path, *kinds)], **options)
    expected = facts(selector, trainer, net)
    tried = saved(tmp_path)[::every]
    for path in tried:
        selector, net = make(), Net(one_cycle, seed=9)
        again = Seen(selector)
        trainer, _ = fit(selector, net, train(), callbacks=[again], ckpt_path=path, **flags)
        assert facts(selector, trainer, net) == expected, path
        assert again.batches == seen.batches[len(seen.batches) - len(again.batches) :], path
    return len(tried)
