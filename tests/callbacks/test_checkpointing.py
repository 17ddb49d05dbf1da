"""Each of several ranks puts its state into a checkpoint, of which as a rule the first rank's is written."""

import os

import torch
from helpers import Shares, fit
from ranks import on_ranks

from lightning_dataselect import SelectiveBackprop

N = 6


def saved(strategy, devices):
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=devices)
    selector = SelectiveBackprop(history=1)
    run = selector.run_state
    run.rank = rank
    run.open(selector, N, world_size=devices, epoch=0)
    run.store["loss"][rank] = rank + 0.5
    run.store.mark_dirty(torch.tensor([rank]))
    selector.load_rank_state({"recent": torch.tensor([float(rank)])})
    key = str(selector.state_key)
    checkpoint = {"callbacks": {key: selector.state_dict()}}
    asked = checkpoint["callbacks"][key]["columns"]["loss"]
    selector.on_save_checkpoint(None, None, checkpoint)
    state = checkpoint["callbacks"][key]
    losses = state["columns"]["loss"].clone()
    run.store["loss"].zero_()
    return {
        "losses": losses.tolist(),
        "recent": [float(each["method"]["recent"]) for each in state["ranks"]],
        "is_copy": [column.tolist() != [0.0] * N for column in (asked, state["columns"]["loss"])],
    }


def test_the_rank_that_writes_alone_copies_the_columns_and_gathers_what_is_each_ranks_own(tmp_path):
    first, *others = on_ranks(saved, 3, tmp_path / "ranks")
    assert first["losses"][:3] == [0.5, 1.5, 2.5]
    assert first["recent"] == [0, 1, 2]
    assert first["is_copy"] == [False, True], "what Lightning asks for first is never written"
    for rank, other in enumerate(others, start=1):
        assert other["losses"][:3] == first["losses"][:3], "a strategy may write a file a rank"
        assert other["recent"] == [rank]
        assert other["is_copy"] == [False, False]


def test_the_key_in_a_checkpoint_is_plain_text_and_finds_the_state_again(tmp_path):
    selector = Shares(0.5)
    trainer, _ = fit(selector, max_epochs=1)
    for path in (tmp_path / "first.ckpt", tmp_path / "second.ckpt"):
        trainer.save_checkpoint(path)
    states = torch.load(tmp_path / "second.ckpt", weights_only=True)["callbacks"]
    (key,) = (key for key in states if "Shares" in key)
    assert type(key) is str and key == selector.state_key
    again = Shares(0.5)
    fit(again, max_epochs=1, ckpt_path=tmp_path / "second.ckpt")
    torch.testing.assert_close(again.losses, selector.losses, equal_nan=True)
