"""Fits on several train loaders at once, of which one is selected from."""

import warnings

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from helpers import Hardest, Net, Seen, Shares, dataset, fit, loader, same_weights
from lightning.pytorch.utilities import CombinedLoader
from ranks import on_ranks
from resume_helpers import SaveAt
from streams import Placed, Stream
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_dataselect import (
    EL2N,
    KAKURENBO,
    AutoAssist,
    DivBS,
    EvolvedSampling,
    Frontier,
    GraNd,
    InfoBatch,
    RHOLoss,
    SwiftLearn,
)

QUIET = pytest.mark.filterwarnings("ignore:Dropping samples of loader")


def plain(n=60, batch_size=10, seed=7, loader_class=DataLoader, **options):
    """Inputs without labels."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return loader_class(TensorDataset(x), batch_size, **options)


def both(n=100, batch_size=10, m=60, **options):
    return {"labelled": loader(n, batch_size), "unlabelled": plain(m, **options)}


class Semi(Net):
    """A cross entropy of labelled samples, and what is asked of the unlabelled ones."""

    def __init__(self, kind="mean", **options):
        super().__init__(**options)
        self.kind, self.met = kind, []

    def parts(self, batch):
        return batch["labelled"], batch["unlabelled"][0]

    def training_step(self, batch, batch_idx):
        (x, y), u = self.parts(batch)
        self.met.append((x, u, self.trainer.current_epoch))
        return getattr(self, self.kind)(x, y, u)

    def mean(self, x, y, u):
        return F.cross_entropy(self.net(x), y) + 0.5 * self.net(u).square().mean()

    def others_first(self, x, y, u):
        logits = self.net(u)
        return 0.5 * F.cross_entropy(logits, logits.detach().argmax(1)) + F.cross_entropy(self.net(x), y)

    def by_hand(self, x, y, u):
        logits = self.net(u)
        pseudo = F.cross_entropy(logits, logits.detach().argmax(1), reduction="none")
        confident = logits.detach().softmax(1).amax(1) > 0.4
        own = F.cross_entropy(self.net(x), y, reduction="none")
        return (pseudo * confident).mean() + own.mean()

    def joined(self, x, y, u):
        """As FixMatch has it: one call of the model for both."""
        logits = self.net(torch.cat([x, u, u + 0.1 * torch.randn_like(u)]))
        weak, strong = logits[len(x) :].chunk(2)
        unlabelled = F.cross_entropy(strong, weak.detach().softmax(1), reduction="none").mean()
        return F.cross_entropy(logits[: len(x)], y) + unlabelled

    def one_mean(self, x, y, u):
        logits = self.net(torch.cat([x, u]))
        targets = torch.cat([y, logits[len(x) :].detach().argmax(1)])
        return F.cross_entropy(logits, targets)

    def through_numpy(self, x, y, u):
        return F.cross_entropy(self.net(torch.from_numpy(x.numpy())), y) + self.net(u).square().mean()

    def noise(self, x, y, u):
        return F.cross_entropy(self.net(x), y) + self.net(torch.randn(len(x), 8)).square().mean()

    def only_others(self, x, y, u):
        return self.net(u).square().mean()


KINDS = ["mean", "others_first", "by_hand", "joined", "through_numpy", "noise"]


def losses_of(net, n=100):
    x, y = dataset(n).tensors
    with torch.no_grad():
        return F.cross_entropy(net.net(x), y, reduction="none")


@QUIET
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(10, 60), (10, 42)], ids=["sizes alike", "the last smaller"])
def test_losses_are_those_of_the_named_loaders_samples(kind, sizes):
    """Both loaders have batches of ten: no size tells whose losses are whose."""
    selector, net = Hardest(loader="labelled", warmup_epochs=1), Semi(kind, lr=0.0)
    fit(selector, net, both(batch_size=sizes[0], m=sizes[1]), max_epochs=2)
    torch.testing.assert_close(selector.losses, losses_of(net), atol=1e-5, rtol=1e-4)


@QUIET
@pytest.mark.parametrize("kind", ["mean", "others_first", "by_hand", "joined"])
def test_logits_and_weights_are_those_of_the_named_loaders_samples(kind):
    selector, net = EL2N(loader="labelled", warmup_epochs=1), Semi(kind, lr=0.0)
    fit(selector, net, both(), max_epochs=2)
    x, y = dataset().tensors
    with torch.no_grad():
        error = (net.net(x).softmax(1) - F.one_hot(y, 3)).norm(dim=1)
    torch.testing.assert_close(selector.scores, error, atol=1e-5, rtol=1e-4)


@QUIET
@pytest.mark.parametrize("kind", ["mean", "others_first", "by_hand"])
def test_weights_enter_the_named_loaders_losses_alone(kind):
    """One step of SGD is that of the weighted losses and of the other loader's as it was."""

    class Once(Semi):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.5)

    class Weighted(Shares):
        weighted = True

    selector, net, reference = Weighted(0.5, loader="labelled"), Once(kind), Once(kind)
    fit(selector, net, both(), max_epochs=1, max_steps=3)
    x_of = {tuple(x.tolist()): i for i, (x, _) in enumerate(dataset())}
    weights = torch.full((100,), torch.nan)
    weights[selector.selected] = selector.weights
    optimizer = reference.configure_optimizers()
    for x, u, _ in net.met[-3:]:
        own = torch.tensor([x_of[tuple(row)] for row in x.tolist()])
        losses = F.cross_entropy(reference.net(x), dataset().tensors[1][own], reduction="none")
        others = getattr(reference, kind)(x, dataset().tensors[1][own], u) - losses.mean()
        optimizer.zero_grad()
        (others + (losses * weights[own]).mean()).backward()
        optimizer.step()
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@QUIET
def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(ValueError, match="cross_entropy is computed from the samples of several train loaders at once"):
        fit(Hardest(loader="labelled"), Semi("one_mean"), both())
    with pytest.raises(ValueError, match="None of the step's losses is computed from the samples of the named"):
        fit(Hardest(loader="labelled"), Semi("only_others"), both())


