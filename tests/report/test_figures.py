"""Figures and files, against what was put into them."""

import copy
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import trainer
from matplotlib.figure import Figure
from matplotlib.image import imread

from lightning_dataselect import InfoBatch
from lightning_dataselect.demo import DigitsData, DigitsModel
from lightning_dataselect.report import export, figures
from lightning_dataselect.report.gallery import gallery, rows_of
from lightning_dataselect.report.over_time import metric_over_time
from lightning_dataselect.state.sample_history import SampleHistoryStore
from lightning_dataselect.state.selection import Observation
from lightning_dataselect.state.training_set import TrainingSet


class Fitted:
    """The answers of a selector after a fit."""

    scores = torch.tensor([1.0, float("nan"), 3.0, 2.0])
    losses = torch.tensor([0.5, float("nan"), 0.25, 0.125])
    store = SampleHistoryStore(4)
    store["score"][:4], store["loss"][:4] = scores, losses
    store.record_logits(
        Observation(torch.tensor([0, 3]), losses[:2], torch.tensor([[0.0, 2.0]] * 2), torch.tensor([1, 0]), 5)
    )
    store.count_trained(torch.tensor([0, 3]))
    run_state = SimpleNamespace(training_set=TrainingSet())
    selected = torch.tensor([0, 2])
    weights = torch.tensor([2.0, 1.0])
    history = [{"n_backward": 4, "n_full": 4}, {"n_backward": 2, "n_full": 4}]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_holds_every_sample_and_the_kept_ones_reload(tmp_path, suffix):
    path = export.write_samples(Fitted(), tmp_path / f"samples.{suffix}")
    assert export.read_kept(path).tolist() == [0, 2]
    assert export.read_kept(path).dtype == torch.int64
    read = export.pd.read_csv if suffix == "csv" else export.pd.read_parquet
    frame = read(path)
    np.testing.assert_array_equal(frame["score"], Fitted.scores.numpy())
    np.testing.assert_array_equal(frame["loss"], Fitted.losses.numpy())
    assert frame["weight"].tolist() == [2.0, 0.0, 1.0, 0.0]
    assert frame["times_trained"].tolist() == [1, 0, 0, 1] and frame["times_dropped"].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(frame["margin"], [2.0, np.nan, np.nan, -2.0])
    assert frame["predicted"].isna().tolist() == [False, True, True, False] and frame["predicted"][3] == 1
    assert frame["first_learnt"].isna().tolist() == [False, True, True, True] and frame["first_learnt"][0] == 5
    assert frame["times_forgotten"].tolist() == [0, 0, 0, 0]
    assert frame["label"].isna().tolist() == [False, True, True, False] and frame["label"][0] == 1
    np.testing.assert_allclose(frame["confidence"], [0.880797, np.nan, np.nan, 0.119203], rtol=1e-5)
    np.testing.assert_allclose(frame["suspicion"], 1 / (1 + np.exp(frame["margin"])), rtol=1e-6)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"let it end in .csv or .parquet"):
        export.write_samples(Fitted(), tmp_path / "samples.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column index and no column selected"):
        export.read_kept(tmp_path / "other.csv")


def test_an_export_to_nowhere_is_answered_with_what_to_do(tmp_path):
    with pytest.raises(TypeError, match="export path None: give the path of a file that ends in .csv or .parquet"):
        export.write_samples(Fitted(), None)
    with pytest.raises(FileNotFoundError, match=r"export path '.*none/a\.csv': there is no folder '.*none'\. Make it"):
        export.write_samples(Fitted(), tmp_path / "none" / "a.csv")


def test_bins_hold_every_finite_score():
    scores = torch.cat([torch.randn(1000, generator=torch.Generator().manual_seed(0)), torch.tensor([torch.nan])])
    found = figures.bin_scores(scores, bins=7)
    counts, edges = np.histogram(scores[:1000].double().numpy(), bins=7)
    assert found["counts"] == counts.tolist() and found["unmeasured"] == 1
    np.testing.assert_allclose(found["edges"], edges)
    assert sum(figures.bin_scores(torch.full((3,), torch.nan))["counts"]) == 0


def test_plots_show_the_selectors_numbers():
    axes = figures.plot_selector(Fitted(), "kept_share").axes[0]
    assert axes.lines[0].get_ydata().tolist() == [1.0, 0.5]
    panel = figures.plot_selector(Fitted(), "score_histogram").axes[0]
    assert panel.patches[0].get_data().values.sum() == 3
    assert "1 unmeasured" in panel.get_title()
    with pytest.raises(ValueError, match=r"plot\('pie'\): the kinds are 'kept_share'"):
        figures.plot_selector(Fitted(), "pie")


