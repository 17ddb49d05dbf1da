"""Every score, and scores from a file, with every sampler: fits whose choice NumPy makes again from the scores."""

import json
import math

import numpy as np
import pytest
from matrix_settings import N, Tiny, fit, samples
from newer_methods import Regressor

from lightning_dataselect import ScoreSelector
from lightning_dataselect.cli.main import main
from lightning_dataselect.methods.parts import SAMPLERS, SCORES, make_sampler, make_score

MEASURED = {
    "loss": 1, "el2n": 1, "grand": 1, "forgetting": 2, "margin": 1, "aum": 2, "dual(window=2)": 2, "tdds(window=3)": 3,
}  # fmt: skip
FILE = "a file"


def test_the_grid_holds_all_there_is():
    assert [text.partition("(")[0] for text in MEASURED] == list(SCORES)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Scores of an earlier fit."""
    selector = ScoreSelector(score="el2n", warmup_epochs=1)
    fit(selector, max_epochs=2)
    path = tmp_path_factory.mktemp("earlier") / "scores.csv"
    selector.export(path)
    return path


def clashes(score, sampler):
    """Return whether a sampler draws by a score that may be below zero."""
    return score in ("margin", "aum") and sampler in ("proportional", "beta")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("score", [*MEASURED, FILE])
def test_each_keeps_its_share_and_what_numpy_says(score, sampler, request):
    arguments = {"sampler": sampler, "prune_ratio": 0.5, "whole_batches": False}
    if clashes(score, sampler):
        said = f"sampler='{sampler}' draws by the score as a weight, but score='{score}' has values below zero"
        with pytest.raises(ValueError, match=said):
            ScoreSelector(score=score, **arguments)
        return
    if score == FILE:
        selector = ScoreSelector(scores=str(request.getfixturevalue("file")), **arguments)
        epochs = 1 if sampler in ("beta", "class_quota") else 0  # in which what they need besides is measured
    else:
        epochs = 0 if sampler == "uniform" else MEASURED[score]
        selector = ScoreSelector(score=score, warmup_epochs=epochs, **arguments)
    assert selector.warmup_epochs == epochs
    fit(selector, max_epochs=epochs + 2)
    assert [record["n_selected"] for record in selector.history] == [N] * epochs + [N // 2] * 2
    kept = selector.selected.numpy()
    assert len(set(kept.tolist())) == N // 2 and kept.min() >= 0 and kept.max() < N
    if sampler == "uniform":
        assert score == FILE or selector.scores.isnan().all(), "no score is measured that nobody reads"
        return
    scores = selector.scores.double().numpy()
    assert np.isfinite(scores).all() and len(set(scores)) > 1
    ORACLES[sampler](scores, kept, samples().tensors[1].numpy())


# ---- what each sampler keeps, of scores (N,), with samples of equal scores as good as each other


def highest(scores, kept, targets):
    assert sorted(scores[kept]) == sorted(scores)[-len(kept) :]


def lowest(scores, kept, targets):
    assert sorted(scores[kept]) == sorted(scores)[: len(kept)]


def window(scores, kept, targets):
    above = math.floor(0.1 * N)
    assert sorted(scores[kept]) == sorted(scores)[-len(kept) - above : -above]


def proportional(scores, kept, targets):
    dropped = np.setdiff1d(np.arange(N), kept)
    assert (scores[kept] > 0).all() or (scores[dropped] == 0).all(), "a weight of zero comes when nothing else is left"


def stratified(scores, kept, targets):
    rest = sorted(scores)[: N - math.floor(0.1 * N)]
    edges = np.linspace(rest[0], rest[-1], 51)[1:-1]
    sizes = np.bincount(np.digitize(rest, edges), minlength=50)
    assert scores[kept].max() <= rest[-1]
    expected, left = np.zeros(50, int), len(kept)
    for done, stratum in enumerate(np.argsort(sizes, kind="stable")):
        expected[stratum] = min(sizes[stratum], left // (50 - done))
        left -= expected[stratum]
    # which of two strata of equal size has one more is a matter of their order alone
    assert sorted(np.bincount(np.digitize(scores[kept], edges), minlength=50)) == sorted(expected)


def class_quota(scores, kept, targets):
    """All were in the last subset, so that each class has the same loss: budgets go by the root of the size."""
    sizes = np.bincount(targets)
    share = np.sqrt(sizes)
    low, high = 0.0, float(N)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(sizes, middle * share).sum() < len(kept) else (low, middle)
    found = np.bincount(targets[kept], minlength=len(sizes))
    assert (np.abs(found - np.minimum(sizes, high * share)) < 1 + 1e-9).all()
    smallest, largest = sizes.argmin(), sizes.argmax()
    assert found[smallest] / sizes[smallest] > found[largest] / sizes[largest]


ORACLES = {
    "highest": highest, "lowest": lowest, "window": window, "proportional": proportional, "beta": proportional,
    "stratified": stratified, "class_quota": class_quota,
}  # fmt: skip


# ---- on the command line

DIGITS = """
model: {class_path: lightning_dataselect.demo.DigitsModel, init_args: {width: 8}}
data: {class_path: lightning_dataselect.demo.DigitsData, init_args: {n_val: 1600}}
trainer: {accelerator: cpu}
"""


def test_a_sample_of_the_grid_through_compare(tmp_path):
    config, n, kept = tmp_path / "exp.yaml", 197, 49  # a quarter of all
    config.write_text(DIGITS)
    combined = {
        "sampler='uniform', warmup_epochs=0": 0,
        "score='dual(window=2)', sampler='stratified(cutoff=0.3)', warmup_epochs=2": 2,
        "score='tdds(window=3)', sampler='class_quota', warmup_epochs=3": 3,
        "score='el2n', sampler='beta(exponent=2)', warmup_epochs=1": 1,
    }
    methods = {f"ScoreSelector({text}, whole_batches=False)": epochs for text, epochs in combined.items()}
    options = ["--config", str(config), "--methods", ",".join(["full", *methods]), "--prune-ratio", "0.75"]
    assert main(["compare", *options, "--seeds", "1", "--epochs", "4", "--out", str(tmp_path / "out")]) == 0
    runs = {run["method"]: run for run in json.loads((tmp_path / "out" / "results.json").read_text())["runs"]}
    for method, measured in methods.items():
        assert runs[method]["kept"] == pytest.approx([1.0] * measured + [kept / n] * (4 - measured), abs=1e-6)


# ---- what is missing


class OwnLosses(Tiny):
    """Hands its losses over, without what they were made of."""

    def training_step(self, batch, batch_idx):
        losses = (self.model(batch[0]).logsumexp(1) - self.model(batch[0])[:, 0]).square()
        return {"loss": losses.mean(), "per_sample": losses}


def refusal(selector, module):
    with pytest.raises(ValueError) as raised:
        fit(selector, module)
    assert module.trainer.global_step <= 1, "on the first batch"
    return str(raised.value)


@pytest.mark.parametrize("score", [text for text in MEASURED if text != "loss"])
def test_a_score_of_classes_is_refused_on_the_first_batch_of_a_regression(score):
    user = type(make_score(score)).__name__.removesuffix("Score").replace("Margin", "The margin")
    said = refusal(ScoreSelector(score=score, warmup_epochs=3), Regressor())
    assert f"{user} needs the logits and targets of each sample, but no classification loss" in said


@pytest.mark.parametrize("sampler", ["beta", "class_quota"])
@pytest.mark.parametrize(("module", "options"), [(Regressor, {}), (OwnLosses, {"sample_loss": "per_sample"})])
def test_a_sampler_of_classes_is_refused_where_none_are_seen(sampler, module, options):
    said = refusal(ScoreSelector(sampler=sampler, **options), module())
    assert f"sampler='{sampler}' needs the " in said and "no classification loss" in said
    assert make_sampler(sampler).columns()
