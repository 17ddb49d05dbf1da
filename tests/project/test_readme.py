"""The README and the pages say what the results and the methods say, and are short enough to be read."""

import json
import math
import re
from statistics import fmean, median, stdev

import pytest
import yaml

from benchmarks.frontier_tables import TASKS, saved_at_least, widely_measured
from benchmarks.tables import PAGES, RESULTS, ROOT, filled_in, results_page, tables
from lightning_dataselect.methods.catalog import CATALOG
from lightning_dataselect.methods.parts import SAMPLERS, SCORES

pytestmark = pytest.mark.docs
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_are_those_of_the_results(page):
    assert filled_in(page.read_text()) == page.read_text(), "run python -m benchmarks.tables"


def test_every_table_has_a_place_and_every_row_a_page():
    text = "".join(page.read_text() for page in PAGES)
    shown = {name for name in tables() if f"<!-- {name} -->" in text}
    assert {"methods", "overhead", "scale", "merge", "recommended", "images_ratios", "noisy_labels", "text"} <= shown
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == results_page(), "run python -m benchmarks.tables"


def test_a_place_for_no_table_is_named():
    with pytest.raises(ValueError, match="<!-- images_mars --> in a page: there is no such table; there are over"):
        filled_in("<!-- images_mars -->\n<!-- end images_mars -->")
    with pytest.raises(ValueError, match="<!-- methods --> in a page has no <!-- end methods -->"):
        filled_in("<!-- methods -->")


def test_methods_are_counted():
    published = sum(bool(info.url) for info in CATALOG.values())
    assert f"{published} published methods" in README and f"| Published methods | {published} |" in README
    assert f"{published} published" in (ROOT / "docs" / "alternatives.md").read_text()
    for count in (f"{len(SCORES)} scores", f"{len(SAMPLERS)} samplers"):
        assert count in README


def test_what_is_said_of_frontier_is_what_its_rows_say():
    rows = [row for row in json.loads((RESULTS / "frontier.json").read_text())["rows"] if not row["lower_is_better"]]
    numbers = {30: "thirty", 17: "seventeen", 12: "twelve", 0: "none"}
    told, choosing = (" ".join(page.split()) for page in (README, (ROOT / "docs" / "choosing.md").read_text()))
    pooled = _pooled([row["difference"] for row in rows])
    assert f"Over the {numbers[len(rows)]} classifications below" in told and f"ends {pooled} points" in told
    assert f"Over the {numbers[len(rows)]} classifications that is {pooled} points" in choosing
    clear = [row["difference"] / row["standard_error"] for row in rows]
    better, worse = (numbers[sum(sign * each > 2 for each in clear)] for sign in (1, -1))
    large = [(row["difference"] >= 0.5 or (saved_at_least(row) or 0) >= 0.25) for row in rows]
    much = numbers[sum(each and sure > 2 for each, sure in zip(large, clear, strict=True))]
    assert f"better on {better}, worse on {worse}" in told
    assert f"half a point or a quarter of the compute on {much}" in told
    times = [row["cpu_time"] for row in rows]
    assert f"{min(times):.2f} to {max(times):.2f} times the CPU time" in told
    assert f"at equal CPU time it is {_pooled([row['at_equal_time'] for row in rows])}" in told
    index = " ".join((ROOT / "docs" / "index.md").read_text().split())
    assert f"standard errors on {better} of {numbers[len(rows)]} classifications, worse on {worse}" in index


def test_what_is_said_of_tasks_that_the_rule_was_not_made_with_is_what_their_rows_say():
    numbers = {26: "twenty-six", 24: "twenty-four", 7: "seven", 0: "none"}
    pages = (README, *((ROOT / "docs" / name).read_text() for name in ("choosing.md", "index.md")))
    told, choosing, index = (" ".join(page.split()) for page in pages)
    n_all, n, pooled, in_time, middle, better, worse = _judged("frontier_held_out", numbers)
    assert f"On [{n} others]" in told and f"it is {pooled}: level on most, better on {better}, worse on {worse}" in told
    assert f"seconds, {in_time}." in told
    assert f"On {n} further ones" in index and f"level on most, better on {better} and worse on {worse}" in index
    assert f"{n_all.capitalize()} tasks were written down" in choosing
    assert f"Over the {n} classifications that is {pooled} points, with a median of {middle}: better" in choosing
    assert f"errors on {better}, worse on {worse}." in choosing and f"at equal CPU time it is {in_time}." in choosing