def test_a_data_map_without_a_loss_says_so():
    unknown, nobody = torch.full((3,), torch.nan), torch.tensor([], dtype=torch.int64)
    for figure in (figures.data_map(unknown, unknown, nobody), figures.class_map(unknown, unknown, nobody)):
        assert "no sample was measured" in [text.get_text() for text in figure.axes[0].texts]


def test_a_figure_shows_itself_in_a_notebook():
    # IPython asks for this method, and takes the pixels with the size to show them at
    pixels, size = figures.plot_selector(Fitted(), "kept_share")._repr_png_()
    assert imread(BytesIO(pixels)).shape == (691, 1296, 4)
    assert size == {"width": 864, "height": 461}


def test_metric_over_time_numbers_the_epochs_where_there_is_room():
    ends = {1: 10.0, 2: 20.0, 3: 21.0, 4: 24.0, 5: 26.0, 8: 100.0}
    full = {epochs: [[(end, 0.5)]] for epochs, end in ends.items()}
    axes = metric_over_time({}, full, metric="acc", percent=True, maximize=True).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "5", "8"], "within 5 of the last one there is none"


def test_metric_over_time_ends_at_the_mean_and_draws_without_data():
    curves = {"UCB": [[(1.0, 0.5), (2.0, 0.8)], [(3.0, 0.6), (4.0, 0.9)]]}
    axes = metric_over_time(curves, {}, metric="acc", percent=True, maximize=True).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[2.0, 55.0], [3.0, 85.0]])
    low, high = axes.get_ylim()
    assert low < 80 and high > 90
    empty = metric_over_time({}, {}, metric="acc", percent=False, maximize=False)
    assert isinstance(empty, Figure)


class WithoutClasses(Fitted):
    """A fit of which losses alone are known."""

    store = SampleHistoryStore(4)
    store.count_trained(torch.tensor([3]))


def test_the_data_map_tells_kept_from_dropped_and_leaves_out_the_unmeasured():
    axes = figures.plot_selector(WithoutClasses(), "data_map").axes[0]
    kept, dropped, _ = axes.collections
    np.testing.assert_allclose(kept.get_offsets(), [[0.5, 1.0], [0.25, 3.0]])
    np.testing.assert_allclose(dropped.get_offsets(), [[0.125, 2.0]])
    _, labels = axes.get_legend_handles_labels()
    assert labels == [
        "kept in the last epoch (2)",
        "dropped in the last epoch (1)",
        "never measured, not shown (1)",
    ]


def test_the_data_map_of_an_epoch_on_everything_calls_none_kept_or_dropped():
    for figure in (figures.data_map, figures.class_map):
        axes = figure(torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.5]), torch.arange(2)).axes[0]
        assert axes.get_legend_handles_labels()[1] == ["all samples (2)"]


def test_the_data_map_is_no_diagonal_where_the_score_is_the_loss():
    selector = WithoutClasses()
    selector.scores = selector.losses
    axes = figures.plot_selector(selector, "data_map").axes[0]
    assert axes.get_ylabel() == "times trained"
    shown = np.concatenate([group.get_offsets() for group in axes.collections])
    np.testing.assert_allclose(shown[:, 0], [0.5, 0.25, 0.125])
    assert np.round(shown[:, 1]).tolist() == [0, 0, 1]


def test_with_classes_the_data_map_is_that_of_dataset_cartography():
    selector = Fitted()
    selector.store = copy.deepcopy(Fitted.store)
    again = torch.tensor([0]), Fitted.losses[:1], torch.tensor([[2.0, 0.0]]), torch.tensor([1]), 6
    selector.store.record_logits(Observation(*again))
    kept, dropped, *_ = figures.plot_selector(selector, "data_map").axes[0].collections
    high, low = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0))
    np.testing.assert_allclose(kept.get_offsets(), [[(high - low) / 2, 0.5]], rtol=1e-5)
    np.testing.assert_allclose(dropped.get_offsets(), [[0.0, low]], atol=1e-3)


