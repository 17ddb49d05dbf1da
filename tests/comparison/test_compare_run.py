"""`compare` from its arguments to its files, on the digits, a few epochs at a time."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_dataselect.cli.main import main
from lightning_dataselect.comparison.runs import threads

DIGITS = """
model: {class_path: lightning_dataselect.demo.DigitsModel, init_args: {width: 8}}
data: {class_path: lightning_dataselect.demo.DigitsData, init_args: {n_val: 1600}}
trainer: {accelerator: cpu}
"""
N = 197


@pytest.fixture
def compare(tmp_path, monkeypatch):
    config = tmp_path / "exp.yaml"
    config.write_text(DIGITS)
    monkeypatch.setenv("COLUMNS", "200")

    def run(methods, *more, epochs="4", seeds="2", config=config):
        options = ["--config", str(config), "--methods", methods, "--seeds", seeds, "--epochs", epochs]
        return main(["compare", *options, "--out", str(tmp_path / "out"), *more])

    return run


def results(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_everything_is_written_and_counted(compare, tmp_path, capsys):
    assert compare("full,short,random") == 0
    said = capsys.readouterr().out
    assert re.search(r"\[ 1/6\] full, seed 0: 0\.\d+ after", said)
    assert "short, 2 epochs" in said and "simply training on full data for fewer epochs" in said
    found = results(tmp_path)
    runs = {(run["method"], run["seed"]): run for run in found["runs"] if run["epochs"] in (2, 4)}
    assert set(runs) == {(m, s) for m in ("full", "short", "random") for s in (0, 1)}
    kept = -(-N // 2)
    for seed in (0, 1):
        assert runs["full", seed]["n_backward"] == 4 * N
        assert runs["random", seed]["n_backward"] in (4 * kept, 4 * (kept - 1))
        assert (runs["short", seed]["epochs"], runs["short", seed]["n_backward"]) == (2, 2 * N)
        assert len(runs["full", seed]["curve"]) == 4
        for label, epochs in (("full", 4), ("random", 4), ("short", 2)):
            run = runs[label, seed]
            seconds, value, cpu_seconds, n_backward = run["curve"][-1]
            assert run["curve"][0][0] < seconds <= run["seconds"]
            assert 0 < cpu_seconds <= run["cpu_seconds"]
            assert (len(run["curve"]), value, n_backward) == (epochs, run["value"], run["n_backward"])
            assert 0 < run["waiting_seconds"] < run["seconds"]
            assert run["tested"] == {}
    assert found["arguments"]["seeds"] == [0, 1]
    assert found["environment"]["versions"]["torch"] == torch.__version__
    frame = pd.read_csv(tmp_path / "out" / "results.csv", float_precision="round_trip")
    assert sorted(frame["value"]) == sorted(run["value"] for run in found["runs"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert found["sentence"] in page and page.count("<svg") == 2 * 4
    assert (tmp_path / "out" / "metric_over_time.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_the_same_run_again_and_leaves_nothing_behind(compare, tmp_path):
    def state():
        random_states = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        return random_states, {**os.environ, "PYTEST_CURRENT_TEST": ""}, signal.getsignal(signal.SIGINT)

    before = state()
    assert compare("full,random", seeds="1") == 0
    assert state() == before
    first = [run["value"] for run in results(tmp_path)["runs"]]
    for path in (tmp_path / "out" / "runs").iterdir():
        path.unlink()
    assert compare("random,full", seeds="1") == 0
    assert [run["value"] for run in results(tmp_path)["runs"]] == first[::-1]


def test_a_failing_method_keeps_the_others_and_a_rerun_goes_on(compare, tmp_path, capsys):
    assert compare("full,compare_helpers.Failing,random", seeds="1") == 1
    said = capsys.readouterr()
    assert "RuntimeError: the sky is falling" in said.out and "Traceback" not in said.out + said.err
    found = results(tmp_path)
    assert [run["method"] for run in found["runs"]] == ["full", "random"]
    assert [failure["method"] for failure in found["failures"]] == ["compare_helpers.Failing"]
    log = tmp_path / "out" / "runs" / "compare_helpers.Failing-0.error.txt"
    assert "the sky" in log.read_text()
    assert "the sky is falling" in (tmp_path / "out" / "report.html").read_text()
    assert compare("full,random", seeds="1") == 0
    assert capsys.readouterr().out.count("found finished") == 2
    assert compare("full,random", seeds="1", epochs="2") == 0
    assert "found finished" not in capsys.readouterr().out


@pytest.fixture
def heeds_ctrl_c():
    """A process that a shell has put in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_keeps_and_reports_the_finished_runs(compare, tmp_path, capsys):
    flag = tmp_path / "interrupt"
    flag.touch()
    methods = f"full,compare_helpers.Interrupted(at_seed=1, while_exists={str(flag)!r}),short"
    handler = signal.getsignal(signal.SIGINT)
    assert compare(methods) == 130
    assert signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().out
    # of short one by compute and, where the clock says otherwise, one by time
    kept = [(run["method"].split("(")[0], run["seed"]) for run in results(tmp_path)["runs"]]
    assert list(dict.fromkeys(kept)) == [
        ("full", 0),
        ("compare_helpers.Interrupted", 0),
        ("short", 0),
        ("full", 1),
    ]
    assert f"{len(kept)} finished runs are kept" in said
    assert "Interrupted: this shows" in (tmp_path / "out" / "report.html").read_text()
    flag.unlink()
    assert compare(methods) == 0
    assert capsys.readouterr().out.count("found finished") == len(kept)
    assert {(run["method"].split("(")[0], run["seed"]) for run in results(tmp_path)["runs"]} > set(kept)


