"""`compare` from Python, and from a script."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from torch.utils.data import DataLoader

import lightning_dataselect
from lightning_dataselect import InfoBatch
from lightning_dataselect.cli.main import main
from lightning_dataselect.comparison import api
from lightning_dataselect.comparison.tasks.script import task_of
from lightning_dataselect.demo import DigitsData, DigitsModel
from lightning_dataselect.utils.errors import DataSelectError, UserInputError


def make_module():
    return DigitsModel(width=8)


def make_data():
    return DigitsData(n_val=1600)


def make_loaders():
    data = make_data()
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader()


def compared(folder, **others):
    options = {"methods": "full,short,random", "seeds": 2, "max_epochs": 4, "quiet": True, "out": folder}
    options |= {"trainer": {"accelerator": "cpu"}, "monitor": "val_acc"}
    return lightning_dataselect.compare(
        others.pop("make_module", make_module), others.pop("make_data", make_data), **{**options, **others}
    )


def test_it_answers_from_python(tmp_path):
    found = compared(tmp_path / "out")
    assert found.table["label"].tolist() == ["full", "short, 2 epochs", "random"] and found.table["value_n"].eq(2).all()
    assert found.best.label in {"full", "short, 2 epochs", "random"}
    assert found.advice.headline in repr(found) and "short, 2 epochs" in repr(found)
    assert found.advice.headline.split(":")[0] in found._repr_html_()
    assert found.plot().axes
    page = found.save(tmp_path / "elsewhere")
    assert page == tmp_path / "elsewhere" / "report.html" and page.is_file()
    assert (tmp_path / "elsewhere" / "runs" / "random-1.json").is_file()
    # the same again: nothing is run
    again = compared(tmp_path / "out")
    assert [run.seconds for run in again.outcome.runs] == [run.seconds for run in found.outcome.runs]


def test_a_notebook_gets_lines_and_no_bars(tmp_path, monkeypatch):
    made = {}

    class Notebook(Console):
        def __init__(self, **options):
            made.update(options)
            super().__init__(**{**options, "force_jupyter": False})
            self.is_jupyter = not options

    monkeypatch.setattr(api, "Console", Notebook)
    monkeypatch.setattr(api, "carry_out", lambda task, request, console: SimpleNamespace(console=console, unwritten=""))
    console = compared(tmp_path / "out", quiet=False).console
    assert made["force_terminal"] is False and not console.is_terminal


def test_loaders_do_as_well_as_a_datamodule(tmp_path):
    a = compared(tmp_path / "a", methods=["full", "random"], seeds=[3])
    b = compared(tmp_path / "b", methods=["full", "random"], seeds=[3], make_data=make_loaders)
    assert [run.n_backward for run in a.outcome.runs] == [run.n_backward for run in b.outcome.runs]
    with pytest.raises(UserInputError, match="Which metric counts"):
        compared(tmp_path / "c", make_data=lambda: DataLoader(make_loaders()[0].dataset), monitor=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"make_module": dict}, r"make_module\(\) returned a dict"),
        ({"trainer": {"no_such": 1}}, "no_such"),
        ({"seeds": 0}, "seeds=0 is too small"),
        ({"seeds": "3"}, "seeds='3' is not a whole number"),
        ({"seeds": []}, r"seeds=\[\]: give each seed once"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: give each seed once"),
        ({"budget": "soon"}, "budget='soon': give full runs"),
        ({"budget": [30]}, r"budget=\[30\]: give full runs"),
        ({"jobs": 0}, "jobs=0 is too small"),
        ({"methods": "InfoBach"}, "did you mean InfoBatch"),
        ({"methods": [InfoBatch]}, "methods=.*InfoBatch.* is not a list of names: write each method as text"),
        ({"methods": None}, "methods=None is not a list of names"),
        ({"make_module": DigitsModel()}, r"make_module=DigitsModel\(.*give the class itself, or a function"),
        (
            {"make_data": DigitsData()},
            r"make_data=.*DigitsData.*give the class itself.*lambda: MyData\(...\)",
        ),
        ({"make_data": None}, r"needs make_data, a function or class.*compare\(MyModule, MyData, max_epochs=10\)"),
        ({"max_epochs": 0}, "max_epochs=0 is too small"),
        ({"max_epochs": "3"}, "max_epochs='3' is not a whole number"),
        ({"max_epochs": None}, "needs max_epochs, the number of epochs of a full run"),
        ({"prune_ratio": 30}, r"prune_ratio=30 is outside \[0, 1\)"),
        ({"mode": "up"}, "mode='up' is unknown: give one of 'max', 'min'"),
        ({"trainer": "gpu"}, "trainer='gpu' is not a dict: .*give its arguments"),
        ({"out": None}, "out=None is not a path"),
        ({"quiet": "no"}, "quiet='no' is not a bool"),
    ],
)
def test_wrong_arguments_get_a_plain_sentence(tmp_path, wrong, message):
    with pytest.raises(DataSelectError, match=re.compile(message, re.DOTALL)):
        compared(tmp_path, **wrong)


def test_a_config_is_for_the_command_line():
    with pytest.raises(DataSelectError, match=r"compare\('exp.yaml'\) takes no config: run `lightning-dataselect com"):
        lightning_dataselect.compare("exp.yaml")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataSelectError, match=r"out='.*file/below' cannot be made \(Not a directory\)"):
        compared(tmp_path / "file" / "below")


SCRIPT = """
from lightning_dataselect.demo import DigitsData, DigitsModel