# ---- which loader, and which batches -----------------------------------------------------------------------------


def test_no_name_says_which_line_to_write():
    words = r"2 train loaders were given \(dict: 'labelled', 'unlabelled'\).*Say which: InfoBatch\(loader='labelled'\)"
    with pytest.raises(TypeError, match=words):
        fit(InfoBatch(), Semi(), both())
    with pytest.raises(TypeError, match=r"2 train loaders were given \(list: 0, 1\).*InfoBatch\(loader=0\)"):
        fit(InfoBatch(), Semi(), list(both().values()))


@pytest.mark.parametrize("none", [[], {}, CombinedLoader([])], ids=lambda none: type(none).__name__)
def test_no_loader_at_all(none):
    with pytest.raises(TypeError, match=f"No train loader was given, but an empty {type(none).__name__}"):
        fit(InfoBatch(), Semi(), none)


@pytest.mark.parametrize("name", ["other", 0])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match=f"loader={name!r} names no train loader: there are 'labelled', 'unlabelled'"):
        fit(InfoBatch(loader=name), Semi(), both())
    with pytest.raises(ValueError, match=f"loader={name!r} names one of several train loaders, but there is one"):
        fit(InfoBatch(loader=name))
    with pytest.raises(TypeError, match="loader=True must be the key"):
        InfoBatch(loader=True)


def test_loaders_within_loaders_are_named_at_the_top_alone():
    with pytest.raises(ValueError, match="loader='more' is a list, not one train loader"):
        fit(InfoBatch(loader="more"), Semi(), {"more": [loader(), loader()]})


@QUIET
@pytest.mark.parametrize("given", [list, tuple, CombinedLoader], ids=lambda given: given.__name__)
def test_by_position(given):
    class Listed(Semi):
        def parts(self, batch):
            return batch[1], batch[0][0]

    selector, net = Hardest(loader=1, prune_ratio=0.5), Listed(lr=0.0)
    before = plain(), loader()
    fit(selector, net, given(list(before)), max_epochs=2)
    torch.testing.assert_close(selector.losses, losses_of(net))
    assert before[1].sampler.__class__.__name__ == "RandomSampler"


