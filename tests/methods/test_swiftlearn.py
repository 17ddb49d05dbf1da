"""SwiftLearn against NumPy written from its formulas, and in fits of a classifier, a regressor and a token model."""

import math
import pickle
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import N, Net, Seen, dataset, fit, loader, same_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from rescoring_helpers import IGNORED, VOCABULARY, Regressor, Tokens, token_loader, watch_eval_steps
from torch.utils.data import DataLoader, TensorDataset

from lightning_dataselect import SwiftLearn
from lightning_dataselect.capture import LossCapture
from lightning_dataselect.capture.loss.loss_functions import LOSSES
from lightning_dataselect.capture.reading.outputs import outputs_of_call
from lightning_dataselect.methods.swiftlearn import importance
from lightning_dataselect.numerics.projection import project

floats = st.floats(-100, 100, width=16)
MEASURES = ("mse", "l1", "cosine")
LOSS = {loss.name: loss for loss in LOSSES}


def oracle(now, before, measure):
    now, before = np.asarray(now, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if measure == "mse":
        return ((now - before) ** 2).mean(1)
    if measure == "l1":
        return np.abs(now - before).mean(1)
    norms = np.maximum(np.linalg.norm(now, axis=1), 1e-8) * np.maximum(np.linalg.norm(before, axis=1), 1e-8)
    return np.maximum(1 - (now * before).sum(1) / norms, 0)


# ---- the importance


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(1, 7), width=st.integers(1, 5), measure=st.sampled_from(MEASURES))
def test_importance_is_the_formula(data, n, width, measure):
    draw = st.lists(st.lists(floats, min_size=width, max_size=width), min_size=n, max_size=n)
    now, before = data.draw(draw), data.draw(draw)
    got = importance(torch.tensor(now), torch.tensor(before), measure)
    assert got.dtype == torch.float32 and (got >= 0).all()
    np.testing.assert_allclose(got, oracle(now, before, measure), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_unmeasured_and_broken_outputs_have_no_importance(measure):
    now = torch.tensor([[1.0, 2.0], [1.0, 2.0], [math.nan, 0.0], [3.0, 1.0]])
    before = torch.tensor([[math.nan, math.nan], [1.0, 2.0], [0.0, 0.0], [-3.0, 1.0]], dtype=torch.float16)
    got = importance(now, before, measure)
    assert got.isnan().tolist() == [True, False, True, False]
    assert got[1] == pytest.approx(0, abs=1e-6) and got[3] > 0.5


@pytest.mark.parametrize("measure", MEASURES)
def test_no_rounding_makes_an_importance_negative(measure):
    z = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0))
    got = importance(z, z.clone(), measure)
    assert (got >= 0).all() and got.max() < 1e-6


# ---- the projection


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 20))
def test_projection_keeps_a_vector_of_its_width(n, tokens, width):
    values = torch.randn(n, 1, width, generator=torch.Generator().manual_seed(tokens))
    assert torch.equal(project(values, width), values[:, 0])


@pytest.mark.parametrize(("tokens", "classes"), [(1, 3000), (40, 5), (7, 100), (30, 1000)])
@pytest.mark.parametrize("structure", ["noise", "alike tokens", "one class"])
def test_projection_keeps_the_mean_square(tokens, classes, structure):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(64, tokens, classes, generator=generator)
    if structure == "alike tokens":
        values[:] = values[:, :1]
    elif structure == "one class":
        values[:, :, : classes // 3] = 0
    width = 64
    got = project(values, width).square().mean(1).double()
    expected = values.double().square().mean((1, 2))
    ratio = got / expected
    assert ratio.mean() == pytest.approx(1, abs=0.12)
    assert ratio.std() < 2 * math.sqrt(2 / width)


def test_projection_is_linear_and_does_not_see_padding():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 9, 70, generator=generator)
    torch.testing.assert_close(project(a - b, 16), project(a, 16) - project(b, 16), atol=1e-5, rtol=1e-4)
    valid = torch.ones(5, 9, dtype=torch.bool)
    valid[2, 6:] = False
    for classes in (70, 4):
        short, long = a[2:3, :6, :classes], a[:, :, :classes]
        torch.testing.assert_close(project(long, 16, valid)[2:3], project(short, 16))


