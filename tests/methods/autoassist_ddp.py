"""A training script that ``test_autoassist_ddp`` starts: python autoassist_ddp.py FOLDER SYNCHRONOUS CHECKPOINT."""

import sys
from pathlib import Path

import torch
from helpers import Net, Seen, fit, loader
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dataselect import AutoAssist

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, synchronous, checkpoint = Path(sys.argv[1]), sys.argv[2] == "yes", sys.argv[3]
    selector, net = AutoAssist(base_prob=0.2, synchronous=synchronous), Net()
    seen, callbacks = Seen(selector), []
    if synchronous and checkpoint == "none":
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=7, save_top_k=-1, filename="{step}"))
    trainer, _ = fit(
        selector,
        net,
        loader(201, 20),
        callbacks=[seen, *callbacks],
        max_epochs=3,
        strategy="ddp",
        devices=2,
        enable_checkpointing=bool(callbacks),
        ckpt_path=None if checkpoint == "none" else checkpoint,
    )
    facts = {
        "batches": seen.batches,
        "history": [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history],
        "scores": selector.scores,
        "losses": selector.losses,
        "weights": net.state_dict(),
        "assistant": selector.rank_state()["assistant"],
    }
    torch.save(facts, folder / f"rank{trainer.global_rank}.pt")
