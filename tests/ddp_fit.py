"""A training script that ``test_ddp`` starts: python ddp_fit.py CONFIG.json; every rank writes what it has seen."""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import lightning as L
import torch
from helpers import Hardest, Net, Seen, Shares, dataset, fit
from lightning.pytorch.callbacks import ModelCheckpoint
from test_selector_lr import one_cycle
from torch.utils.data import DataLoader, WeightedRandomSampler

SELECTORS = {"hardest": lambda: Hardest(prune_ratio=0.37), "shares": lambda: Shares(1.0, 0.5, 0.23, 0.9)}


class Chosen(L.Callback):
    def __init__(self, selector):
        self.selector, self.by_epoch = selector, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.by_epoch.append(self.selector.selected.tolist())


def main(config):
    folder = Path(config["folder"])
    data = dataset()
    sampler = WeightedRandomSampler(torch.arange(100.0), 100) if config.get("weighted") else None
    train = DataLoader(data, config["batch_size"], shuffle=sampler is None, sampler=sampler)
    selector, net = SELECTORS[config["selector"]](), Net(one_cycle)
    seen, chosen = Seen(selector), Chosen(selector)
    callbacks = [seen, chosen]
    if config.get("save"):
        callbacks.append(ModelCheckpoint(folder / "steps", every_n_train_steps=1, save_top_k=-1, filename="{step}"))
    world = config["world"]
    spread = {"strategy": "ddp", "devices": world} if world > 1 else {}
    trainer, _ = fit(
        selector,
        net,
        train,
        callbacks=callbacks,
        enable_checkpointing=bool(config.get("save")),
        ckpt_path=config.get("ckpt_path"),
        **spread,
        **config.get("flags", {}),
    )
    facts = {
        "scores": selector.scores,
        "losses": selector.losses,
        "chosen": chosen.by_epoch,
        "batches": seen.batches,
        "sizes": [(s.epoch, s.size) for s in net.steps],
        "validated": net.validated,
        "history": selector.history,
        "weights": net.state_dict(),
        "calls": trainer.lr_scheduler_configs[0].scheduler.last_epoch,
        "steps": trainer.global_step,
    }
    torch.save(facts, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open(sys.argv[1]) as file:
        main(json.load(file))