def test_huge_numbers_that_mask_a_class_hide_nothing():
    values = torch.tensor([[[1.0, -math.inf, 3.0]], [[1.0, -3e38, math.nan]]])
    got = project(values, 3, largest=1e4)
    assert got[0].tolist() == [1, 0, 3]
    assert got[1, :2].tolist() == [1, 0] and got[1, 2].isnan()


# ---- where the outputs come from


def test_outputs_of_dense_and_token_losses_are_laid_out_by_sample():
    logits = torch.randn(2, 5, 3, 4)
    target = torch.zeros(2, 3, 4, dtype=torch.long)
    target[1, 2, 3] = 9
    dense = outputs_of_call(LOSS["cross_entropy"], {"input": logits, "target": target, "ignore_index": 9}, 2)
    assert dense.values.shape == (2, 12, 5)
    assert torch.equal(dense.values[1, 4 * 2 + 1], logits[1, :, 2, 1])
    assert dense.valid.sum() == 23 and not dense.valid[1, 11]
    strided = outputs_of_call(LOSS["mse_loss"], {"input": torch.arange(6.0)}, 3, strided=True)
    assert strided.values.squeeze(2).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert strided.probabilities is None
    assert outputs_of_call(LOSS["mse_loss"], {"input": torch.arange(7.0)}, 3) is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.cross_entropy(z, y),
        lambda z, y: F.cross_entropy(z, y, reduction="none").mean(),
        lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
        lambda z, y: 0.1 * F.mse_loss(z.mean(1), y.float()) + F.cross_entropy(z, y),
        lambda z, y: F.mse_loss(z, F.one_hot(y, 3).float()),
    ],
)
@pytest.mark.parametrize("scoring", [False, True])
def test_capture_hands_over_the_outputs_of_the_main_term(loss, scoring):
    model, x, y = torch.nn.Linear(4, 3), torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    capture = LossCapture()
    capture.summarize = lambda outputs: outputs.values[:, 0]
    returned = []

    def step():
        out = model(x)
        returned.append(weakref.ref(out))
        return loss(out, y)

    captured = capture.run(step, 6)[1]
    for _ in range(2):
        captured = capture.score(step, 6) if scoring else capture.run(step, 6)[1]
        torch.testing.assert_close(captured.outputs, model(x).detach())
    assert returned[-1]() is None


def test_outputs_are_kept_only_on_demand():
    model, x = torch.nn.Linear(4, 3), torch.randn(6, 4)
    capture, summarized = LossCapture(), []

    def step():
        return F.mse_loss(model(x), x[:, :3])

    for _ in range(2):
        assert capture.run(step, 6)[1].outputs is None
    capture.summarize = lambda outputs: summarized.append(1)
    assert capture.run(step, 6)[1].outputs is None and summarized == [1]


# ---- fits


def measured(selector, net, batches, **flags):
    """The outputs of each sample in the two epochs of a warm-up, as the model gave them."""
    given = {}

    class Recording(Seen):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            for i, z in zip(self.batches[-1][1], recorded[-1], strict=True):
                given.setdefault(i, []).append(z)

    recorded = []
    layer = net.head if hasattr(net, "head") else net.net
    layer.register_forward_hook(lambda m, args, out: recorded.append(out.detach().double().numpy()))
    fit(selector, net, batches, callbacks=[Recording(selector)], max_epochs=2, **flags)
    return given


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_classifiers_scores_are_the_formula(measure, on):
    selector = SwiftLearn(measure=measure, on=on)
    given = measured(selector, Net(), loader())
    assert len(given) == 100 and all(len(z) == 2 for z in given.values())
    before, now = (np.stack([given[i][t] for i in range(100)]) for t in range(2))
    if on == "probabilities":
        before, now = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (before, now))
    np.testing.assert_allclose(selector.scores, oracle(now, before, measure), rtol=0.02, atol=2e-4)
    assert selector.store["outputs"].dtype == torch.float16
    np.testing.assert_allclose(selector.store.column("outputs").double(), now, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"by_hand": True}])
