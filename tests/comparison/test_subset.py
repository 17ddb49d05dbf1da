"""A comparison on a part of the data: the same part for every run, and validation whole."""

import pytest
import torch
from rich.console import Console
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from lightning_dataselect import RandomPruning
from lightning_dataselect.comparison.runs.run import fit
from lightning_dataselect.comparison.tasks.config_task import ConfigTask
from lightning_dataselect.comparison.tasks.made_task import MadeTask
from lightning_dataselect.comparison.tasks.subset import SubsetTask, part_of
from lightning_dataselect.comparison.workflow import Request, carry_out
from lightning_dataselect.demo import DigitsData, DigitsModel
from lightning_dataselect.utils.errors import UserInputError

CONFIG = {
    "model": {"class_path": "lightning_dataselect.demo.DigitsModel"},
    "data": {"class_path": "lightning_dataselect.demo.DigitsData"},
    "trainer": {"accelerator": "cpu"},
}


def loaders():
    data = DigitsData()
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader()


TASKS = {
    "a config": ConfigTask(CONFIG, 1),
    "a datamodule": MadeTask(DigitsModel, DigitsData, {"accelerator": "cpu"}, 1),
    "loaders": MadeTask(DigitsModel, loaders, {"accelerator": "cpu"}, 1),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_run_trains_on_the_same_part(name, tmp_path):
    chosen = []
    for seed in (0, 1):
        selector = RandomPruning(prune_ratio=0.5)
        built = SubsetTask(TASKS[name], 0.25).build(seed=seed, epochs=1, callbacks=[selector], root=tmp_path)
        fit(*built)
        train, val = built[0].train_dataloader, built[0].val_dataloaders
        chosen.append(sorted(train.dataset.indices))
        assert (len(train.dataset), len(val.dataset)) == (299, 600)  # of 1,197
        assert selector.history[0]["n_total"] == 299
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == 299


def test_the_loader_stays_as_it_was_otherwise():
    loader = DataLoader(range(40), 6, drop_last=True, collate_fn=torch.tensor, num_workers=0)
    part = part_of(loader, 0.5)
    assert [len(batch) for batch in part] == [6, 6, 6] and part.collate_fn is torch.tensor
    assert isinstance(part.sampler, SequentialSampler)


class Stream(IterableDataset):
    def __iter__(self):
        yield 1


@pytest.mark.parametrize(
    ("loader", "why"),
    [
        ([1, 2], "the train loader is a list"),
        (DataLoader(Stream()), "the data set is a stream"),
        (
            DataLoader(range(9), sampler=RandomSampler(range(9), replacement=True)),
            "a sampler of its own, RandomSampler",
        ),
        (DataLoader(range(9), batch_sampler=BatchSampler([3, 1], 2, False)), "batches of its own"),
    ],
)
def test_what_cannot_be_cut_is_named(loader, why):
    with pytest.raises(UserInputError, match=f"room for a part of the data only, and .*{why}.*: give more"):
        part_of(loader, 0.5)


@pytest.mark.slow
def test_a_small_budget_takes_a_part_and_says_so(tmp_path, capsys):
    request = Request("full,short,random", "3", 0.5, None, None, tmp_path, budget="3.5", jobs=1)
    data = MadeTask(DigitsModel, big, {"accelerator": "cpu"}, 3)
    found = carry_out(data, request, Console(width=200))
    assert {run.n_total for run in found.outcome.runs} == {1100}
    assert "50% of the data" in capsys.readouterr().out and "50% of the training data" in found.summary.notes[0]


def big():
    generator = torch.Generator().manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.rand(2200, 64, generator=generator), torch.arange(2200) % 10)
    return DataLoader(data, 64, shuffle=True), DataLoader(data, 64)
