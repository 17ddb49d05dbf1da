"""`--methods`, `--seeds` and a config are read, and wrong ones are refused in words."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_dataselect import UCB, DataSelector, RandomPruning
from lightning_dataselect.comparison.plans.spec import parse_methods, parse_seeds
from lightning_dataselect.comparison.tasks.config_task import load_task
from lightning_dataselect.comparison.tasks.made_task import MadeTask
from lightning_dataselect.comparison.tasks.script import task_of
from lightning_dataselect.demo import DigitsData, DigitsModel
from lightning_dataselect.utils.errors import UserInputError


def test_methods_with_arguments_aliases_and_dotted_paths():
    specs = parse_methods("full, random, UCB(every_n_epochs=2, uncertainty='el2n'), compare_helpers.Failing")
    assert [spec.label for spec in specs] == [
        "full",
        "random",
        "UCB(every_n_epochs=2, uncertainty='el2n')",
        "compare_helpers.Failing",
    ]
    assert [spec.cls and spec.cls.__name__ for spec in specs] == [None, "RandomPruning", "UCB", "Failing"]
    built = specs[2].build(prune_ratio=0.3, seed=7)
    assert isinstance(built, UCB)
    assert (built.every_n_epochs, built.uncertainty, built.prune_ratio, built.seed) == (2, "el2n", 0.3, 7)


def test_own_arguments_win_over_the_common_ones_and_over_a_preset():
    spec = parse_methods("random_rescaled(prune_ratio=0.9, anneal=0)")[0]
    built = spec.build(prune_ratio=0.3, seed=7)
    assert isinstance(built, RandomPruning)
    assert (built.prune_ratio, built.anneal, built.rescale) == (0.9, 0.0, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full,InfoBach", "There is no method 'InfoBach': did you mean InfoBatch?"),
        ("fulll", "did you mean full?"),
        ("zzzzzz", "known are full, short, random"),
        ("full,full", "names full twice"),
        ("", "is empty"),
        ("UCB(", "cannot be read"),
        ("full(epochs=3)", "full takes no arguments"),
        ("UCB(2)", "give arguments by name"),
        ("UCB(c=open('x'))", "with plain values"),
        ("no_such_module.Method", "cannot be imported"),
        ("pathlib.Path", "no subclass of lightning_dataselect.DataSelector"),
        ("3", "no name of a method"),
    ],
)
def test_wrong_methods_get_a_plain_sentence(text, message):
    with pytest.raises(UserInputError, match=message.replace("(", r"\(")):
        parse_methods(text)


def test_arguments_that_a_method_refuses_get_a_plain_sentence():
    with pytest.raises(UserInputError, match=r"UCB\(every_n_epochs=0\) cannot be made: .*every_n_epochs"):
        parse_methods("UCB(every_n_epochs=0)")[0].build(prune_ratio=0.5, seed=0)


@pytest.mark.parametrize("text", ["0", "-1", "1,1", "a", "", ",", "1.5", "-1,2"])
def test_wrong_seeds_get_a_plain_sentence(text):
    with pytest.raises(UserInputError, match=f"--seeds {text!r}"):
        parse_seeds(text)


def test_seeds_are_how_many_or_which():
    assert parse_seeds("2") == [0, 1]
    assert parse_seeds("7,3") == [7, 3]
    assert parse_seeds("7,") == [7]


def test_a_config_of_the_fit_subcommand_is_read_as_well(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("fit:\n  model: a.Model\n  ckpt_path: null\n  trainer: {max_epochs: 4}\n")
    task = load_task(str(path))
    assert task.epochs == 4
    assert task.config == {"model": "a.Model", "trainer": {"max_epochs": 4}}


def test_data_dir_goes_to_the_datamodule_and_without_one_to_the_module(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text("{model: a.Model, trainer: {max_epochs: 4}}")
    assert load_task(str(path), data_dir="d").config["model"] == {
        "class_path": "a.Model",
        "init_args": {"data_dir": "d"},
    }
    fashion = load_task("fashion_mnist", data_dir="d")
    assert fashion.config["data"]["init_args"] == {"data_dir": "d"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_epochs: 3}", "names no model"),
        ("- 1", "names no model"),
        ("a: [", "is not YAML: line 1, column 5: expected the node content"),
        (
            "model:\n\tclass_path: a.Model",
            "is not YAML: line 2, column 1: a tab cannot stand there, so indent by spaces",
        ),
        ("model: a.Model", "How many epochs"),
        ("{model: a.Model, trainer: {max_epochs: -1}}", "How many epochs"),
    ],
)
def test_wrong_configs_get_a_plain_sentence(tmp_path, text, message):
    path = tmp_path / "exp.yaml"
    path.write_text(text)
    with pytest.raises(UserInputError, match=message):
        load_task(str(path))


def test_a_missing_config_gets_a_plain_sentence(tmp_path):
    with pytest.raises(UserInputError, match=r"nowhere.yaml cannot be read \(No such file"):
        load_task(str(tmp_path / "nowhere.yaml"))


SAVER = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {dirpath: saved}}"
STOPPER = "{class_path: EarlyStopping, init_args: {monitor: val_acc, mode: max}}"


@pytest.mark.parametrize(("callbacks", "n"), [("[]", 0), (f"[{STOPPER}]", 0), (f"[{SAVER}, {STOPPER}]", 1)])
def test_checkpoints_are_off_unless_asked_for_and_carry_the_runs_name(tmp_path, callbacks, n):
    path = tmp_path / "exp.yaml"
    path.write_text(
        "model: lightning_dataselect.demo.DigitsModel\n"
        f"trainer: {{max_epochs: 2, accelerator: cpu, callbacks: {callbacks}}}\n"
    )
    trainer, *_ = load_task(str(path)).build(seed=0, epochs=2, callbacks=[], root=tmp_path / "UCB-3")
    assert len(trainer.checkpoint_callbacks) == n
    assert all(callback.dirpath.endswith("saved/UCB-3") for callback in trainer.checkpoint_callbacks)


class WandbLogger(CSVLogger):
    """Named as Lightning's is, which cannot be made without wandb."""

    def __init__(self, name):
        super().__init__("logs", name)
        self._wandb_init = {"name": name}


