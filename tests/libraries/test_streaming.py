"""Streams of other packages, from shards on disk: litdata, WebDataset, Hugging Face datasets."""

import lightning as L
import pytest
import torch
from helpers import Net, dataset, fit, same_weights
from ranks import on_ranks
from resume_helpers import SaveAt
from torch.utils.data import DataLoader

from lightning_dataselect import AutoAssist, EvolvedSampling, Frontier, InfoBatch, RHOLoss, SelectiveBackprop

N, BATCH = 96, 8
METHODS = {
    "SelectiveBackprop": lambda **more: SelectiveBackprop(**more),
    "EvolvedSampling": lambda **more: EvolvedSampling(anneal=0.0, **more),
    "SelectiveBackprop, gathered": lambda **more: SelectiveBackprop(beta=1, constant_batch_size=True, **more),
    "AutoAssist": lambda **more: AutoAssist(base_prob=0.05, synchronous=True, inputs=inputs_of, **more),
    "RHOLoss": lambda **more: RHOLoss(holdout_model=Named(seed=5), batch_ratio=0.25, **more),
}


def inputs_of(batch):
    return batch["x"], batch["y"]


class Named(Net):
    """Takes batches of named fields; writes down the keys that came."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.keys = []

    def training_step(self, batch, batch_idx):
        self.keys += [str(key) for key in batch["__key__"]]
        return super().training_step((batch["x"].float(), batch["y"].long()), batch_idx)


def row(i):
    x, y = dataset(N)[i]
    return {"__key__": f"sample{i:04}", "x": x.numpy(), "y": int(y)}


class Litdata:
    """Lightning's own: chunks, and a loader that saves its state."""

    def write(self, folder):
        pytest.importorskip("litdata")
        from litdata.streaming.cache import Cache  # what litdata.optimize writes with, without its processes

        folder.mkdir()
        cache = Cache(str(folder), chunk_size=12)
        for i in range(N):
            cache[i] = row(i)
        cache.done()
        cache.merge()

    def read(self, folder, world_size=1, n_workers=0, keeps=None):
        import litdata

        class Kept(litdata.StreamingDataset):
            def __next__(self):
                sample = super().__next__()
                while keeps is not None and not keeps(sample["__key__"]):
                    sample = super().__next__()
                return sample

        rows = Kept(str(folder), shuffle=True, seed=3, drop_last=world_size > 1)
        return litdata.StreamingDataLoader(rows, batch_size=BATCH, num_workers=n_workers)


class WebDataset:
    """Tar files, batched in the workers, read by a loader that is no DataLoader."""

    def write(self, folder):
        wds = pytest.importorskip("webdataset")
        folder.mkdir()
        for shard in range(8):
            with wds.TarWriter(str(folder / f"{shard:03}.tar")) as tar:
                for i in range(shard, N, 8):
                    sample = row(i)
                    tar.write({"__key__": sample["__key__"], "x.npy": sample["x"], "y.cls": sample["y"]})

    def read(self, folder, world_size=1, n_workers=0, keeps=None):
        import webdataset as wds

        shards = sorted(str(path) for path in folder.glob("*.tar"))
        stream = (
            wds.WebDataset(shards, shardshuffle=False, nodesplitter=wds.split_by_node, empty_check=False)
            .select(lambda sample: keeps is None or keeps(sample["__key__"]))
            .decode()
            .map(lambda sample: {"__key__": sample["__key__"], "x": sample["x.npy"], "y": sample["y.cls"]})
            .batched(BATCH, collation_fn=torch.utils.data.default_collate)
        )
        return wds.WebLoader(stream, batch_size=None, num_workers=n_workers)


