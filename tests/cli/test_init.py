"""`lightning-dataselect init`: a config that trains, for classes of the user's own."""

from __future__ import annotations

import sys

import pytest
import yaml

from lightning_dataselect.cli.main import main

pytestmark = pytest.mark.filterwarnings(
    "ignore:LightningCLI's args parameter", "ignore:(?s).*deprecated in v4", "ignore:(?s).*JsonargparseDeprecation"
)

MODULE = """
from __future__ import annotations
from collections.abc import Callable
import math
from lightning_dataselect.demo import DigitsData, DigitsModel

class Model(DigitsModel):
    def __init__(self, width: int, *, lr: float = 1e-05, name: str = "1\\n2", sizes: tuple[int, ...] = (3, 4),
                 act: Callable = math.sin, note: str | None = None):
        super().__init__(width, lr)

class Data(DigitsData):
    def __init__(self, n_val: int = 1700, **kwargs):
        super().__init__(n_val=n_val, **kwargs)

class WithLoader(Model):
    def train_dataloader(self):
        data = DigitsData(n_val=1700)
        data.setup("fit")
        return data.train_dataloader()

class Other: ...
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a module of the user's own, `init_task`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "init_task.py").write_text(MODULE)
    (tmp_path / "init_broken.py").write_text("import no_such_package")
    (tmp_path / "init_raising.py").write_text("1 / 0")
    yield tmp_path
    sys.modules.pop("init_task", None)


INIT = ["init", "--model", "init_task.Model", "--data", "init_task.Data"]


def test_the_config_names_every_argument_with_its_default(folder, capsys):
    assert main([*INIT, "--max-epochs", "2"]) == 0
    said = capsys.readouterr().out
    assert "Fill in what has no default: model.width." in said
    assert "lightning-dataselect fit --config exp.yaml --select InfoBatch" in said
    text = (folder / "exp.yaml").read_text()
    assert "width:  # required: int\n" in text
    # a function has no word in YAML, and is left to the class
    settings = {"width": None, "lr": 1e-05, "name": "1\n2", "sizes": [3, 4], "note": None}
    assert yaml.safe_load(text) == {
        "model": {"class_path": "init_task.Model", "init_args": settings},
        "data": {"class_path": "init_task.Data", "init_args": {"n_val": 1700, "batch_size": 32}},
        "trainer": {"max_epochs": 2},
    }


def test_the_config_trains_once_what_is_missing_is_filled_in(folder):
    assert main([*INIT, "--out", "sub.yaml"]) == 0
    config = folder / "sub.yaml"
    config.write_text(config.read_text().replace("width:  #", "width: 8  #"))
    short = ["--trainer.fast_dev_run", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "sub.yaml", *short, "--select", "RandomPruning"]) == 0


@pytest.mark.parametrize("command", [["fit", "--config", "exp.yaml"], ["compare", "exp.yaml"]])
def test_what_is_not_filled_in_is_named_as_the_config_names_it(folder, command, capsys):
    assert main(INIT) == 0
    assert main(command) == 2
    assert "--model.width is missing." in capsys.readouterr().err


def test_a_model_with_its_own_loader_needs_no_data(folder):
    assert main(["init", "--model", "init_task.WithLoader"]) == 0
    config = folder / "exp.yaml"
    assert "data" not in yaml.safe_load(config.read_text())
    config.write_text(config.read_text().replace("width:  #", "width: 8  #"))
    short = ["--trainer.fast_dev_run", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "exp.yaml", *short, "--select", "RandomPruning"]) == 0


def test_a_model_without_a_loader_needs_data(folder, capsys):
    assert main(["init", "--model", "init_task.Model"]) == 2
    said = "--data is missing, and init_task.Model has no train_dataloader of its own. Give the import path of a Lightn"
    assert said in capsys.readouterr().err and not (folder / "exp.yaml").exists()


def test_a_file_is_overwritten_only_when_asked(folder, capsys):
    (folder / "exp.yaml").write_text("mine")
    assert main(INIT) == 2
    cure = "lightning-dataselect init: exp.yaml exists: give --force to overwrite it, or another file with --out."
    assert capsys.readouterr().err.strip() == cure
    assert (folder / "exp.yaml").read_text() == "mine"
    assert main([*INIT, "--force"]) == 0
    assert "class_path: init_task.Model" in (folder / "exp.yaml").read_text()


WRONG = {
    "--model Model": "--model Model: give the import path of a class, as in my.Model.",
    "--data init_task.py:Data": "--data init_task.py:Data: give the import path of a class, as in my.Data.",
    "--model no_such.Model": "--model no_such.Model cannot be imported: No module named 'no_such'.",
    "--model init_broken.Model": "init_broken.Model cannot be imported: No module named 'no_such_package'.",
    "--model init_raising.Model": "init_raising.Model cannot be imported: ZeroDivisionError: division by zero.",
    "--model init_task.Modl": "--model init_task.Modl: init_task has no Modl. Did you mean Model?",
    "--model init_task.Data": "--model init_task.Data is no subclass of lightning's LightningModule.",
    "--data init_task.math": "--data init_task.math is no subclass of lightning's LightningDataModule.",
    "--max-epochs 0": "--max-epochs 0 is too small: give at least 1.",
    "--max-epochs x": "--max-epochs: expected int, got x; see lightning-dataselect init --help.",
    "--out .": "--out . is a folder: give a file.",
    "--out none/exp.yaml": "--out none/exp.yaml cannot be written: No such file or directory.",
    "--modle a.B": "--modle is not understood. Did you mean --model?",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_input_is_refused_in_one_sentence(folder, arguments, capsys):
    assert main([*INIT, *arguments.split()]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and WRONG[arguments] in said[0], said
    assert not (folder / "exp.yaml").exists()