def test_a_report_that_cannot_be_written_costs_neither_the_answer_nor_the_last_report(compare, tmp_path, capsys):
    assert compare("full,random", epochs="1", seeds="1") == 0
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "report.html.unfinished").symlink_to("/dev/full")
    capsys.readouterr()
    assert compare("full", epochs="1", seeds="1") == 1
    said = capsys.readouterr().out
    assert "Nothing to recommend: add short" in said and "Report: " not in said
    assert f"There is no report: {out / 'report.html'} cannot be written: No space left on device; the one" in said
    assert "The finished runs (1) are kept" in said
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert compare("full", epochs="1", seeds="1") == 0
    said = capsys.readouterr().out
    assert "found finished" in said and "Report: " in said


@pytest.mark.parametrize("gain", [0.0, math.inf], ids=["several threads never pay", "they always do"])
def test_runs_have_one_thread_where_several_are_no_faster(compare, tmp_path, capsys, monkeypatch, gain):
    monkeypatch.setattr(threads, "GAIN", gain)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with threads.using(2):
        assert compare("full", seeds="1", epochs="1") == 0
        assert torch.get_num_threads() == 2
    found, said = results(tmp_path), capsys.readouterr().out
    assert found["runs"][0]["n_threads"] == found["environment"]["torch_threads"] == (2 if gain else 1)
    assert ("Runs compute with one thread: a step takes" in said) == (not gain)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with threads.using(2):
        assert compare("full,short", seeds="1", epochs="1") == 0
    assert "Runs compute with one thread" not in capsys.readouterr().out, "what the user asks for stays"


def test_a_metric_that_is_a_loss_is_better_when_less(compare, tmp_path):
    assert compare("full", "--monitor", "val_loss", seeds="1") == 0
    found = results(tmp_path)
    assert found["arguments"]["mode"] == "min"
    values = [point[1] for point in found["runs"][0]["curve"]]
    assert found["runs"][0]["best"] == min(values) < max(values)


def test_the_users_own_callbacks_stay(compare, tmp_path):
    config = tmp_path / "stopping.yaml"
    stopping = "{class_path: EarlyStopping, init_args: {monitor: val_acc, mode: max, stopping_threshold: 0.0}}"
    config.write_text(DIGITS.replace("accelerator: cpu", f"accelerator: cpu, callbacks: [{stopping}]"))
    assert compare("full", config=config, seeds="1") == 0
    found = results(tmp_path)
    run = found["runs"][0]
    assert len(run["curve"]) == 1 and run["n_backward"] == N
    assert (run["epochs"], run["epochs_done"], run["ended_by"]) == (4, 1, "EarlyStopping")
    assert "full stopped by EarlyStopping after 1 of 4" in " ".join(found["notes"])


def test_the_configs_own_selector_is_set_aside_and_said_to_be(compare, tmp_path, capsys):
    config = tmp_path / "selecting.yaml"
    infobatch = "{class_path: lightning_dataselect.InfoBatch, init_args: {prune_ratio: 0.3}}"
    stopping = "{class_path: EarlyStopping, init_args: {monitor: val_acc}}"
    config.write_text(DIGITS.replace("accelerator: cpu", f"accelerator: cpu, callbacks: [{infobatch}, {stopping}]"))
    assert compare("full", config=config, seeds="1", epochs="1") == 0
    said = capsys.readouterr().out
    assert "own selector is set aside: InfoBatch(prune_ratio=0.3). To compare it" in said
    assert '--methods "full,short,InfoBatch(prune_ratio=0.3)"' in said
    config.write_text(f"{DIGITS}\nselect: {{class_path: UCB, init_args: {{c: 2.0}}}}")
    assert compare("full", config=config, seeds="1", epochs="1") == 0
    assert "own selector is set aside: UCB(c=2.0)" in capsys.readouterr().out


def test_what_another_comparison_has_left_in_the_folder_is_not_overwritten_in_silence(compare, tmp_path, capsys):
    assert compare("full,random", seeds="1", epochs="1") == 0
    assert compare("full,random", seeds="2", epochs="1") == 0
    said = capsys.readouterr().out
    assert "earlier comparison" not in said
    assert said.count("* No other row ends as well or better in as little time.") == 2
    assert compare("full,UCB", seeds="1", epochs="1") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'out'} holds an earlier comparison of full, random, and its report is overwritten" in said
    other = tmp_path / "other.yaml"
    other.write_text(DIGITS.replace("width: 8", "width: 9"))
    assert compare("full,UCB", config=other, seeds="1", epochs="1") == 0
    assert "on DigitsModel, of another task or with other settings, and its report and runs" in capsys.readouterr().out
    stepping = tmp_path / "stepping.yaml"
    stepping.write_text(other.read_text().replace("accelerator: cpu", "accelerator: cpu, precision: 32-true"))
    assert compare("full,UCB", config=stepping, seeds="1", epochs="1") == 0
    said = capsys.readouterr().out
    assert "with other settings, and its report and runs are overwritten" in said and "found finished" not in said


