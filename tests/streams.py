"""A stream of the samples of `helpers.dataset`, with keys or without, which workers and ranks share."""

import os

import torch
from helpers import Net, dataset
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Stream(IterableDataset):
    """Each rank and each worker reads every so many samples; ``LOCAL_RANK`` says which rank this is."""

    def __init__(self, n=96, keyed=False, world_size=1, at=int):
        self.n, self.keyed, self.world_size, self.at = n, keyed, world_size, at
        self.rank = int(os.environ.get("LOCAL_RANK", 0)) if world_size > 1 else 0
        self.rows = dataset(n)

    def __iter__(self):
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in range(self.rank + number * self.world_size, self.n, of * self.world_size):
            x, y = self.rows[self.at(i)]
            yield {"x": x, "y": y, "id": f"s{i}"} if self.keyed else (x, y)


class Placed(IterableDataset):
    """Saves how many samples it has read, as a stream of its own would, with workers and without."""

    def __init__(self, n=96, world_size=2):
        self.n, self.world_size, self.rows = n, world_size, dataset(n)
        self.rank = int(os.environ.get("LOCAL_RANK", 0)) if world_size > 1 else 0
        self.n_read = self.put_back_to = 0

    def __iter__(self):
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        own = range(self.rank + number * self.world_size, self.n, of * self.world_size)
        self.n_read, self.put_back_to = self.put_back_to, 0
        for i in own[self.n_read :]:
            self.n_read += 1
            x, y = self.rows[i]
            yield {"x": x, "y": y, "id": f"s{i}"}

    def state_dict(self):
        return {"n_read": self.n_read}

    def load_state_dict(self, state):
        self.put_back_to = state["n_read"]


class Keyed(Net):
    """Takes the batches of a stream with keys."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch["x"], batch["y"]), batch_idx)


def stream(n=96, batch_size=8, keyed=False, world_size=1, loader=DataLoader, **options):
    return loader(Stream(n, keyed, world_size), batch_size, **options)


def true_losses(net, n=96):
    """Return the loss of each sample by ``net``, float32 (n,)."""
    x, y = dataset(n).tensors
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(net.net(x), y, reduction="none")