def test_what_is_said_of_tasks_that_changed_the_rule_is_what_their_rows_say():
    numbers = {30: "thirty", 28: "twenty-eight", 9: "nine", 3: "three"}
    choosing = " ".join((ROOT / "docs" / "choosing.md").read_text().split())
    n_all, n, pooled, in_time, middle, better, worse = _judged("frontier_stress", numbers)
    assert f"{n_all.capitalize()} others were written down" in choosing
    assert f"Over their {n} classifications that is {pooled} points, with a median of {middle}: better" in choosing
    assert f"errors on {better}, worse on {worse}" in choosing and f"At equal CPU time it is {in_time}." in choosing
    told = " ".join(README.split())
    assert f"on {n} that led to its last change {pooled}, worse on {worse}, by 0.4 points at most" in told


def _judged(study, numbers):
    every = json.loads((RESULTS / f"{study}.json").read_text())["rows"]
    rows = [row for row in every if not row["lower_is_better"]]
    clear = [row["difference"] / row["standard_error"] for row in rows]
    better, worse = (numbers[sum(sign * each > 2 for each in clear)] for sign in (1, -1))
    pooled, in_time = (_pooled([row[name] for row in rows]) for name in ("difference", "at_equal_time"))
    middle = f"{median(row['difference'] for row in rows):.2f}"
    return numbers[len(every)], numbers[len(rows)], pooled, in_time, middle, better, worse


def test_what_is_said_of_the_log_loss_and_of_other_recipes_is_what_their_rows_say():
    rows = [row for row in json.loads((RESULTS / "frontier.json").read_text())["rows"] if "log_loss" in row]
    sure = [row["log_loss_rise"] / row["log_loss_error"] for row in rows]
    falls, rises = (sum(sign * each > 2 for each in sure) for sign in (-1, 1))
    numbers = {14: "fourteen", 30: "thirty", 4: "four"}
    choosing = " ".join((ROOT / "docs" / "choosing.md").read_text().split())
    assert f"falls on {numbers[falls]} of {numbers[len(rows)]} tasks and rises on {numbers[rises]}:" in choosing
    recipes = json.loads((RESULTS / "frontier_recipes.json").read_text())["rows"]
    better, worse = (sum(sign * row["difference"] > 2 * row["standard_error"] for row in recipes) for sign in (1, -1))
    assert (better, worse, len(recipes), len({row["recipe"] for row in recipes})) == (19, 4, 54, 18)
    told = " ".join(README.split())
    assert "[eighteen other recipes]" in told and "better in nineteen of fifty-four cases, worse in four" in told


def test_what_is_said_of_labels_that_people_got_wrong_is_what_the_rows_say():
    rows = {row["task"]: row for row in json.loads((RESULTS / "frontier.json").read_text())["rows"]}
    told = " ".join(README.split())
    for share, kind in ((40, "worse"), (17, "random1"), (9, "aggre")):
        row = rows[f"image_features_{kind}"]
        fewer = row["fewer_epochs"] - row["whole_fit"]
        found, fewer = f"{fewer + row['difference']:.1f}", f"{fewer:.1f}"
        said = f"{found} points above all of it (`FewerEpochs`: {fewer})" if share == 40 else f"{found} ({fewer})"
        assert (f"got {share} % of the labels wrong" if share == 40 else f"at {share} %") in told and said in told


def test_what_is_said_of_smaller_budgets_is_what_their_rows_say():
    rows = json.loads((RESULTS / "frontier_budgets.json").read_text())["rows"]
    at = {(row["task"], row["budget"]): row for row in rows}
    half, eighth = at["image_features_worse", 0.5], at["image_features_worse", 0.125]
    by_half = json.loads((RESULTS / "frontier.json").read_text())["rows"]
    (whole,) = (row["whole_fit"] for row in by_half if row["task"] == "image_features_worse")
    told, choosing = (" ".join(page.split()) for page in (README, (ROOT / "docs" / "choosing.md").read_text()))
    assert f"everything, ends {eighth['fewer_epochs'] - whole:.1f} points above all of it" in told
    above, above_ours = (eighth["fewer_epochs"] - half[name] for name in ("fewer_epochs", "frontier"))
    assert f"ends {above:.1f} points above half of it, and {above_ours:.1f} above `Frontier` with half" in choosing
    better, worse = ([row for row in rows if sign * row["difference"] > 2 * row["standard_error"]] for sign in (1, -1))
    assert (len(rows), len(better), len(worse)) == (21, 8, 0)
    assert "in eight of twenty-one cases, and worse in none" in choosing


