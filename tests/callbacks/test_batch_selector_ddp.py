"""Methods that choose within a batch, on two ranks."""

import pytest
import torch
from helpers import Net, Seen, fit, loader
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks

from lightning_dataselect import ESWP, EvolvedSampling, RHOLoss, SelectiveBackprop

METHODS = {
    "EvolvedSampling": lambda: EvolvedSampling(batch_ratio=0.4),
    "ESWP": lambda: ESWP(batch_ratio=0.4, prune_ratio=0.35),
    "RHOLoss": lambda: RHOLoss(holdout_losses=torch.linspace(0, 1, 99), batch_ratio=0.4),
    "SelectiveBackprop": lambda: SelectiveBackprop(beta=1, history=40),
}


def run(method, ckpt_path=None, steps=None, **flags):
    selector, net = METHODS[method](), Net()
    seen = Seen(selector)
    keep = [ModelCheckpoint(steps, every_n_train_steps=1, save_top_k=-1, filename="{step}")] if steps else []
    flags = {"max_epochs": 3, "enable_checkpointing": bool(keep), **flags}
    fit(selector, net, loader(99, 10), callbacks=[seen, *keep], ckpt_path=ckpt_path, **flags)
    return {
        "scores": selector.scores,
        "losses": selector.losses,
        "selected": selector.selected,
        "weights": list(net.state_dict().values()),
        "batches": seen.batches,
        "sizes": [step.size for step in net.steps],
        "counts": [(r["n_selected"], r["n_forward"], r["n_backward"]) for r in selector.history],
        "state": selector.state_dict(),
    }


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_stay_together_and_resume_to_the_same_bits(tmp_path, method):
    ranks = on_ranks(run, 2, tmp_path / "whole", method=method, steps=tmp_path / "steps")
    first, second = ranks
    for name in ("scores", "losses", "selected"):
        assert torch.equal(first[name].nan_to_num(-1), second[name].nan_to_num(-1)), name
    assert equal(first["weights"], second["weights"])
    assert len(first["batches"]) == len(second["batches"])
    assert not first["losses"].isnan().any()
    trained = sum(first["sizes"]) + sum(second["sizes"])
    assert trained == sum(n for *_, n in first["counts"]) and first["counts"] == second["counts"]
    if method == "SelectiveBackprop":
        assert first["sizes"] != second["sizes"]
        assert not torch.equal(*(rank["state"]["ranks"][0]["method"]["recent"] for rank in ranks))
    again = on_ranks(run, 2, tmp_path / "again", method=method, ckpt_path=tmp_path / "steps" / "step=8.ckpt")
    for resumed, whole in zip(again, ranks, strict=True):
        assert equal(resumed["weights"], whole["weights"])
        assert torch.equal(resumed["scores"], whole["scores"])


def test_ranks_choose_with_chances_of_their_own():
    """Otherwise a batch would lose the same positions on every rank."""
    draws = []
    for rank in range(2):
        selector = EvolvedSampling()
        fit(selector, max_epochs=1)
        selector.run_state.rank = rank
        draws.append(torch.rand(3, generator=selector.batch_generator(torch.device("cpu"))))
    assert not torch.equal(*draws)
