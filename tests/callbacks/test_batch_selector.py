"""Methods that choose within a batch, in a Trainer."""

import copy
import pickle
from collections import UserDict

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Net, Seen, dataset, fit, loader, same_weights
from resume_helpers import compare
from torch.utils.data import DataLoader

from lightning_dataselect import ESWP, BatchSelector, EvolvedSampling, RHOLoss, SelectiveBackprop

HELD = torch.linspace(0, 1, 100)
FIXED = {  # those whose number of samples is known beforehand, with 3 of 10
    "EvolvedSampling": lambda **o: EvolvedSampling(batch_ratio=0.3, **o),
    "ESWP": lambda **o: ESWP(batch_ratio=0.3, prune_ratio=0.4, **o),
    "RHOLoss": lambda **o: RHOLoss(holdout_losses=HELD, batch_ratio=0.3, warmup_epochs=1, **o),
}
METHODS = {**FIXED, "SelectiveBackprop": lambda **o: SelectiveBackprop(beta=1, **o)}
each = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


class Losses(L.Callback):
    """The loss of each sample of a batch before the step, by the module in eval mode, and what was kept of it."""

    def __init__(self, selector):
        self.selector, self.batches = selector, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        module.eval()
        with torch.no_grad():
            self.now = F.cross_entropy(module.net(batch[0]), batch[1], reduction="none")
        module.train()
        self.indices = self.selector.batch.indices

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.batches.append((self.indices, self.now, self.selector.losses[self.indices]))


def counts(selector):
    return [(r["n_selected"], r["n_forward"], r["n_backward"]) for r in selector.history]


