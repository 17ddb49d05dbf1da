"""A fit that goes on, with a selector, from a checkpoint that was written without one."""

import pytest
import torch
from helpers import Net, dataset, fit, loader, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_dataselect import EL2N, ESWP, UCB, EpsilonGreedy, Forgetting, SeTa, SwiftLearn

BEGUN = 2  # epochs that the first fit trains


def by_steps(optimizer, trainer):
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.97**step)
    return {"scheduler": schedule, "interval": "step"}


def sequential():
    return loader(shuffle=False)


@pytest.fixture(params=["after the fit", "at the epoch's end", "after validation"], scope="module")
def checkpoint(request, tmp_path_factory):
    """Written after two epochs; after validation is where ModelCheckpoint writes unless it is told otherwise."""
    path = tmp_path_factory.mktemp("without") / "plain.ckpt"
    if request.param == "after the fit":
        made = trainer(max_epochs=BEGUN)
        made.fit(Net(by_steps), sequential(), loader(50, 25, False))
        made.save_checkpoint(path)
    else:
        at_end = request.param == "at the epoch's end"
        keep = ModelCheckpoint(path.parent, filename="plain", every_n_epochs=BEGUN, save_on_train_epoch_end=at_end)
        fit(None, Net(by_steps), sequential(), callbacks=[keep], enable_checkpointing=True, max_epochs=BEGUN)
    return path


@pytest.mark.parametrize(
    ("make", "selected"),
    [
        (lambda: EL2N(warmup_epochs=2), [100, 100, 50, 50]),
        (lambda: Forgetting(warmup_epochs=3), [100, 100, 100, 50]),
        (lambda: SwiftLearn(prune_ratio=0.8, every_n_epochs=1), [100, 100, 20, 20]),
        (lambda: SwiftLearn(prune_ratio=0.8, every_n_epochs=0), [100, 100, 20, 20]),
        (lambda: UCB(prune_ratio=0.3, every_n_epochs=2), [100, 70, 70, 70]),
        (lambda: EpsilonGreedy(prune_ratio=0.3, every_n_epochs=3), [100, 70, 70, 70]),
        (lambda: ESWP(prune_ratio=0.4, anneal=0), [100, 60, 60, 60]),
        # nothing to measure first, and an epoch shorter than the one that the checkpoint ends with
        (lambda: SeTa(prune_ratio=0.5, window_scale=1, anneal=0), [50] * 4),
    ],
)
def test_what_is_measured_before_anything_is_dropped_is_measured_after_the_checkpoint(checkpoint, make, selected):
    selector, net = make(), Net(by_steps)
    fit(selector, net, sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 4)
    assert [r["epoch"] for r in selector.history] == list(range(BEGUN, BEGUN + 4))
    assert [r["n_selected"] for r in selector.history] == selected
    assert isinstance(selector, SeTa) or not selector.scores.isnan().any()
    assert [net.count(epoch) for epoch in range(BEGUN, BEGUN + 4)] == [n // 10 for n in selected]


def test_el2n_keeps_the_largest_errors_of_the_epochs_it_has_seen(checkpoint):
    selector, net = EL2N(warmup_epochs=1, prune_ratio=0.7), Net(by_steps, lr=0.0)
    fit(selector, net, sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 2)
    x, y = dataset().tensors
    with torch.no_grad():
        # the checkpoint's optimizer goes on with its own rate: what was kept is compared with what was measured
        errors = (net.net(x).softmax(1) - torch.nn.functional.one_hot(y, 3)).norm(dim=1)
    kept = torch.zeros(100, dtype=torch.bool)
    kept[selector.selected] = True
    assert selector.scores[kept].min() >= selector.scores[~kept].max()
    assert torch.corrcoef(torch.stack([selector.scores, errors]))[0, 1] > 0.5


def test_with_nothing_dropped_it_is_the_plain_fit_resumed(checkpoint):
    plain, selected = Net(by_steps), Net(by_steps)
    fit(None, plain, sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 3)
    fit(UCB(prune_ratio=0.0), selected, sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 3)
    assert selected.steps == plain.steps and len(plain.steps) == 30
    assert selected.validated == plain.validated
    assert same_weights(selected, plain)


def test_a_second_resume_still_knows_where_the_selector_began(checkpoint, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="joined", every_n_epochs=BEGUN + 1)
    fit(
        EL2N(warmup_epochs=2), Net(by_steps), sequential(), callbacks=[keep], enable_checkpointing=True,
        ckpt_path=checkpoint, max_epochs=BEGUN + 1,
    )  # fmt: skip
    resumed, whole = EL2N(warmup_epochs=2), EL2N(warmup_epochs=2)
    _, net = fit(resumed, Net(by_steps), sequential(), ckpt_path=tmp_path / "joined.ckpt", max_epochs=BEGUN + 4)
    _, other = fit(whole, Net(by_steps), sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 4)
    assert [r["n_selected"] for r in resumed.history] == [r["n_selected"] for r in whole.history] == [100, 100, 50, 50]
    assert torch.equal(resumed.scores, whole.scores) and same_weights(net, other)


def test_a_window_of_groups_begins_anew_after_the_checkpoint(checkpoint):
    """SeTa counts its selections from the first that it makes, as in a fit of its own."""
    asked = []

    class Asked(SeTa):
        def select(self, epoch, scores, generator):
            chosen = super().select(epoch, scores, generator)
            loss = scores[chosen.indices]
            asked.append((epoch, bool(loss.min() == scores.min()), bool(loss.max() == scores.max())))
            return chosen

    selector = Asked(prune_ratio=0.0, n_groups=3, window_scale=0.34, warmup_epochs=1, anneal=0, whole_batches=False)
    fit(selector, Net(by_steps), sequential(), ckpt_path=checkpoint, max_epochs=BEGUN + 4)
    # one of three groups, the easiest first
    assert asked == [(BEGUN + 1, True, False), (BEGUN + 2, False, False), (BEGUN + 3, False, True)]