def mode_of(mode, **options):
    return CombinedLoader(both(**options), mode)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("mode", "m", "lengths"),
    [
        ("max_size_cycle", 60, [10, 6, 6]),  # 5 batches are kept of 10; the others have 6
        ("max_size_cycle", 30, [10, 5, 5]),
        ("max_size", 60, [10, 6, 6]),
        ("max_size", 30, [10, 5, 5]),
        ("min_size", 60, [6, 5, 5]),
        ("min_size", 30, [3, 3, 3]),
    ],
)
def test_every_mode_combines_what_is_kept(mode, m, lengths, workers):
    class Any(Semi):
        def training_step(self, batch, batch_idx):
            own, u = batch["labelled"], batch["unlabelled"]
            self.met.append((own, u, self.trainer.current_epoch))
            loss = 0.0 if own is None else F.cross_entropy(self.net(own[0]), own[1])
            return loss if u is None else loss + self.net(u[0]).square().mean()

    class Batches(L.Callback):
        seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            samples = None if selector.batch is None else selector.batch.indices.tolist()
            self.seen.append((trainer.current_epoch, samples, batch["labelled"]))

    selector, net, batches = Shares(1.0, 0.5, 0.5, loader="labelled", warmup_epochs=1), Any(lr=0.0), Batches()
    batches.seen = []
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    train = {"labelled": loader(100, 10, **options), "unlabelled": plain(m)}
    fit(selector, net, CombinedLoader(train, mode), callbacks=[batches], max_epochs=3)
    assert [sum(epoch == e for _, _, e in net.met) for epoch in range(3)] == lengths
    rows = dataset().tensors[0]
    for _, samples, own in batches.seen:
        if own is None:
            assert samples is None and mode == "max_size"
        else:
            assert torch.equal(rows[samples], own[0])
    unlabelled = plain(m).dataset.tensors[0]
    for epoch, length in enumerate(lengths):
        met = torch.cat([u[0] for _, u, e in net.met if e == epoch and u is not None])
        if mode == "max_size_cycle":  # in order, over and over
            assert torch.equal(met, unlabelled.repeat(4, 1)[: 10 * length])
        else:
            assert torch.equal(met, unlabelled[: 10 * length])
    kept = [i for e, samples, own in batches.seen if e == 2 for i in samples or []]
    assert set(kept) <= set(selector.selected.tolist())
    torch.testing.assert_close(
        selector.losses[~selector.losses.isnan()], losses_of(net)[~selector.losses.isnan()], atol=1e-5, rtol=1e-4
    )