def test_what_is_said_of_a_tuned_learning_rate_is_what_its_rows_say():
    rows = json.loads((RESULTS / "frontier_rates.json").read_text())["rows"]
    given = {row["task"]: row for row in json.loads((RESULTS / "frontier.json").read_text())["rows"]}
    gains = [row["gains"]["Frontier"] for row in rows]
    better, worse = (sum(sign * gain > 2 * error for gain, error in gains) for sign in (1, -1))
    assert (len(rows), better, worse) == (27, 10, 0)
    by_rate = fmean(row["fewer_epochs"] - given[row["task"]]["fewer_epochs"] for row in rows)
    pooled = _pooled([gain for gain, _ in gains])
    told = " ".join(README.split())
    assert f"and {pooled} where the [learning rate is tuned for that]" in told
    assert f"which gains {by_rate:.1f} points by itself (twenty-seven of them: better on ten, worse on none)" in told
    choosing = " ".join((ROOT / "docs" / "choosing.md").read_text().split())
    assert f"The rate alone gains {by_rate:.2f} points over the twenty-seven tasks" in choosing
    as_given = _pooled([given[row["task"]]["difference"] for row in rows])
    assert f"ends {pooled} points above it ({as_given} at the rates as they were)" in choosing
    wrong = re.compile("flipped|wrong by people|labelled as")
    kinds = [
        [row["gains"]["Frontier"][0] for row in rows if bool(wrong.search(TASKS[row["task"]])) is is_wrong]
        for is_wrong in (True, False)
    ]
    assert [len(kind) for kind in kinds] == [14, 13]
    assert f"{_pooled(kinds[0])} points over the fourteen tasks with wrong labels" in choosing
    assert f"{_pooled(kinds[1])} over the thirteen without" in choosing


def test_what_is_said_of_other_ways_to_spend_the_budget_is_what_their_rows_say():
    rows = {name: {task: row["difference"] for task, row in found.items()} for name, found in widely_measured().items()}
    ours = fmean(rows.pop("`Frontier`").values())
    told = " ".join(README.split())
    assert "The same budget spent by InfoBatch, EpsilonGreedy or smaller batches [gains less]" in told
    means = {name: fmean(found.values()) for name, found in rows.items()}
    for name in ("InfoBatch", "EpsilonGreedy", "batches"):
        (mean,) = (mean for rival, mean in means.items() if name in rival)
        assert mean < ours
    (infobatch,) = (found for name, found in rows.items() if "InfoBatch" in name)
    seen = [gain for task, gain in infobatch.items() if not task.startswith(("ag_news", "text", "image_features"))]
    cards = " ".join((ROOT / "docs" / "_generate" / "cards.yaml").read_text().split())
    choosing = " ".join((ROOT / "docs" / "choosing.md").read_text().split())
    said = f"On images and tables it was never more than {-min(seen):.2f} points worse than equal compute"
    assert said in choosing and said in cards


def _pooled(gains):
    return f"{fmean(gains):+.2f} ± {stdev(gains) / math.sqrt(len(gains)):.2f}"


def test_the_readme_is_read_in_minutes():
    assert len(README.encode()) < 12_000


def test_every_python_example_compiles_and_imports():
    blocks = [block.split("```")[0] for block in README.split("```python\n")[1:]]
    after = README.split("```diff\n")[1].split("```")[0].splitlines()
    blocks.append("\n".join(line[1:] for line in after if not line.startswith("-")))
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec")
        for line in block.splitlines():
            if line.startswith(("import ", "from ")):
                exec(line, {})


def test_every_yaml_example_is_a_config():
    blocks = [block.split("```")[0] for block in README.split("```yaml\n")[1:]]
    assert len(blocks) >= 1
    for block in blocks:
        config = yaml.safe_load(block)
        assert {"model", "data", "trainer"} == set(config)


def test_results_are_rows_and_the_pictures_that_are_shown():
    pages = [page.read_text() for page in PAGES]
    pictures = {path.name for path in RESULTS.iterdir() if path.suffix != ".json"}
    assert [name for name in pictures if not any(f"results/{name})" in page for page in pages)] == []
    sizes = {path.name: path.stat().st_size for path in RESULTS.glob("*.json")}
    assert sum(sizes.values()) < 320_000, f"runs and curves stay in the output folder: {sizes}"


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