def test_regressors_scores_are_the_formula(options):
    selector = SwiftLearn(outputs="head" if options else "auto")
    given = measured(selector, Regressor(**options), loader())
    before, now = (np.stack([given[i][t] for i in range(100)]) for t in range(2))
    np.testing.assert_allclose(selector.scores, oracle(now, before, "mse"), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_named_submodules_scores_are_the_formula(on):
    class ByHand(Net):
        def training_step(self, batch, batch_idx):
            z = self.net(batch[0])
            return (z.exp().sum(1).log() - z[range(len(z)), batch[1]]).mean()

    selector = SwiftLearn(outputs="net", on=on)
    given = measured(selector, ByHand(), loader())
    before, now = (np.stack([given[i][t] for i in range(100)]) for t in range(2))
    if on == "probabilities":
        before, now = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (before, now))
    np.testing.assert_allclose(selector.scores, oracle(now, before, "mse"), rtol=0.02, atol=2e-4)


def test_large_predictions_are_compared_unclipped():
    class Large(Regressor):
        def training_step(self, batch, batch_idx):
            return F.mse_loss(1e5 * self.head(batch[0]), 1e5 * batch[0][:, :3]) * 1e-10

    selector = SwiftLearn()
    given = measured(selector, Large(), loader())
    before, now = (1e5 * np.stack([given[i][t] for i in range(100)]) for t in range(2))
    np.testing.assert_allclose(selector.scores, oracle(now, before, "mse"), rtol=1e-3)


@pytest.mark.parametrize("mask", [-1e5, -1e30])
def test_class_masked_by_a_large_number_hides_no_change(mask):
    class Masking(Net):
        def training_step(self, batch, batch_idx):
            z = self.net(batch[0])
            return F.cross_entropy(torch.cat([z, torch.full((len(z), 1), mask)], 1), batch[1])

    selector = SwiftLearn()
    given = measured(selector, Masking(), loader())
    before, now = (np.stack([np.append(given[i][t], 0.0) for i in range(100)]) for t in range(2))
    np.testing.assert_allclose(selector.scores, oracle(now, before, "mse"), rtol=0.02, atol=2e-4)


def test_batch_that_shows_no_outputs_keeps_its_scores():
    class Odd(Net):
        def training_step(self, batch, batch_idx):
            z = self.net(batch[0])
            losses = z.exp().sum(1).log() - z[range(len(z)), batch[1]]
            return losses.mean() if batch_idx % 2 else F.cross_entropy(z, batch[1])

    selector = SwiftLearn(prune_ratio=0.5, every_n_epochs=0)
    fit(selector, Odd(), loader(shuffle=False), max_epochs=3)
    assert 0 < int(selector.scores.isnan().sum()) < N and selector.history[2]["n_selected"] == N // 2


def test_token_models_scores_are_near_the_formula_in_bounded_memory():
    selector = SwiftLearn(max_width=256)
    batches = token_loader()
    given = measured(selector, Tokens(lr=0.3), batches, val=[])
    valid = (batches.dataset.tensors[1] != IGNORED).numpy()
    before, now = ([given[i][t][: valid[i].sum()] for i in range(40)] for t in range(2))
    expected = np.array([((a - b) ** 2).mean() for a, b in zip(now, before, strict=True)])
    assert selector.store["outputs"].shape == (41, 256)
    ratio = selector.scores.double().numpy() / expected
    assert abs(ratio.mean() - 1) < 0.1 and ratio.std() < 0.25
    assert np.corrcoef(selector.scores, expected)[0, 1] > 0.9
    assert before[0].shape[-1] == VOCABULARY


@pytest.mark.parametrize("n", [100, 400])
def test_memory_is_one_bounded_vector_a_sample(n):
    classes, width = 700, 32
    data = TensorDataset(torch.randn(n, 8), torch.arange(n) % classes)

    class Wide(Net):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(8, classes)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.head(batch[0]), batch[1])

    selector = SwiftLearn(max_width=width)
    fit(selector, Wide(), DataLoader(data, 20, shuffle=True), [], max_epochs=2)
    state = selector.state_dict()["columns"]
    tracked = {"times_trained", "times_dropped", "margin", "predicted", "first_learnt", "times_forgotten", "label"}
    tracked |= {"loss_sum", "margin_sum", "confidence_sum", "confidence_squares", "times_classified", "times_measured"}
    assert {k: v.element_size() * v.numel() for k, v in state.items()} == {
        "outputs": 2 * n * width,
        **{name: 4 * n for name in {"loss", "score"} | tracked},
    }