def test_what_is_kept_comes_again_in_another_order():
    selector, net = Shares(0.3, loader="labelled"), Semi()
    seen = Seen(selector)
    with pytest.warns(UserWarning, match="Dropping samples of loader='labelled' makes no epoch shorter"):
        fit(selector, net, {"labelled": loader(), "unlabelled": plain(120)}, callbacks=[seen], max_epochs=1)
    drawn = seen.of_epoch(0)
    turns = [drawn[start : start + 30] for start in range(0, 120, 30)]
    assert len(drawn) == 120 and all(sorted(turn) == selector.selected.tolist() for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 4
    assert selector.column("times_trained").sum() == 120


def test_sequential_is_lightnings_to_refuse():
    with pytest.raises(ValueError, match='does not support the `CombinedLoader.mode="sequential"'):
        fit(Hardest(loader="labelled"), Semi(), mode_of("sequential"))


@pytest.mark.parametrize(("limit", "steps"), [(4, [4, 4]), (0.5, [5, 3])])
def test_limited_batches(limit, steps):
    selector, net = Shares(1.0, 0.5, loader="labelled", warmup_epochs=1), Semi()
    fit(selector, net, both(), max_epochs=2, limit_train_batches=limit)
    assert [sum(epoch == e for _, _, e in net.met) for epoch in range(2)] == steps


def test_a_loader_without_a_length_needs_a_limit():
    def train():
        return {"labelled": loader(), "unlabelled": DataLoader(Stream(500), 10)}

    with pytest.raises(TypeError, match="The train loader at position 1 has no length"):
        fit(Hardest(loader="labelled"), Semi(), train())
    selector, net = Hardest(loader="labelled", prune_ratio=0.5), Semi(lr=0.0)
    with pytest.warns(UserWarning, match="makes no epoch shorter"):
        fit(selector, net, train(), max_epochs=2, limit_train_batches=12)
    assert len(net.met) == 24
    torch.testing.assert_close(selector.losses, losses_of(net))


# ---- within batches, and on streams ------------------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("kind", ["mean", "others_first", "joined"])
def test_the_named_loaders_part_of_a_batch_is_cut(kind):
    selector, net = EvolvedSampling(loader="labelled", batch_ratio=0.4, anneal=0.0), Semi(kind)
    fit(selector, net, both(), max_epochs=2)
    trained = [(len(x), len(u)) for x, u, epoch in net.met if epoch == 1 and net.training]
    assert trained.count((4, 10)) == 10 and {u for _, u in trained} == {10}
    assert [(r["n_trained"], r["n_left_out"]) for r in selector.history] == [(100, 0), (40, 60)]


@QUIET
def test_an_assistant_reads_ahead_of_the_named_loader():
    selector, net = AutoAssist(loader="labelled", base_prob=0.05, synchronous=True), Semi()
    fit(selector, net, both(m=150), max_epochs=3)
    assert len(net.met) == 45 and {len(u) for _, u, _ in net.met} == {10}
    assert selector.history[-1]["n_trained"] < 150


@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size", "min_size"])
def test_a_stream_among_several_loaders(mode):
    class Any(Semi):
        def training_step(self, batch, batch_idx):
            own, u = batch["labelled"], batch["unlabelled"]
            self.met.append((own and len(own[0]), u and len(u[0]), self.trainer.current_epoch))
            loss = 0.0 if own is None else F.cross_entropy(self.net(own[0]), own[1])
            return loss if u is None else loss + self.net(u[0]).square().mean()

    selector, net = EvolvedSampling(loader="labelled", batch_ratio=0.5, anneal=0.0), Any()
    train = {"labelled": DataLoader(Stream(60), 10), "unlabelled": plain(80)}
    fit(selector, net, CombinedLoader(train, mode), max_epochs=2)
    offered = {"max_size_cycle": 80, "max_size": 60, "min_size": 60}[mode]
    assert [(r["n_trained"], r["n_left_out"]) for r in selector.history] == [(offered, 0), (offered / 2, offered / 2)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("at", [3, 5, 7])
@pytest.mark.parametrize("mode", ["min_size", "max_size_cycle"])
@pytest.mark.parametrize("lengths", [(96, 40), (40, 96), (88, 88)], ids=str)
def test_streams_among_several_loaders_go_on_where_they_were(lengths, mode, at, tmp_path):
    """Lightning reads a batch of each ahead; in one mode it begins the shorter one again, as often as it takes."""

    class Both(Net):
        def __init__(self, seed=0):
            super().__init__(seed=seed)
            self.met = []

        def training_step(self, batch, batch_idx):
            own, other = batch["labelled"], batch["other"]
            self.met.append((batch_idx, own["id"], other["id"]))
            return F.cross_entropy(self.net(own["x"]), own["y"]) + 0.1 * self.net(other["x"]).square().mean()

    class SaveAt(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == saved_at:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def go(net, **more):
        own, other = (StatefulDataLoader(Placed(n, world_size=1), 8) for n in lengths)
        train = CombinedLoader({"labelled": own, "other": other}, mode)
        fit(EvolvedSampling(loader="labelled", batch_ratio=0.5, anneal=0.0), net, train, max_epochs=1, **more)

    n_batches = {"min_size": min, "max_size_cycle": max}[mode](lengths) // 8
    saved_at = min(at, n_batches - 2)
    net, resumed = Both(), Both(seed=9)
    go(net, callbacks=[SaveAt()])
    go(resumed, ckpt_path=tmp_path / "within.ckpt")
    assert resumed.met and resumed.met == [one for one in net.met if one[0] > saved_at]
    assert same_weights(resumed, net)


def test_an_assistant_on_a_stream_among_several_loaders_is_refused():
    train = {"labelled": DataLoader(Stream(60), 10), "unlabelled": plain(80)}
    with pytest.raises(TypeError, match="AutoAssist reads ahead of the training, and loader='labelled' is a stream"):
        fit(AutoAssist(loader="labelled"), Semi(), train)


@pytest.mark.parametrize(
    "make", [KAKURENBO, GraNd, RHOLoss, DivBS, lambda loader: SwiftLearn(outputs="net.2", loader=loader)]
)
def test_methods_that_need_one_loader_say_so(make):
    with pytest.raises(TypeError, match="in which the other train loaders have no batch"):
        fit(make(loader="labelled"), Semi(), both())


@pytest.mark.parametrize(
    ("make", "way_out"),
    [
        (lambda **more: InfoBatch(budget=0.5, **more), "Leave budget out"),
        (Frontier, "Take a method that has a prune_ratio"),
    ],
)
def test_a_budget_is_refused(make, way_out):
    with pytest.raises(ValueError, match=f"those of the other train loaders are not counted. {way_out}"):
        fit(make(loader="labelled"), Semi(), both())


# ---- manual optimization -----------------------------------------------------------------------------------------


class Translator(L.LightningModule):
    """Two generators and two critics, for two domains whose loaders have batches of one size."""

    def __init__(self, kind="apart"):
        super().__init__()
        self.automatic_optimization = False
        self.kind = kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.to_b, self.to_a = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
            self.critic_a, self.critic_b = torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        (a, _), (b,) = batch["a"], batch["b"]
        generators, critics = self.optimizers()
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        generators.zero_grad()
        real = torch.ones(len(a), 1)
        judge = F.binary_cross_entropy_with_logits
        loss = judge(self.critic_b(fake_b), real) + judge(self.critic_a(fake_a), real)
        if self.kind == "together":
            loss = loss + F.l1_loss(torch.cat([self.to_a(fake_b), self.to_b(fake_a)]), torch.cat([a, b]))
        else:
            loss = loss + F.l1_loss(self.to_a(fake_b), a) + 2 * F.l1_loss(self.to_b(fake_a), b)
        self.manual_backward(loss)
        generators.step()
        critics.zero_grad()
        self.manual_backward(judge(self.critic_b(b), real) + judge(self.critic_b(fake_b.detach()), 1 - real))
        self.manual_backward(judge(self.critic_a(fake_a.detach()), 1 - real))
        critics.step()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        generators = [*self.to_b.parameters(), *self.to_a.parameters()]
        critics = [*self.critic_a.parameters(), *self.critic_b.parameters()]
        return torch.optim.SGD(generators, 0.0), torch.optim.SGD(critics, 0.0)


@QUIET
def test_a_gan_under_manual_optimization():
    selector, net = Hardest(loader="a"), Translator()
    fit(selector, net, {"a": loader(), "b": plain()}, max_epochs=2)
    a = dataset().tensors[0]
    with torch.no_grad():
        fake = net.to_b(a)
        judged = net.critic_b(fake).squeeze(1)
        adversarial, told = F.softplus(-judged), F.softplus(judged)
        cycle = (net.to_a(fake) - a).abs().mean(1)
    torch.testing.assert_close(selector.losses, adversarial + cycle + told)


@QUIET
def test_a_gan_whose_losses_cannot_be_told_apart_is_refused():
    with pytest.raises(ValueError, match="l1_loss is computed from the samples of several train loaders at once"):
        fit(Hardest(loader="a"), Translator("together"), {"a": loader(), "b": plain()})


# ---- resumed, and on two ranks -----------------------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
@pytest.mark.parametrize("batch_idx", [2, 8])
def test_resumes_within_an_epoch(mode, batch_idx, tmp_path):
    def train():
        others = plain(90 if mode == "max_size_cycle" else 300, loader_class=StatefulDataLoader)
        return CombinedLoader({"labelled": loader(300 if mode == "min_size" else 100), "unlabelled": others}, mode)

    path = tmp_path / "within.ckpt"
    selector, net = InfoBatch(loader="labelled", anneal=0.0), Semi()
    fit(selector, net, train(), callbacks=[SaveAt(path, 2, batch_idx)])
    again, resumed = InfoBatch(loader="labelled", anneal=0.0), Semi(seed=9)
    fit(again, resumed, train(), ckpt_path=path)
    assert same_weights(net, resumed) and torch.equal(again.losses.nan_to_num(-1), selector.losses.nan_to_num(-1))


@QUIET
def test_other_loaders_that_begin_anew_are_said(tmp_path):
    path = tmp_path / "within.ckpt"
    fit(InfoBatch(loader="labelled"), Semi(), both(), callbacks=[SaveAt(path, 1, 3)], max_epochs=2)
    with pytest.warns(UserWarning, match="the other train loaders start from their beginning"):
        fit(InfoBatch(loader="labelled"), Semi(), both(), ckpt_path=path, max_epochs=2)


@QUIET
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("mode", "lengths", "at", "is_said"),
    [
        ("max_size", (64, 20), 1, False),  # the other loader has another batch
        ("max_size", (64, 20), 4, True),
        ("max_size", (20, 64), 4, True),
        ("max_size", (64, 20), 7, False),  # the epoch is over
        ("max_size_cycle", (64, 20), 4, False),
    ],
)
def test_a_loader_that_had_ended_before_the_epoch_starts_again_and_that_is_said(mode, lengths, at, is_said, tmp_path):
    """In the mode in which loaders end before the epoch does."""

    class Both(Net):
        def training_step(self, batch, batch_idx):
            self.met.append((self.trainer.current_epoch, *(batch[name] is not None for name in ("own", "other"))))
            there = [batch[name] for name in ("own", "other") if batch[name] is not None]
            return sum(F.cross_entropy(self.net(x), y) for x, y in there)

    def go(**more):
        own, other = (StatefulDataLoader(Stream(n), 8) for n in lengths)
        selector, net = EvolvedSampling(loader="own", batch_ratio=0.5, anneal=0.0), Both()
        net.met = []
        fit(selector, net, CombinedLoader({"own": own, "other": other}, mode), max_epochs=2, **more)
        return net.met

    path = tmp_path / "within.ckpt"
    through = go(callbacks=[SaveAt(path, 0, at)])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resumed = go(ckpt_path=path)
    said = any("had already ended" in str(warning.message) for warning in told)
    assert (said, resumed == through[at + 1 :]) == (is_said, not is_said)


def on_one_rank(mode, **spread):
    selector, net = InfoBatch(loader="labelled", anneal=0.0), Semi(lr=0.0)
    seen = Seen(selector)
    fit(selector, net, mode_of(mode, m=90), callbacks=[seen], max_epochs=3, **spread)
    return {
        "losses": selector.losses.tolist(),
        "true": losses_of(net).tolist(),
        "steps": [sum(epoch == e for _, _, e in net.met) for epoch in range(3)],
        "others": sorted(round(float(u[0]), 5) for _, part, e in net.met if e == 0 for u in part),
        "own": seen.of_epoch(2),
        "counts": [(r["n_selected"], r["n_trained"]) for r in selector.history],
    }


@QUIET
@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
def test_two_ranks(mode, tmp_path):
    first, second = on_ranks(on_one_rank, 2, tmp_path / "ranks", mode=mode)
    assert first["losses"] == second["losses"] and first["counts"] == second["counts"]
    torch.testing.assert_close(torch.tensor(first["losses"]), torch.tensor(first["true"]), atol=1e-5, rtol=1e-4)
    assert first["steps"] == second["steps"]
    assert not set(first["own"]) & set(second["own"]) - {100}
    assert not set(first["others"]) & set(second["others"])
