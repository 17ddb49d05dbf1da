import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_dataselect.state.store import ScoreStore


def test_every_column_starts_as_it_should():
    store = ScoreStore(4, {"mean": 2.0})
    assert store.column("mean").tolist() == [2.0] * 4
    assert store.column("loss").isnan().all() and store.column("score").isnan().all()
    assert "mean" in store and "other" not in store


def test_the_padding_slot_swallows_and_is_never_shown():
    store = ScoreStore(3)
    store["score"][torch.tensor([3, 1])] = torch.tensor([9.0, 1.0])
    assert store["score"].shape == (4,)
    assert store.column("score")[1] == 1 and store.column("score").shape == (3,)
    assert not (store.column("score") == 9).any()


def test_state_goes_round_through_weights_only_loading(tmp_path):
    store = ScoreStore(5, {"mean": 0.0})
    store["loss"][:5] = torch.arange(5.0)
    torch.save(store.state_dict(), tmp_path / "state.pt")
    other = ScoreStore(5, {"mean": 1.0})
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.column("loss").tolist() == [0, 1, 2, 3, 4] and other.column("mean").tolist() == [0] * 5


def test_vectors_of_a_saved_state_are_forgotten_and_let_go_like_any():
    store, restored = ScoreStore(3), ScoreStore(3)
    store.add_vectors("outputs", 2, torch.float32)[0] = 1.0
    restored.load_state_dict(store.state_dict())
    restored.forget_measured()
    assert restored.column("outputs").isnan().all()
    restored.remove_vectors("outputs")
    assert "outputs" not in restored and "outputs" in store


def test_a_saved_state_does_not_change_with_the_store():
    store = ScoreStore(2)
    saved = store.state_dict()
    store["loss"][0] = 1.0
    assert saved["loss"].isnan().all()


BEYOND_FLOAT32 = 2**24 + 3


def write_and_merge(rank, path, answers):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    store = ScoreStore(BEYOND_FLOAT32, world_size=2)
    # 2**24 + 1 is no float32: an index that travelled as one would land next to it
    mine = torch.tensor([[0, 5, 2**24], [5, 7, 2**24 + 1, BEYOND_FLOAT32]][rank])
    for value in (1.0, 2.0):
        store["loss"][mine] = mine.float() * 0 + value + 10 * rank
        store.mark_dirty(mine)
        store.merge()
    known = (~store.column("loss").isnan()).nonzero().squeeze(1)
    answers.put((rank, known.tolist(), store.column("loss")[known].tolist()))
    dist.destroy_process_group()


def test_merge_gives_every_rank_what_each_has_written(tmp_path):
    context = mp.get_context("fork")
    answers = context.Queue()
    ranks = [context.Process(target=write_and_merge, args=(r, tmp_path / "meet", answers)) for r in range(2)]
    for process in ranks:
        process.start()
    got = sorted(answers.get(timeout=280) for _ in ranks)
    for process in ranks:
        process.join(280)
    expected = {0: 2.0, 5: 12.0, 7: 12.0, 2**24: 2.0, 2**24 + 1: 12.0}
    for _, known, values in got:
        assert dict(zip(known, values, strict=True)) == expected


def test_one_rank_has_nothing_to_merge():
    store = ScoreStore(2)
    store.mark_dirty(torch.tensor([0]))
    store["loss"][0] = 3.5
    store.merge()
    assert store.column("loss")[0] == pytest.approx(3.5)