@pytest.mark.parametrize(("period", "passes"), [(1, [3, 4, 5, 6]), (2, [4, 6]), (3, [5]), (0, [])])
def test_epochs_follow_warm_up_and_period_and_passes_are_counted(period, passes):
    selector = SwiftLearn(prune_ratio=0.7, every_n_epochs=period)
    chosen = []

    class Watch(Seen):
        def on_train_epoch_start(self, trainer, pl_module):
            chosen.append(selector.selected.tolist())

    net = Net()
    evaluated = watch_eval_steps(net)
    fit(selector, net, callbacks=[Watch(selector)], max_epochs=7)
    assert [r["n_selected"] for r in selector.history] == [100, 100, 30, 30, 30, 30, 30]
    assert [r["n_backward"] for r in selector.history] == [100, 100, 30, 30, 30, 30, 30]
    assert [r["epoch"] + 1 for r in selector.history if r["n_forward"] != r["n_backward"]] == passes
    assert all(r["n_forward"] - r["n_backward"] in (0, 100) for r in selector.history)
    assert sum(len(x) for x in evaluated) == 100 * len(passes)
    changes = [e for e in range(3, 7) if chosen[e] != chosen[e - 1]]
    assert set(changes) <= set(passes) and (len(changes) > 0) == (period > 0)


def test_period_zero_keeps_the_first_selection():
    selector, drawn = SwiftLearn(prune_ratio=0.5, every_n_epochs=0, mode="sample"), []

    class Watch(Seen):
        def on_train_epoch_start(self, trainer, pl_module):
            drawn.append(selector.selected.tolist())

    fit(selector, callbacks=[Watch(selector)], max_epochs=6)
    assert len(drawn[2]) == 50 and drawn[2:] == [drawn[2]] * 4


def test_pass_compares_with_the_last_measurement_and_training_in_between_does_not():
    selector = SwiftLearn(prune_ratio=0.5, every_n_epochs=3)
    net, x, outputs = Net(), dataset().tensors[0], {}

    class Watch(Seen):
        def on_train_epoch_end(self, trainer, pl_module):
            outputs[trainer.current_epoch] = pl_module.net(x).detach().double().numpy()

    # listed after the selector, so the weights are those that its pass has seen
    fit(selector, net, callbacks=[Watch(selector)], max_epochs=9)
    np.testing.assert_allclose(selector.scores, oracle(outputs[7], outputs[4], "mse"), rtol=0.05, atol=1e-3)


def test_dropped_samples_come_back():
    selector = SwiftLearn(prune_ratio=0.6, every_n_epochs=1)
    taken = []

    class Watch(Seen):
        def on_train_epoch_start(self, trainer, pl_module):
            taken.append(set(selector.selected.tolist()))

    fit(selector, callbacks=[Watch(selector)], max_epochs=8)
    assert any(taken[e + 1] - taken[e] for e in range(2, 7))


@pytest.mark.parametrize("mode", ["topk", "sample"])
def test_each_mode_takes_unmeasured_samples_and_prefers_high_scores(mode):
    scores = torch.tensor([5.0, 0.0, math.nan, 1.0, 0.0, 3.0])
    selector = SwiftLearn(prune_ratio=0.5, mode=mode)
    drawn = [selector.select(2, scores, torch.Generator().manual_seed(s)).indices.tolist() for s in range(300)]
    assert all(2 in d and len(d) == 3 for d in drawn)
    if mode == "topk":
        assert all(d == [0, 2, 5] for d in drawn)
    else:
        counts = np.bincount(np.concatenate(drawn), minlength=6)
        assert counts[1] == counts[4] == 0 and counts[0] > counts[5] > counts[3] > 0


