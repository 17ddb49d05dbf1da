"""A fit that goes on from any checkpoint is the fit that was never interrupted, bit for bit."""

import lightning as L
import pytest
import torch
from helpers import SAFELY, Hardest, Net, Seen, Shares, WeightedShares, fit, loader, same_weights, trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from resume_helpers import EPOCHS, SHARES, SaveAt, batches, checkpoints, compare, facts, saved
from schedule_helpers import by_epoch, one_cycle
from torch.utils.data import DataLoader, WeightedRandomSampler


def test_from_every_step_validation_and_epoch(tmp_path):
    assert compare(tmp_path, lambda: WeightedShares(*SHARES), val_check_interval=0.5) > 20


@pytest.mark.parametrize("make", [lambda: Hardest(prune_ratio=0.6, every_n_epochs=2), lambda: Hardest(anneal=0.3)])
def test_with_selections_that_depend_on_scores(tmp_path, make):
    assert compare(tmp_path, make, every=3) > 6


@pytest.mark.parametrize("accumulate", [2, 3])
def test_in_the_middle_of_accumulated_gradients(tmp_path, accumulate):
    assert compare(tmp_path, lambda: Shares(*SHARES), accumulate_grad_batches=accumulate, every=2) > 4


@pytest.mark.parametrize("persistent", [False, True])
def test_with_workers_that_read_ahead(tmp_path, persistent):
    def train():
        return batches(num_workers=2, persistent_workers=persistent)

    assert compare(tmp_path, lambda: Shares(*SHARES), train=train, every=6) > 3


def test_with_a_sampler_that_draws_at_random(tmp_path):
    def train():
        data = loader().dataset
        return DataLoader(data, 10, sampler=WeightedRandomSampler(torch.arange(100.0), 100))

    # the draws of an epoch come from the global random state, but those under way are in the checkpoint
    selector, net = Shares(1.0), Net()
    seen = Seen(selector)
    fit(
        selector,
        net,
        train(),
        callbacks=[seen, *checkpoints(tmp_path, "step")],
        enable_checkpointing=True,
        max_epochs=1,
    )
    for path in saved(tmp_path)[:-1:3]:
        selector, resumed = Shares(1.0), Net(seed=9)
        again = Seen(selector)
        fit(selector, resumed, train(), callbacks=[again], ckpt_path=path, max_epochs=1)
        assert again.batches == seen.batches[-len(again.batches) :]
        assert same_weights(net, resumed)


@pytest.mark.parametrize("kind", ["step", "validation", "epoch"])
def test_a_finished_fit_goes_on_with_more_epochs(tmp_path, kind):
    def run(folder, path, max_epochs):
        selector, net = Shares(*SHARES, lr_schedule="steps"), Net(by_epoch)
        trainer, _ = fit(
            selector, net, batches(), max_epochs=max_epochs, ckpt_path=path, callbacks=checkpoints(folder, kind),
            enable_checkpointing=True,
        )  # fmt: skip
        return facts(selector, trainer, net)

    expected = run(tmp_path / "whole", None, EPOCHS)
    for epochs in (1, 2, 3):
        folder = tmp_path / str(epochs)
        run(folder, None, epochs)
        assert run(tmp_path / f"more{epochs}", saved(folder)[-1], EPOCHS) == expected, epochs


@pytest.mark.parametrize("fatal", [3, 6, 10])
def test_from_a_checkpoint_that_an_error_left(tmp_path, fatal):
    class Failing(Net):
        fatal = -1

        def training_step(self, batch, batch_idx):
            if len(self.steps) == self.fatal:
                raise ValueError("mine")
            return super().training_step(batch, batch_idx)

    def run(fatal=-1, path=None):
        selector, net = Shares(*SHARES), Failing(one_cycle)
        net.fatal = fatal
        rescue = OnExceptionCheckpoint(tmp_path, filename="rescue")
        trainer, _ = fit(
            selector, net, batches(), callbacks=[rescue], ckpt_path=path, max_epochs=EPOCHS, enable_checkpointing=True
        )
        return facts(selector, trainer, net)

    expected = run()
    with pytest.raises(ValueError, match="mine"):
        run(fatal)
    assert run(path=tmp_path / "rescue.ckpt") == expected


def test_an_interrupted_fit_may_be_resumed_more_than_once(tmp_path):
    expected = None
    for stops in ([], [4, 7, 10]):
        path, net, selector = None, Net(one_cycle), Shares(*SHARES)
        for stop in [*stops, 10**9]:
            selector, net = Shares(*SHARES), Net(one_cycle)
            keep = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)

            class Stop(Seen):
                at = stop

                def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                    if trainer.global_step == self.at:
                        trainer.save_checkpoint(tmp_path / "mine.ckpt")
                        raise ValueError("stopped")

            try:
                options = {"ckpt_path": path, "max_epochs": EPOCHS, "enable_checkpointing": True}
                trainer, _ = fit(selector, net, batches(), callbacks=[Stop(selector), keep], **options)
            except ValueError:
                path = tmp_path / "mine.ckpt"
        expected = expected or facts(selector, trainer, net)
    assert facts(selector, trainer, net) == expected