class HuggingFace:
    """Parquet files, streamed."""

    def write(self, folder):
        datasets = pytest.importorskip("datasets")
        folder.mkdir()
        for shard in range(8):
            rows = [row(i) for i in range(shard, N, 8)]
            table = {name: [r[name] for r in rows] for name in rows[0]}
            datasets.Dataset.from_dict(table).to_parquet(str(folder / f"{shard}.parquet"))

    def read(self, folder, world_size=1, n_workers=0, keeps=None):
        import datasets
        from datasets.distributed import split_dataset_by_node

        files = sorted(str(path) for path in folder.glob("*.parquet"))
        rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        rows = rows.shuffle(seed=3, buffer_size=16).with_format("torch")
        if world_size > 1:
            rows = split_dataset_by_node(rows, rank=torch.distributed.get_rank(), world_size=world_size)
        return DataLoader(rows, batch_size=BATCH, num_workers=n_workers)


HUGGING_FACE = HuggingFace()
LIBRARIES = {"litdata": Litdata(), "webdataset": WebDataset(), "datasets": HUGGING_FACE}
every_library = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES, scope="module")
every_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
ALL = sorted(f"sample{i:04}" for i in range(N))


@pytest.fixture(scope="module")
def shards(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream") / "shards"
    library.write(folder)
    return folder


@every_library
@every_method
def test_without_keys(library, make, shards):
    selector, net = make(), Named()
    fit(selector, net, library.read(shards), max_epochs=3)
    assert [record["n_total"] for record in selector.history] == [N] * 3
    assert all(0 < record["n_trained"] < N for record in selector.history[1:])
    assert not same_weights(net, Named())


@every_library
@every_method
def test_with_keys_and_workers(library, make, shards):
    selector = make(sample_id="__key__")
    fit(selector, Named(), library.read(shards, n_workers=2), max_epochs=3)
    assert sorted(selector.sample_ids) == ALL
    assert [record["n_total"] for record in selector.history] == [N] * 3
    assert selector.column("times_trained").sum() == sum(record["n_trained"] for record in selector.history)


@every_library
def test_set_level_methods_say_what_works(library, shards):
    with pytest.raises(TypeError, match="is a stream.*InfoBatch cannot choose.*take a method that chooses within"):
        fit(InfoBatch(), Named(), library.read(shards))


@every_library
def test_the_trainers_limits(library, shards):
    selector, net = SelectiveBackprop(sample_id="__key__"), Named()
    flags = {"max_steps": 14, "max_epochs": -1, "limit_train_batches": 10, "accumulate_grad_batches": 2}
    made, _ = fit(selector, net, library.read(shards), val_check_interval=5, **flags)
    assert made.global_step == 14 and len(net.steps) == 28
    assert net.validated == [(epoch, batch) for epoch, batch in zip((0, 0, 1, 1, 2), (5, 10, 15, 20, 25), strict=True)]


@every_library
def test_gathered_samples_fill_whole_batches(library, shards):
    selector, net = METHODS["SelectiveBackprop, gathered"](sample_id="__key__"), Named()
    made, _ = fit(selector, net, library.read(shards, n_workers=2), max_epochs=4)
    assert {step.size for step in net.steps} == {BATCH}
    chosen, trained = (sum(record[name] for record in selector.history) for name in ("n_trained", "n_backward"))
    assert 0 <= chosen - trained < BATCH and trained == BATCH * made.global_step
    assert selector.column("times_trained").sum() == chosen


class Half(Frontier):
    """Leaves a random half of what is known out of each pass, whatever the evidence."""

    def leave_out(self, epoch, rows):
        return rows.draw(self.seed, epoch, "half") < 0.5


@every_library
@pytest.mark.parametrize("n_workers", [0, 2])
def test_frontier_leaves_samples_out(library, n_workers, shards):
    selector, net = Half(sample_id="__key__"), Named()
    data = library.read(shards, n_workers=n_workers, keeps=selector.keeps if library is not HUGGING_FACE else None)
    fit(selector, net, data, max_epochs=6)
    assert len(net.steps) == 3 * N // BATCH and sorted(selector.sample_ids) == ALL
    assert [record["n_total"] for record in selector.history[:-1]] == [N] * (len(selector.history) - 1)
    assert len(net.keys) == sum(record["n_trained"] for record in selector.history)
    assert all(30 < record["n_trained"] < 66 for record in selector.history[1:-1]) and len(selector.history) > 4


@every_library
def test_frontier_says_where_a_stream_must_ask(library, shards):
    if library is HUGGING_FACE:
        pytest.skip("its samples are left out before they are collated")
    with pytest.raises(
        TypeError, match="makes its batches itself, so Frontier cannot leave samples out.*frontier.keep"
    ):
        fit(Frontier(sample_id="__key__"), Named(), library.read(shards))


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("library", [LIBRARIES["litdata"]], ids=["litdata"], scope="module")
def test_a_loader_with_a_state_goes_on_where_it_was(library, n_workers, shards, tmp_path):
    path = tmp_path / "within.ckpt"
    net, resumed = Named(), Named(seed=9)
    fit(SelectiveBackprop(warmup_epochs=9), net, library.read(shards, 1, n_workers), callbacks=[SaveAt(path, 1, 4)])
    again = SelectiveBackprop(warmup_epochs=9)
    fit(again, resumed, library.read(shards, 1, n_workers), ckpt_path=path)
    of_the_rest = N - 5 * BATCH
    assert resumed.keys[:of_the_rest] == net.keys[N + 5 * BATCH : 2 * N]
    plain = Named(seed=9)  # litdata ends the epoch after a resumed one early, with a selector or without
    fit(None, plain, library.read(shards, 1, n_workers), ckpt_path=path)
    assert resumed.keys == plain.keys and [record["n_total"] for record in again.history][:2] == [N] * 2


def test_litdata_without_a_length_goes_on_where_it_was(tmp_path):
    """A mixture by weights, which ends with one of its parts; litdata itself is elsewhere after it with workers."""
    litdata = pytest.importorskip("litdata")
    folder = tmp_path / "shards"
    Litdata().write(folder)

    def batches():
        parts = [litdata.StreamingDataset(str(folder), shuffle=shuffle, seed=3) for shuffle in (True, False)]
        mixed = litdata.CombinedStreamingDataset(parts, weights=[0.5, 0.5], iterate_over_all=False, seed=3)
        return litdata.StreamingDataLoader(mixed, batch_size=BATCH)

    path, net, resumed = tmp_path / "within.ckpt", Named(), Named(seed=9)
    fit(SelectiveBackprop(), net, batches(), callbacks=[SaveAt(path, 1, 4)], max_epochs=2)
    fit(SelectiveBackprop(), resumed, batches(), ckpt_path=path, max_epochs=2)
    assert same_weights(resumed, net) and resumed.keys == net.keys[-len(resumed.keys) :]


def on_one_rank(library, shards, method, **spread):
    selector, net = METHODS[method](sample_id="__key__"), Named()
    module = L.LightningDataModule()  # reads once the processes know each other
    module.train_dataloader = lambda: LIBRARIES[library].read(shards, world_size=2, n_workers=1)
    made = L.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[selector], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **spread,
    )  # fmt: skip
    made.fit(net, module)
    counts = [{k: v for k, v in record.items() if "seconds" not in k} for record in selector.history]
    weights = [t.tolist() for t in net.state_dict().values()]
    sizes = {step.size for step in net.steps}
    return {"counts": counts, "ids": selector.sample_ids, "weights": weights, "sizes": sizes}


@every_library
@pytest.mark.parametrize("method", ["EvolvedSampling", "SelectiveBackprop, gathered"])
def test_two_ranks(library, method, shards, tmp_path):
    name = next(name for name, one in LIBRARIES.items() if one is library)
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", library=name, shards=shards, method=method)
    assert "gathered" not in method or first["sizes"] == second["sizes"] == {BATCH}
    assert first["counts"] == second["counts"] and first["weights"] == second["weights"]
    assert sorted({*first["ids"], *second["ids"]}) == ALL
    assert [record["n_total"] for record in first["counts"]] == [N] * 2