@pytest.mark.slow
@pytest.mark.parametrize("period", [0, 1])
def test_resumed_fit_ends_in_same_weights_and_scores(tmp_path, period):
    def make():
        return SwiftLearn(prune_ratio=0.6, every_n_epochs=period)

    savers = [
        ModelCheckpoint(tmp_path, filename="s{step}", every_n_train_steps=7, save_top_k=-1),
        ModelCheckpoint(tmp_path, filename="v{step}", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=False),
    ]
    selector = make()
    _, net = fit(selector, callbacks=savers, max_epochs=6, enable_checkpointing=True)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) > 8
    for path in paths:
        again = make()
        _, resumed = fit(again, Net(seed=5), ckpt_path=path, max_epochs=6)
        assert same_weights(net, resumed), path
        for name in ("score", "loss", "outputs"):
            torch.testing.assert_close(selector.store.column(name), again.store.column(name), rtol=0, atol=0)
        cost = [[(r["n_selected"], r["n_forward"], r["n_backward"]) for r in s.history] for s in (selector, again)]
        assert cost[0] == cost[1], path


def test_selector_pickles_between_fits_and_balances_classes():
    selector = SwiftLearn(prune_ratio=0.5, balance="class", whole_batches=False)
    fit(selector, max_epochs=4)
    classes = dataset().tensors[1]
    kept = torch.bincount(classes[selector.selected])
    assert (kept - torch.bincount(classes) / 2).abs().max() <= 0.5
    again = pickle.loads(pickle.dumps(selector))
    assert torch.equal(again.store.column("outputs"), selector.store.column("outputs"))


# ---- refusals


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"warmup_epochs": 1}, ValueError, "warmup_epochs=1 leaves SwiftLearn no change to measure.*at least 2"),
        ({"every_n_epochs": -1}, ValueError, "every_n_epochs=-1 is too small"),
        ({"measure": "kl"}, ValueError, "measure='kl' is unknown: give one of 'mse', 'l1', 'cosine'"),
        ({"on": "loss"}, ValueError, "on='loss' is unknown"),
        ({"mode": "best"}, ValueError, "mode='best' is unknown"),
        ({"max_width": 0}, ValueError, "max_width=0 is too small"),
    ],
)
def test_arguments_out_of_range(options, error, words):
    with pytest.raises(error, match=words):
        SwiftLearn(**options)


class OneOutput(Regressor):
    def training_step(self, batch, batch_idx):
        self.steps.append(batch_idx)
        return F.mse_loss(self.head(batch[0])[:, :1], batch[0][:, :1])


@pytest.mark.parametrize(
    ("selector", "module", "words"),
    [
        (SwiftLearn(), Regressor(by_hand=True), r"saw no outputs.*SwiftLearn\(outputs='net.head'\)"),
        (SwiftLearn(sample_loss="batch"), Net(), "saw no outputs"),
        (SwiftLearn(on="probabilities"), Regressor(), "on='probabilities'.*Use on='logits'"),
        (SwiftLearn(measure="cosine"), OneOutput(), "measure='cosine'.*one output per sample.*Use measure='mse'"),
        (SwiftLearn(outputs="nett"), Net(), "outputs='nett' is no submodule of Net, whose submodules are net, net.0"),
    ],
)
def test_no_outputs_is_an_error_on_the_first_batch(selector, module, words):
    with pytest.raises(ValueError, match=words):
        fit(selector, module, max_epochs=1)
    assert len(module.steps) <= 1 and "training_step" not in vars(module)


def test_output_module_that_returns_no_tensor_by_sample():
    class Odd(Net):
        def __init__(self, returned):
            super().__init__()
            self.odd = torch.nn.Identity()
            self.returned = returned

        def training_step(self, batch, batch_idx):
            self.odd(self.returned)
            return super().training_step(batch, batch_idx)

    with pytest.raises(ValueError, match="outputs='odd' returned tuple for 10 samples: name a submodule that returns"):
        fit(SwiftLearn(outputs="odd"), Odd((1, 2)), max_epochs=1)
    with pytest.raises(ValueError, match=r"shape \(7, 2\) for 10 samples"):
        fit(SwiftLearn(outputs="odd"), Odd(torch.zeros(7, 2)), max_epochs=1)
