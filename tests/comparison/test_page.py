"""The report in a browser: it reads at every width, in light and in dark, and needs no network."""

from dataclasses import replace

import pytest
from browser import CHROMIUM, ask
from comparison_records import EPOCHS, pruned, record

from lightning_dataselect.comparison.findings.advice import advise
from lightning_dataselect.comparison.findings.summary import summarise
from lightning_dataselect.comparison.plans.outcome import Outcome
from lightning_dataselect.comparison.plans.settings import Settings
from lightning_dataselect.comparison.plans.spec import parse_methods
from lightning_dataselect.comparison.result import Comparison
from lightning_dataselect.comparison.runs.records import Failure
from lightning_dataselect.comparison.showing.pictures import places
from lightning_dataselect.comparison.tasks.config_task import ConfigTask

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
LONG = "my_package.selection.MyVeryOwnMethod(every_n_epochs=2, uncertainty='cross_entropy', warmup_epochs=3)"
SAMPLES = """{"dropped": [{"learnt": 0.1, "contradicted": 0.05, "not seen yet": 0.0}], "sure": "confidence",
"map": [[0.9, 0.1, 0.0], [0.2, 0.3, 0.7]], "specimens": [{"name": "probable label errors", "items": [
{"index": 3, "loss": 4.2, "label": "cat", "predicted": "dog", "text": "a very long text <b> & so on"},
{"index": 4, "loss": 4.1, "target": 2.5, "predicted": 1.5, "numbers": "1, 2, 3, 4, 5, 6, \\u2026"}]}]}"""
DECISIONS = """{"dropped": [], "map": [], "sure": "confidence", "specimens": [], "decisions": [{"passes": 2, "epoch": 0,
"learnt": true, "contradicted": true, "memorizes": true, "n_left_out": 30, "n_contradicted": 10, "held_out":
{"loss": 1.25, "control_loss": 0.75}, "evidence":
{"learnt_share": 0.4, "above_share": 0.2, "persistence": 0.9, "held_back_ratio": 1.2, "held_back_error": 0.03}}]}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    runs = []
    for seed, value in enumerate((0.90, 0.91, 0.92)):
        runs += [record("full", seed, value, seconds=10.0)]
        runs += [record("short", seed, value - 0.02 - 0.001 * seed, epochs=5, seconds=5.0)]
        runs += [pruned("UCB", seed, value + 0.01, seconds=5.0), pruned("random", seed, value - 0.1, seconds=6.0)]
        runs += [replace(pruned("UCB", seed, value - 0.01, seconds=12.0), method=LONG)]
    outcome = Outcome(EPOCHS, runs, [Failure(LONG, 3, "the sky is falling", "/a/very/long/path/" * 6 + "log")])
    methods = parse_methods("full,short,UCB,random")
    settings = Settings([*methods, replace(methods[2], label=LONG)], [0, 1, 2], 0.5, "val_acc", True, out)
    summary = summarise(outcome, settings)
    assert summary.verdicts["UCB"] == "better" and summary.verdicts["random"] == "worse"
    (out / "runs").mkdir()
    (out / "runs" / "UCB-0.samples.json").write_text(SAMPLES)
    (out / "runs" / "random-0.samples.json").write_text(DECISIONS)
    task = ConfigTask({"model": {"class_path": "a.Model", "init_args": {"name": "x" * 200}}}, EPOCHS)
    made = Comparison(task, settings, outcome, summary, advise(summary, outcome, settings))
    return made.save(out).read_text()


LAYOUT = """
const wide = [...page.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre") && e.getClientRects().length
  && e.getBoundingClientRect().right > view.innerWidth + 0.5).map(e => e.tagName + "." + e.className);
const clipped = [...page.querySelectorAll("td, th, li, dd, p")].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.textContent);
const texts = [...page.querySelectorAll("svg text")].filter(t => t.getClientRects().length);
const outside = texts.filter(t => { const a = t.getBoundingClientRect(), b = t.closest("svg").getBoundingClientRect();
  return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1; });