def test_a_time_limit_is_named(compare, tmp_path):
    config = tmp_path / "limited.yaml"
    config.write_text(DIGITS.replace("accelerator: cpu", "accelerator: cpu, max_time: {milliseconds: 1}"))
    assert compare("full", config=config, seeds="1") == 0
    run = results(tmp_path)["runs"][0]
    assert run["ended_by"] == "its time limit" and run["epochs_done"] < 4 and run["n_total"] == run["n_backward"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "InfoBach"], "did you mean InfoBatch?"),
        (["--seeds", "0"], "--seeds '0': give how many seeds"),
        (["--jobs", "0"], "--jobs 0: give the number of runs at the same time, at least 1."),
        (["--epochs", "0"], "How many epochs"),
        (["--prune-ratio", "1"], "--prune-ratio 1: the share that is dropped is at least 0 and below 1."),
        (["--prune-ratio", "50"], "below 1. For 50 %, write 0.5."),
        (["--prune-ratio", "50%"], "expected float, got 50%; see lightning-dataselect compare --help. For 50 %, write"),
        (["--methods", "UCB(prune_ratio=50%)"], "UCB(every_n_epochs=2). For 50 %, write 0.5."),
        (
            ["--config", "nowhere.yaml"],
            "compare: nowhere.yaml cannot be read (No such file or directory): give a LightningCLI config, a script",
        ),
        (["--monitor", "val_f1"], "logs no metric 'val_f1' to monitor; it logs val_acc, val_loss"),
        (["--data-dir", "/tmp"], "data_dir"),
        (["--out", "/proc/nowhere"], "--out /proc/nowhere cannot be written to"),
    ],
)
def test_wrong_input_gets_one_plain_sentence(compare, options, message, capsys):
    assert compare("full", *options) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("accelerator: cpu", "accelerator: cpu, devices: 2"), "set trainer.devices to 1"),
        (("width: 8", "width: eight"), "The config does not fit"),
        (("n_val: 1600", "n_val: 0"), "n_val=0"),
    ],
)
def test_a_config_that_cannot_be_compared_gets_one_plain_sentence(compare, tmp_path, change, message, capsys):
    config = tmp_path / "wrong.yaml"
    config.write_text(DIGITS.replace(*change))
    assert compare("full", config=config) == 2
    said = capsys.readouterr()
    assert message in said.err and "Traceback" not in said.err


def test_the_report_shows_the_samples_themselves(tmp_path):
    out = tmp_path / "out"
    arguments = ["compare", "--epochs", "2", "--seeds", "1", "--methods", "full,random,InfoBatch", "--out", str(out)]
    assert main(arguments) == 0
    samples = json.loads((out / "runs" / "random-0.samples.json").read_text())
    # 599 of 1197 samples are trained on
    assert [sum(epoch.values()) for epoch in samples["dropped"]] == pytest.approx([598 / 1197] * 2)
    page = (out / "report.html").read_text()
    assert "The samples themselves" in page and page.count("<details") == 2 + 1
    assert "easiest" in page and page.count('<img src="data:image/png;base64,') >= 8


OWN = """
import torch
from lightning_dataselect.demo import DigitsData, DigitsModel

class Model(DigitsModel):
    def __init__(self):
        super().__init__(width=8)

class Data(DigitsData):
    def setup(self, stage):
        super().setup(stage)
        images, classes = self.train.tensors
        self.train = torch.utils.data.TensorDataset(images * 1.0, classes)
"""


@pytest.mark.slow
def test_a_run_is_made_again_when_code_or_data_have_changed(tmp_path):
    config, module = tmp_path / "exp.yaml", tmp_path / "own_task.py"
    config.write_text(
        "{model: own_task.Model, data: {class_path: own_task.Data, init_args: {n_val: 1600}},"
        " trainer: {accelerator: cpu}}"
    )

    def said(source):
        module.write_text(source)
        command = [sys.executable, "-B", "-m", "lightning_dataselect", "compare", str(config), "--methods", "full"]
        done = subprocess.run(
            [*command, "--epochs", "1", "--seeds", "1", "--out", "out"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "run again" not in said(OWN)
    assert "full, seed 0: found finished" in said(OWN.replace("class Data", "# the data\nclass Data"))
    assert "run again, as what it depends on has changed since: code of own_task.py" in said(OWN.replace("=8", "=9"))
    changed = said(OWN.replace("=8", "=9").replace("* 1.0", "* 2.0"))
    assert "run again, as what it depends on has changed since: data, code of own_task.py" in changed