def make_module():
    return DigitsModel(width=8)

def make_data():
    return DigitsData(n_val=1600)
"""


@pytest.mark.slow
def test_a_script_is_a_task_and_several_jobs_make_the_same_runs(tmp_path):
    script = tmp_path / "train_digits.py"
    script.write_text(SCRIPT)
    options = ["--epochs", "2", "--seeds", "1", "--methods", "full,random", "--json"]
    found = []
    for jobs in ("1", "2"):
        command = [sys.executable, "-m", "lightning_dataselect", "compare", str(script), "--jobs", jobs, *options]
        done = subprocess.run([*command, "--out", f"out{jobs}"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "random, seed 0" in done.stderr
        found.append({run["method"]: run["value"] for run in json.loads(done.stdout)["runs"]})
    assert found[0] == found[1] and set(found[0]) == {"full", "random"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from lightning.pytorch.cli import LightningCLI\nLightningCLI()", r"python \S+ fit --print_config > exp.yaml"),
        ("class Net(pl.LightningModule): pass", r"def make_module\(\): return Net\(...\)"),
        (
            "class Net(L.LightningModule): pass\nclass Data(L.LightningDataModule): pass",
            r"write one with `lightning-dataselect init --model train.Net --data train.Data`, then `.* compare exp",
        ),
        ("x = 1", r"lightning_dataselect.compare\(make_module, make_data, max_epochs=30\)"),
        (SCRIPT + "\ntrainer.fit(make_module())", "trains as soon as it is imported"),
        (SCRIPT, "needs --epochs N"),
        ("def broken(", "cannot be read"),
    ],
)
def test_a_script_that_is_no_task_is_told_what_to_write(tmp_path, source, message):
    script = tmp_path / "train.py"
    script.write_text(source)
    with pytest.raises(UserInputError, match=message):
        task_of(str(script), epochs=None, data_dir=None)


def test_two_tasks_are_one_too_many(capsys):
    assert main(["compare", "digits", "--config", "digits"]) == 2
    assert "two tasks" in capsys.readouterr().err


def test_the_list_is_json_as_well(capsys):
    assert main(["list", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    methods = {method["name"]: method for method in known["methods"]}
    assert methods["InfoBatch"]["year"] == 2024
    assert "dual" in [score["name"] for score in known["scores"]]
    assert "stratified" in [sampler["name"] for sampler in known["samplers"]]