const sizes = texts.map(t => t.getBoundingClientRect().height);
const scroll = page.querySelector(".scroll");
scroll.scrollLeft = 10000;
const name = page.querySelector("tbody th").getBoundingClientRect(), box = scroll.getBoundingClientRect();
return {width: page.documentElement.scrollWidth, wide, clipped, outside: outside.map(t => t.textContent),
  smallest: Math.min(...sizes), n_charts: new Set(texts.map(t => t.closest("svg"))).size,
  fixed: Math.abs(name.left - box.left) < 3, scrolls: scroll.scrollWidth > scroll.clientWidth};
"""


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_nothing_is_cut_off_at_any_width(page, tmp_path, width):
    found = ask(page, LAYOUT, tmp_path, width=width)
    assert found["width"] <= width, found["wide"]
    assert not found["wide"] and not found["clipped"] and not found["outside"]
    assert found["n_charts"] == 5 and found["smallest"] >= 11
    assert found["fixed"] and found["scrolls"] == (width == 390) or width == 820


CONTRAST = """
const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const read = text => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05); };
const behind = e => { for (; e; e = e.parentElement) { const c = read(view.getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const low = [], seen = [];
for (const e of page.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
  const style = view.getComputedStyle(e), inside = e.classList.contains("in");
  const back = inside ? read(view.getComputedStyle(e.previousElementSibling).fill) : behind(e);
  const value = ratio(read(e.closest("svg") ? style.fill : style.color), back);
  seen.push(value);
  if (value < 4.5) low.push([e.tagName, e.textContent.slice(0, 30), value]);
}
return {low, n: seen.length, paper: read(view.getComputedStyle(page.body).backgroundColor)};
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out(page, tmp_path, dark):
    found = ask(page, CONTRAST, tmp_path, dark=dark)
    assert (sum(found["paper"][:3]) < 200) is dark
    assert found["n"] > 100 and not found["low"]


ACTIONS = """
const rows = () => [...page.querySelector("table").querySelectorAll("tbody tr")].filter(r => !r.hidden);
const names = () => rows().map(r => r.cells[0].textContent.trim());
const before = names();
const heads = [...page.querySelectorAll("thead button")];
heads[2].click();
const down = names();
heads[2].click();
const up = names();
page.querySelector("[data-hides=short]").click();
page.querySelector("[data-hides=worse]").click();
return {before, down, up, hidden: names(), sorted: page.querySelector("[aria-sort]").textContent};
"""


def test_rows_are_sorted_and_hidden_without_a_network(page, tmp_path):
    found = ask(page, ACTIONS, tmp_path)
    assert found["before"][0].endswith("full") and len(found["before"]) == 5
    assert found["down"][0].endswith("UCB") and found["down"][-1].endswith("random")
    assert found["up"] == found["down"][::-1] and "val_acc" in found["sorted"]
    assert not any("short" in name or "random" in name for name in found["hidden"]) and len(found["hidden"]) == 2


def test_the_page_is_whole_by_itself(page):
    assert "http" not in page.replace("http://www.w3.org", "") and "src=" not in page.replace('src="data:', "")
    assert page.index("Use UCB: 50% cheaper") < page.index("<table>") < page.index("<svg")
    assert "a very long text &lt;b&gt; &amp; so on" in page and "#3, label cat, taken for dog, loss 4.2" in page
    assert "#4, target 2.5, predicted 1.5, loss 4.1" in page and "probable label errors" in page


def test_the_line_of_full_data_is_one_of_differences_within_seeds(tmp_path):
    runs = [record("full", seed, value, seconds=10.0) for seed, value in enumerate((0.8, 0.9))]
    # stopped halfway: what full data spent is the measure
    runs = [replace(run, n_backward=run.n_backward // 2, epochs_done=5, ended_by="EarlyStopping") for run in runs]
    runs += [record("short", 0, 0.78, epochs=4, seconds=8.0), record("short", 1, 0.87, epochs=2, seconds=4.0)]
    outcome = Outcome(EPOCHS, runs)
    settings = Settings(parse_methods("full,short"), [0, 1], 0.5, "val_acc", True, tmp_path)
    summary = summarise(outcome, settings)
    made = Comparison(ConfigTask({}, EPOCHS), settings, outcome, summary, advise(summary, outcome, settings))
    line, _ = places(made)
    assert [(round(place.x, 6), round(place.y, 6)) for place in line] == [(1.0, 85.0), (0.4, 82.0), (0.8, 83.0)]