def sizes(net, epoch):
    return [step.size for step in net.steps if step.epoch == epoch]


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)
def test_the_promised_number_is_trained_on_and_counted(make):
    selector = make()
    _, net = fit(selector, max_epochs=3)
    kept = 60 if isinstance(selector, ESWP) else 100
    assert sizes(net, 0) == [10] * 10
    assert sizes(net, 1) == sizes(net, 2) == [3] * (kept // 10)
    assert counts(selector) == [(100, 100, 100)] + [(kept, kept + kept * 3 // 10, kept * 3 // 10)] * 2


def test_selective_backprop_counts_what_chance_has_taken():
    selector = SelectiveBackprop(beta=1, history=64)
    _, net = fit(selector, max_epochs=3)
    assert sizes(net, 0) == [10] * 10
    for epoch in (1, 2):
        taken = sizes(net, epoch)
        assert len(taken) == 10 and 2 <= min(taken) < max(taken) <= 10
        assert counts(selector)[epoch] == (100, 100 + sum(taken), sum(taken))
        assert 25 < sum(taken) < 75


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_batch_of_one_and_an_odd_last_batch(size):
    selector = EvolvedSampling(batch_ratio=0.3, warmup_epochs=0)
    _, net = fit(selector, train=loader(22, size), max_epochs=1)
    full, rest = divmod(22, size)
    assert sizes(net, 0) == [max(1, round(0.3 * s)) for s in [size] * full + [rest] * (rest > 0)]


def test_of_a_small_last_batch_two_are_trained_on_for_batchnorms_sake():
    selector, module = EvolvedSampling(batch_ratio=0.25, anneal=0.0), Net()
    module.net.insert(1, torch.nn.BatchNorm1d(16))
    fit(selector, module, loader(34, 8), max_epochs=2)
    assert sizes(module, 1) == [2, 2, 2, 2, 2]


@each
def test_every_sample_of_a_batch_is_measured_before_the_step(make):
    selector = make()
    watch = Losses(selector)
    fit(selector, callbacks=[watch], max_epochs=3)
    for _, now, written in watch.batches:
        torch.testing.assert_close(written, now, rtol=1e-5, atol=1e-6)
    assert not selector.losses.isnan().any() and not selector.scores.isnan().any()


STRIDE = {
    "EvolvedSampling": lambda **o: EvolvedSampling(batch_ratio=0.3, score_every_n_batches=3, **o),
    "RHOLoss": lambda **o: RHOLoss(holdout_losses=HELD, batch_ratio=0.3, warmup_epochs=1, score_every_n_batches=3, **o),
    "SelectiveBackprop": lambda **o: SelectiveBackprop(beta=1, history=64, score_every_n_batches=3, **o),
}
every_third = pytest.mark.parametrize("make", STRIDE.values(), ids=STRIDE)


@every_third
def test_of_batches_that_are_not_scored_those_trained_on_alone_are_renewed(make):
    selector = make()
    watch = Scores(selector)
    _, net = fit(selector, callbacks=[watch], max_epochs=3)
    chosen = [step.size for step in net.steps]
    assert chosen[:10] == [10] * 10 and max(chosen[10:]) <= 10
    for (epoch, batch_idx, indices, before, after), k in zip(watch.batches, chosen, strict=True):
        scored = epoch == 0 or batch_idx % 3 == 0
        assert (before[indices] != after[indices]).sum() == (10 if scored else k)
    scored, trained = 4 * 10, [sum(sizes(net, epoch)) for epoch in (1, 2)]
    assert counts(selector)[1:] == [(100, scored + t, t) for t in trained]


class Scores(L.Callback):
    """The losses known before and after each batch; to be listed after the selector."""

    def __init__(self, selector):
        self.selector, self.batches = selector, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before, self.indices = self.selector.losses, self.selector.batch.indices

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.current_epoch, batch_idx, self.indices
        self.batches.append((*step, self.before.nan_to_num(-1), self.selector.losses.nan_to_num(-1)))


@every_third
def test_with_a_stride_it_resumes_anywhere_to_the_same_bits(tmp_path, make):
    assert compare(tmp_path, make, kinds=("step",), every=4) >= 4


def test_a_batch_that_is_not_scored_is_chosen_from_by_its_stored_scores():
    class Highest(BatchSelector):
        def choose(self, seen, k, generator):
            known = self.store["score"][seen.indices]
            torch.testing.assert_close(seen.losses, known, equal_nan=True)
            self.known = [*getattr(self, "known", []), known.isnan().sum().item()]
            return known.nan_to_num(0).topk(k).indices

    selector = Highest(batch_ratio=0.3, warmup_epochs=0, score_every_n_batches=2)
    fit(selector, train=loader(shuffle=False), max_epochs=2)
    assert selector.known == [0, 10] * 5 + [0, 7] * 5


def test_selective_backprop_ranks_among_the_losses_of_whole_batches():
    selector = SelectiveBackprop(beta=1, history=1000, score_every_n_batches=2)
    fit(selector, max_epochs=2)
    assert (~selector.rank_state()["recent"].isnan()).sum() == 100 + 50


def test_the_samples_chosen_are_those_trained_on():
    """With one more output, the sample's own number, the step says what it has been given."""

    class Numbered(Net):
        given = []

        def training_step(self, batch, batch_idx):
            x, y, number = batch
            if self.training:
                self.given.append(number.tolist())
            return F.cross_entropy(self.net(x), y)

    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return *dataset(40)[i], i

    class Highest(BatchSelector):
        def choose(self, seen, k, generator):
            self.batches = [*getattr(self, "batches", []), seen]
            return seen.losses.topk(k).indices

    selector, net = Highest(batch_ratio=0.3, warmup_epochs=0), Numbered()
    fit(selector, net, DataLoader(Numbers(), 10, shuffle=True), [], max_epochs=2)
    assert len(net.given) == 8
    for given, seen in zip(net.given, selector.batches, strict=True):
        assert given == seen.indices[seen.losses.topk(3).indices].tolist()


def test_the_step_is_that_of_a_batch_of_the_chosen_samples():
    """The same weights as training on the chosen samples without any callback."""

    class Firsts(BatchSelector):
        def choose(self, seen, k, generator):
            return torch.arange(k)

    _, net = fit(Firsts(batch_ratio=0.3, warmup_epochs=0), train=loader(shuffle=False), max_epochs=1)
    data = torch.utils.data.Subset(dataset(), [10 * i + j for i in range(10) for j in range(3)])
    _, plain = fit(None, train=DataLoader(data, 3), max_epochs=1)
    for a, b in zip(net.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


@each
def test_resumes_anywhere_to_the_same_bits(tmp_path, make):
    assert compare(tmp_path, make, kinds=("step", "epoch"), every=2) >= 8


@each
def test_gradient_accumulation(make):
    selector = make()
    trainer, net = fit(selector, accumulate_grad_batches=3, max_epochs=2)
    batches = 6 if isinstance(selector, ESWP) else 10
    assert trainer.global_step == 4 + -(-batches // 3)
    assert len(sizes(net, 1)) == batches


@each
@pytest.mark.parametrize("score_dtype", [None, "bfloat16"])
def test_mixed_precision(make, score_dtype):
    if score_dtype:
        selector = EvolvedSampling(score_dtype=score_dtype, warmup_epochs=0)
    else:
        selector = make()
    _, net = fit(selector, precision="bf16-mixed", max_epochs=2)
    assert not same_weights(net, Net())
    assert selector.scores.dtype == torch.float32 and selector.scores.isfinite().all()


def test_scoring_in_a_lower_precision_is_close():
    plain, low = EvolvedSampling(warmup_epochs=0), EvolvedSampling(warmup_epochs=0, score_dtype="bfloat16")
    for selector in (plain, low):
        fit(selector, train=loader(shuffle=False), limit_train_batches=1, max_epochs=1)
    assert not torch.equal(plain.losses[:10], low.losses[:10])
    torch.testing.assert_close(plain.losses[:10], low.losses[:10], rtol=0.03, atol=0.03)


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding."""

    def __getattr__(self, name):
        try:
            return self.data[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def to(self, device):
        return Encoding({k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in self.data.items()})


@each
def test_batches_of_a_tokenizer(make):
    class Words(Net):
        def training_step(self, batch, batch_idx):
            self.sizes = [*getattr(self, "sizes", []), (len(batch.x), len(batch["names"]), type(batch))]
            return {"loss": F.cross_entropy(self.net(batch.x), batch.labels)}

    def collate(samples):
        x, y = torch.utils.data.default_collate(samples)
        return Encoding({"x": x, "labels": y, "names": ["n"] * len(x)})

    net = Words()
    train = DataLoader(dataset(), 10, shuffle=True, collate_fn=collate)
    fit(make(), net, train, [], max_epochs=2)
    assert {kind for *_, kind in net.sizes} == {Encoding}
    assert all(a == b for a, b, _ in net.sizes) and net.sizes[-1][0] < 10


@each
def test_the_choice_follows_the_seed_alone(make):
    runs = [fit(make(seed=seed), max_epochs=3)[1] for seed in (0, 0, 1)]
    assert same_weights(runs[0], runs[1]) and not same_weights(runs[0], runs[2])


@each
def test_the_global_random_state_and_the_module_are_as_before(make):
    state, net = torch.get_rng_state(), Net()
    before = set(vars(net))
    fit(make(), net, loader(generator=torch.Generator()), [])
    assert torch.equal(torch.get_rng_state(), state)
    assert set(vars(net)) - before <= {"_hparams"} and net.training


@each
def test_pickles_and_copies_small(make):
    selector = make()
    fit(selector, max_epochs=2)
    restored = pickle.loads(pickle.dumps(selector))
    assert torch.equal(restored.scores, selector.scores)
    assert len(pickle.dumps(selector)) < 30_000
    fit(copy.deepcopy(selector), max_epochs=2)


@each
def test_a_second_fit_begins_anew(make):
    selector = make()
    _, first = fit(selector)
    _, second = fit(selector)
    assert same_weights(first, second)


@pytest.mark.parametrize("size", [4, 10])
@pytest.mark.parametrize("make", [SelectiveBackprop, EvolvedSampling])
def test_batch_norm_never_trains_on_one_sample(make, size):
    class Normalised(Net):
        def __init__(self):
            super().__init__()
            self.net.insert(1, torch.nn.BatchNorm1d(16))

    smallest = []
    for net in (Normalised(), Net()):
        fit(make(), net, loader(batch_size=size), max_epochs=4)
        smallest.append(min(step.size for step in net.steps))
    assert smallest == [2, 2 if size == 10 else 1]


def test_manual_optimization_is_refused():
    class Manual(Net):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    net = Manual()
    with pytest.raises(TypeError, match="EvolvedSampling measures samples by passes.*manual optimization.*InfoBatch"):
        fit(EvolvedSampling(), net)
    assert "training_step" not in vars(net)


def test_losses_below_zero_are_drawn_by_what_they_are_above_the_least():
    class Negative(Net):
        def training_step(self, batch, batch_idx):
            return (self.net(batch[0])[:, 0] - 100).mean()

    for make in (EvolvedSampling, ESWP):
        selector = make(warmup_epochs=1, anneal=0)
        words = rf"{make.__name__} draws.*losses down to -1\d\d.*SelectiveBackprop"
        with pytest.warns(UserWarning, match=words) as said:
            fit(selector, Negative(), max_epochs=3)
        assert sum("losses down to" in str(warning.message) for warning in said) == 1
        assert selector.losses.isfinite().all()
    fit(SelectiveBackprop(), Negative(), max_epochs=2)


def test_a_loss_is_not_taken_for_negative_for_the_constant_in_it():
    class Similar(Net):
        def training_step(self, batch, batch_idx):
            return 2 - F.cosine_similarity(self.net(batch[0]), F.one_hot(batch[1], 3)).mean()

    selector = EvolvedSampling(batch_ratio=0.5, warmup_epochs=0, anneal=0)
    fit(selector, Similar(), max_epochs=2)
    assert 1 <= selector.losses.min() and selector.losses.max() <= 3


def test_a_step_that_takes_derivatives_is_scored_too():
    class Forces(Net):
        def training_step(self, batch, batch_idx):
            return self.losses(*batch).mean()

        def losses(self, x, y):
            x = x.clone().requires_grad_()
            (force,) = torch.autograd.grad(self.net(x)[:, 0].sum(), x, create_graph=True)
            return (force[:, 0] - y).square()

    selector, net = EvolvedSampling(batch_ratio=0.5, warmup_epochs=0, anneal=0), Forces(lr=0.0)
    expected = net.losses(*dataset().tensors).detach()
    fit(selector, net, max_epochs=2)
    torch.testing.assert_close(selector.losses, expected)


def test_a_step_that_goes_backward_on_its_own_is_scored_too():
    """As adversarial training does, for the slope by the inputs."""

    class Adversarial(Net):
        def training_step(self, batch, batch_idx):
            return self.losses(*batch).mean()

        def losses(self, x, y):
            x = x.clone().requires_grad_()
            F.cross_entropy(self.net(x), y, reduction="sum").backward()
            self.zero_grad()
            return F.cross_entropy(self.net(x.detach() + 0.1 * x.grad.sign()), y, reduction="none")

    selector, net = EvolvedSampling(batch_ratio=0.5, warmup_epochs=0, anneal=0), Adversarial(lr=0.0)
    expected = net.losses(*dataset().tensors).detach()
    fit(selector, net, max_epochs=2)
    torch.testing.assert_close(selector.losses, expected)


def test_a_loss_that_is_not_finite_is_trained_on():
    class Broken(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            losses = F.cross_entropy(self.net(x), y, reduction="none")
            return losses.masked_fill(x[:, 0] > 1.2, torch.nan).mean()

    for make in METHODS.values():
        selector, net = make(), Broken()
        with pytest.warns(UserWarning, match="epoch 0 were NaN"):
            fit(selector, net, max_epochs=1)


def test_the_loader_and_the_batches_of_other_callbacks_are_whole():
    lengths = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            lengths.append(len(batch[0]))

    selector = EvolvedSampling(warmup_epochs=0)
    fit(selector, callbacks=[Watch(), Seen(selector)], max_epochs=1)
    assert lengths == [10] * 10