class Pictured(Fitted):
    """A fit with counts of forgetting and without."""

    def __init__(self, n=6, *, classes=True):
        generator = torch.Generator().manual_seed(0)
        self.losses = torch.tensor([0.5, 4.0, float("nan"), 0.1, 2.0, 1.0])
        self.store = SampleHistoryStore(n)
        self.store["loss"][:n] = self.losses
        i, seen = torch.tensor([4, 0]), torch.rand(2, generator=generator)
        for epoch, ahead in enumerate((1.0, -1.0, 1.0, -1.0) if classes else ()):
            logits = torch.tensor([[ahead, 0.0], [1.0, 0.0]])
            self.store.record_logits(Observation(i, seen, logits, torch.tensor([0, 0]), epoch))
        self.store.count_dropped(torch.tensor([3, 3, 5]), torch.tensor([], dtype=torch.int64))


def test_the_rows_of_the_gallery_are_the_suspects_and_the_extremes():
    hardest, easiest, forgotten = rows_of(Pictured(), 2)  # no label was behind on average
    assert (hardest.indices, easiest.indices, forgotten.indices) == ([1, 4], [3, 0], [4])
    assert hardest.notes == ["loss 4", "loss 2, label 0, taken for 1"]
    assert (forgotten.name, forgotten.notes) == ("most often forgotten", ["forgotten 2x, label 0, taken for 1"])
    *_, dropped = rows_of(Pictured(classes=False), 4)
    assert (dropped.name, dropped.indices) == ("most often dropped", [3, 5])
    suspected = Pictured()
    shown = torch.tensor([5]), torch.zeros(1), torch.tensor([[0.0, 3.0]]), torch.tensor([0]), 0
    suspected.store.record_logits(Observation(*shown))
    first = rows_of(suspected, 2)[0]
    assert (first.name, first.indices) == ("probable label errors", [5])
    assert first.notes == ["95 % against its label, label 0, taken for 1"]


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5), (4, 5, 3)])
@pytest.mark.parametrize("wrap", [lambda x, i: (x, i), lambda x, i: {"label": i, "pixels": x}, lambda x, i: x.numpy()])
def test_the_gallery_shows_images(shape, wrap):
    images = [wrap(torch.arange(float(np.prod(shape))).reshape(shape) + i, i) for i in range(6)]
    found = gallery(Pictured(), images)
    shown = [axes for axes in found.axes if axes.get_visible()]
    assert [axes.get_title().split("\n")[0] for axes in shown[:2]] == ["#1", "#4"]
    assert len(shown) == 5 + 5 + 1 and all(axes.images for axes in shown)


@pytest.mark.parametrize(
    ("samples", "decode", "said"),
    [
        ([(f"costs {i} $", i) for i in range(6)], None, "costs 1 $"),
        ([{"label": i, "ids": torch.tensor([i, 7])} for i in range(6)], None, "1 7"),
        ([{"label": i, "ids": [i, 7]} for i in range(6)], lambda ids: f"decoded {ids[0]}", "decoded 1"),
        ([{"ids": torch.tensor([i, 7]), "text": f"read {i}"} for i in range(6)], None, "read 1"),
    ],
)
def test_the_gallery_shows_text(samples, decode, said):
    texts = [text.get_text() for text in gallery(Pictured(), samples, decode).axes[0].texts]
    assert texts[:3] == ["hardest", "#1  loss 4", said]
    assert gallery(Pictured(), samples, decode)._repr_png_()


def test_the_gallery_says_what_it_cannot_show():
    with pytest.raises(ValueError, match=r"Tensor \(7,\), int\) is neither an image.*Give dataset= one"):
        gallery(Pictured(), [(torch.zeros(7), 1)] * 6)
    unseen = Pictured()
    unseen.losses = torch.full((6,), torch.nan)
    with pytest.raises(ValueError, match="has seen no loss of any sample"):
        gallery(unseen, [torch.zeros(4, 4)] * 6)


def test_the_gallery_takes_the_training_set_while_it_is_there():
    data, selector = DigitsData(n_val=1700), InfoBatch()
    trainer(selector, max_epochs=2).fit(DigitsModel(), data)
    assert selector.plot("gallery").axes
    copied = copy.deepcopy(selector)  # the data set is not copied with it
    with pytest.raises(
        ValueError, match=r"the training set is no longer in memory; pass it, as plot\('gallery', dataset="
    ):
        copied.plot("gallery")
    assert copied.plot("gallery", dataset=data.train).axes
    with pytest.raises(ValueError, match=r"plot\('pie'\): the kinds are .* and 'gallery'"):
        selector.plot("pie")


def test_no_two_of_many_series_look_alike():
    looks = {tuple(figures.style(i).items()) for i in range(24)}
    assert len(looks) == 24