def test_loggers_and_checkpoints_from_python_carry_the_runs_name(tmp_path):
    given = {"accelerator": "cpu", "logger": [CSVLogger("logs", name="digits"), WandbLogger("mine")]}
    given["callbacks"] = ModelCheckpoint("saved")
    task = MadeTask(DigitsModel, DigitsData, given, 2)
    for run in ("UCB-3", "random-0"):
        trainer, *_ = task.build(seed=0, epochs=2, callbacks=[], root=tmp_path / run)
        csv, wandb = trainer.loggers
        assert (csv.log_dir, wandb.name, wandb._wandb_init) == (f"logs/digits/{run}", run, {"name": run})
        assert [callback.dirpath for callback in trainer.checkpoint_callbacks] == [str(Path("saved").resolve() / run)]
    assert given["callbacks"].dirpath == str(Path("saved").resolve())
    assert given["logger"][0].version != "random-0"


def test_the_selector_that_a_config_trains_with_is_left_out(tmp_path):
    path = tmp_path / "exp.yaml"
    ours = "{class_path: lightning_dataselect.InfoBatch, init_args: {prune_ratio: 0.3}}, {class_path: UCB}"
    path.write_text(
        "model: {class_path: lightning_dataselect.demo.DigitsModel}\n"
        "data: {class_path: lightning_dataselect.demo.DigitsData}\n"
        f"trainer: {{max_epochs: 2, accelerator: cpu, callbacks: [{ours}, {STOPPER}]}}\n"
    )
    chosen = RandomPruning()
    trainer, *_ = load_task(str(path)).build(seed=0, epochs=2, callbacks=[chosen], root=tmp_path)
    assert [callback for callback in trainer.callbacks if isinstance(callback, DataSelector)] == [chosen]
    assert "EarlyStopping" in [type(callback).__name__ for callback in trainer.callbacks]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.py", r"nowhere.py cannot be read \(No such file or directory\): give a script .*make_module\(\)"),
        (
            "digit",
            r"give a LightningCLI config, a script .*, or a demo: digits, fashion_mnist. Did you mean digits\?",
        ),
    ],
)
def test_task_that_is_not_there_is_answered_with_what_to_give(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserInputError, match=said):
        task_of(given, epochs=2, data_dir=None)
