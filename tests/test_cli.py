"""The command line: help, list, and LightningCLI with `--select`."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from lightning_dataselect import list_methods
from lightning_dataselect.cli import main

FIT = [
    *("fit", "--model", "lightning_dataselect.demo.DigitsModel"),
    *("--data", "lightning_dataselect.demo.DigitsData", "--data.n_val", "1700"),
    *("--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


def test_list_names_every_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for method in list_methods():
        assert method.name in said


@pytest.mark.parametrize(
    ("arguments", "text"), [(["--help"], "compare"), (["compare", "--help"], "--prune-ratio"), (["--version"], "")]
)
def test_help_and_version(arguments, text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert text in said
    if not text:
        assert said.strip() == f"lightning-dataselect {version('lightning-dataselect')}"


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fitt"])
    assert ended.value.code == 2
    assert "fitt" in capsys.readouterr().err


def test_fit_selects_by_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from lightning_dataselect import lightning_cli

    made = []
    monkeypatch.setattr(lightning_cli.SelectCLI, "after_fit", lambda cli: made.append(cli.trainer), raising=False)
    assert main([*FIT, "--select", "RandomPruning", "--select.prune_ratio", "0.75"]) == 0
    selector = next(c for c in made[0].callbacks if type(c).__name__ == "RandomPruning")
    assert selector.prune_ratio == 0.75
    assert [record["n_selected"] for record in selector.history] == [24, 24, 24]


def test_fit_goes_without_a_selector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, "--trainer.fast_dev_run", "1"]) == 0


@pytest.mark.slow
def test_a_class_in_the_working_directory_is_found(tmp_path):
    (tmp_path / "my.py").write_text(
        "from lightning_dataselect import RandomPruning\n"
        "from lightning_dataselect.demo import DigitsModel\n"
        "class Model(DigitsModel): pass\n"
        "class Mine(RandomPruning): pass\n"
    )
    command = ["fit", "--model", "my.Model", "--select", "my.Mine", "--trainer.fast_dev_run", "1", *FIT[3:]]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from lightning_dataselect.cli import main; sys.exit(main())", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