class Saving(L.Callback):
    """Saves as many callbacks of users do: by itself, after every batch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step:02d}.ckpt")


def test_from_what_a_callback_listed_before_the_selector_has_saved(tmp_path):
    def run(path=None):
        selector, net = WeightedShares(*SHARES), Net(one_cycle)
        others = [] if path else [Saving(tmp_path)]
        made = trainer(*others, selector, max_epochs=EPOCHS)
        made.fit(net, batches(), loader(50, 25, False), **({"ckpt_path": path, **SAFELY} if path else {}))
        return facts(selector, made, net)

    expected = run()
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == 5 + 3 + 1 + 5
    for path in paths[::2]:
        assert run(path) == expected, path


@pytest.mark.parametrize(
    ("batch_size", "words"), [(25, "now a batch has 25.*not at all"), (10, "now a batch has 10.*twice")]
)
def test_another_batch_size_within_an_epoch_is_named(tmp_path, batch_size, words):
    fit(Shares(*SHARES), train=batches(), callbacks=checkpoints(tmp_path, "step"), enable_checkpointing=True)
    path = next(path for path in saved(tmp_path) if "step=6" in path.name)
    selector = Shares(*SHARES)
    seen = Seen(selector)
    with pytest.warns(UserWarning, match=rf"after 1 batches of epoch 1, of 20 samples on all ranks, and {words}"):
        fit(selector, train=loader(batch_size=batch_size), callbacks=[seen], ckpt_path=path)
    assert [len(set(seen.of_epoch(e))) for e in (2, 3)] == [r["n_selected"] for r in selector.history[2:]] == [20, 90]


def test_the_batch_size_of_a_checkpoint_at_an_epochs_end_is_no_matter(tmp_path, recwarn):
    fit(Shares(*SHARES), train=batches(), callbacks=checkpoints(tmp_path, "epoch"), enable_checkpointing=True)
    selector = Shares(*SHARES)
    fit(selector, train=loader(batch_size=25), ckpt_path=saved(tmp_path)[1])
    assert not [w for w in recwarn if "now a batch has" in str(w.message)]
    assert [r["n_backward"] for r in selector.history] == [100, 50, 20, 90]


class Interrupted(Net):
    """Is interrupted by Ctrl-C within the second epoch, once."""

    at = 7

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == self.at:
            self.at = -1
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("budget", [None, 0.6])
def test_after_ctrl_c_schedules_are_new_and_run_for_the_epochs_that_are_left(budget):
    selector = Shares(1.0, 0.6, 0.2, budget=budget)
    net = Interrupted(one_cycle)
    made = trainer(selector, max_epochs=EPOCHS)
    with pytest.raises(SystemExit):
        made.fit(net, batches(), loader(50, 25, False))
    made.fit(net, batches(), loader(50, 25, False))
    # of 20 batches: three of four epochs, or what follows the first 5 of the 12 that the budget pays for
    assert made.lr_scheduler_configs[0].scheduler.last_epoch == (15 if budget is None else 20 - 20 * 5 // 12)


def test_a_fit_begun_again_after_ctrl_c_repeats_the_epoch():
    selector, net = Shares(*SHARES), Interrupted()
    seen = Seen(selector)
    made = trainer(selector, seen, max_epochs=EPOCHS)
    with pytest.raises(SystemExit):
        made.fit(net, batches(), loader(50, 25, False))
    interrupted = len(seen.batches)
    made.fit(net, batches(), loader(50, 25, False))
    again = [i for e, indices in seen.batches[interrupted:] if e == 1 for i in indices]
    assert len(again) == len(set(again)) == 50
    assert [len(set(seen.of_epoch(e))) for e in (2, 3)] == [20, 90]
    assert [r["n_backward"] for r in selector.history] == [100, 50 + 2 * 20, 20, 90], "what was repeated counts"


@pytest.mark.parametrize("within", [0, 2])
def test_a_fit_resumed_from_an_epochs_last_batch_is_resumed_once_more(within, tmp_path):
    """Lightning goes by its count of all batches, to which the last one was not added yet when it was saved."""

    def run(saving, ckpt_path=None):
        selector, net = Shares(*SHARES), Net(one_cycle)
        trainer, _ = fit(selector, net, batches(), callbacks=saving, ckpt_path=ckpt_path)
        return facts(selector, trainer, net)

    last, then = tmp_path / "last.ckpt", tmp_path / "then.ckpt"
    whole = run([SaveAt(last, 1, 2)])
    assert run([SaveAt(then, 3, within)], last) == whole
    assert run([], then) == whole
