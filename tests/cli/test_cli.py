"""The command line: help, list, and LightningCLI with `--select`."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers import Net
from helpers import loader as make_loader
from lightning.pytorch import LightningDataModule

from lightning_dataselect import list_methods
from lightning_dataselect.cli import lightning as lightning_cli
from lightning_dataselect.cli.main import main
from lightning_dataselect.methods.parts import SAMPLERS, SCORES
from lightning_dataselect.utils.arguments import accepted_arguments

METHODS = {method.name: method.cls for method in list_methods()}

pytestmark = pytest.mark.filterwarnings(
    "ignore:LightningCLI's args parameter", "ignore:(?s).*deprecated in v4", "ignore:(?s).*JsonargparseDeprecation"
)

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
    for part in (*SCORES, *SAMPLERS):
        assert f"│ {part} " in said or f"│{part} " in said
    assert "n_strata=50, cutoff=0.1" in said and "--select.scores FILE" in said


def test_what_is_no_terminal_gets_plain_text(capsys, monkeypatch):
    # as in Jupyter and on many CI machines
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert "InfoBatch" in said and "\x1b" not in said


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "lightning_dataselect", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.stdout.strip() == f"lightning-dataselect {version('lightning-dataselect')}"


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


LIGHT = {
    "": "lightning-dataselect: COMMAND is missing; see lightning-dataselect --help.",
    "fitt": "lightning-dataselect: There is no command 'fitt'. Did you mean fit? The commands are compare, init, list,",
    "--verison": "lightning-dataselect: There is no option --verison. Did you mean --version?",
    "init": "lightning-dataselect init: --model is missing; see",
    "list extra": "lightning-dataselect list: extra is not understood.",
    "list --method UCB": "--method is not understood. The arguments of UCB: lightning-dataselect fit --select.help",
    "list UCB": "UCB is not understood. The arguments of UCB: lightning-dataselect fit --select.help UCB.",
    "compare --metric acc": "compare: --metric is not understood. See lightning-dataselect compare --help.",
    "compare --seds 3": "lightning-dataselect compare: --seds is not understood. Did you mean --seeds?",
    "compare --prune_ratio 0.3": "compare: --prune_ratio is not understood. Did you mean --prune-ratio?",
    "compare --prune-ratio abc": "compare: --prune-ratio: expected float, got abc; see lightning-dataselect",
    "compare --mode up": "compare: --mode: expected one of ",
    "compare --methods full,InfoBach": "compare: There is no method 'InfoBach': did you mean InfoBatch?",
    "compare --seeds 0": "lightning-dataselect compare: --seeds '0': give how many seeds to run, at least 1, as",
    "compare --seeds zero": "compare: --seeds 'zero': give how many seeds to run, at least 1, as in 3; or the seeds",
    "fit --select UBC": "lightning-dataselect fit: --select: There is no method 'UBC'. Did you mean UCB? The",
    "fit --select=ucb": "lightning-dataselect fit: --select ucb: the method is spelt UCB.",
    "fit --select.help UBC": "--select.help: There is no method 'UBC'. Did you mean UCB?",
    "fit --select Mine": "A class of your own goes by its import path, as in my.Mine.",
}


@pytest.mark.parametrize("arguments", LIGHT)
def test_a_misspelt_command_line_is_refused_in_one_sentence(arguments, capsys):
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and LIGHT[arguments] in said[0], said


@pytest.mark.parametrize(("command", "package"), [("compare", "pandas"), ("list", "rich"), ("fit", "jsonargparse")])
def test_a_missing_extra_is_named_with_its_cure(command, package, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find_spec(name))
    assert main([command]) == 2
    cure = f"lightning-dataselect {command}: this command needs {package}: pip install 'lightning-dataselect[report]'."
    assert capsys.readouterr().err.strip() == cure


def test_help_and_version_need_no_extra(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for arguments in (["--version"], ["--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """The selectors of the fits that were run, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    selectors = []

    def after_fit(cli):
        selectors.extend(c for c in cli.trainer.callbacks if isinstance(c, lightning_cli.DataSelector))

    monkeypatch.setattr(lightning_cli.SelectCLI, "after_fit", after_fit, raising=False)
    return selectors


def test_fit_selects_by_short_name(fitted):
    assert main([*FIT, "--select", "RandomPruning", "--select.prune_ratio", "0.75"]) == 0
    (selector,) = fitted
    assert type(selector).__name__ == "RandomPruning"
    assert selector.prune_ratio == 0.75
    assert [record["n_selected"] for record in selector.history] == [24, 24, 24]


def test_fit_goes_without_a_selector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, "--trainer.fast_dev_run", "1"]) == 0


def test_the_saved_config_runs_again_and_gives_the_same_run(fitted, tmp_path):
    assert main([*FIT, "--select", "InfoBatch", "--select.anneal", "0", "--seed_everything", "3"]) == 0
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["select"]["class_path"] == "lightning_dataselect.InfoBatch"
    (tmp_path / "config.yaml").rename(tmp_path / "again.yaml")
    assert main(["fit", "--config", "again.yaml"]) == 0
    first, again = fitted
    assert again.history[-1]["n_backward"] < again.history[0]["n_backward"]
    assert torch.equal(first.selected, again.selected) and torch.equal(first.weights, again.weights)
    torch.testing.assert_close(first.losses, again.losses, rtol=0, atol=0, equal_nan=True)


class Model(Net):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr=lr)

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])


class Data(LightningDataModule):
    def train_dataloader(self):
        return make_loader()

    def val_dataloader(self):
        return make_loader(shuffle=False)

    test_dataloader = predict_dataloader = val_dataloader


def test_every_subcommand_goes_on_from_the_checkpoint_of_a_fit(fitted, tmp_path):
    task = ["--model", "test_cli.Model", "--data", "test_cli.Data", "--select", "UCB", *FIT[7:]]
    assert main(["fit", *task]) == 0
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    for command in ("validate", "test", "predict"):
        (tmp_path / "config.yaml").unlink(missing_ok=True)
        assert main([command, *task, "--ckpt_path", str(checkpoint)]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_the_help_of_a_method_explains_each_argument(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--select.help", name])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    arguments = list(accepted_arguments(METHODS[name]))
    assert "seed" in arguments and ("sample_loss" in arguments) == (name != "FewerEpochs")
    explained = {}
    for part in said.split(" --select.")[1:]:
        argument, _, rest = part.partition(" ")
        if re.search(r"\(type: .*\)", rest):
            metavar, _, text = rest.partition(" ")
            explained[argument.removesuffix("+")] = text[: text.rindex("(type:")]
    assert sorted(explained) == sorted(set(arguments))
    for argument, text in explained.items():
        assert len(text.split()) >= 3 and not text.startswith("see "), argument
    assert "known subclasses" not in said and "``" not in said


WRONG = {
    "--select UBC": "--select: There is no method 'UBC'. Did you mean UCB? The methods are AutoAssist, CCS,",
    "--select ucb": "--select ucb: the method is spelt UCB.",
    "--select.help UBC": "There is no method 'UBC'. Did you mean UCB?",
    "--select my.Nope": "--select: my.Nope cannot be imported: No module named 'my'.",
    "--select torch.nn.Linear": "--select: torch.nn.Linear is no subclass of DataSelector.",
    "--select DataSelector": "--select: no method is named. Name one before its arguments, as in --select UCB",
    "--select.prune_ratio 0.3": "--select: no method is named. Name one before its arguments, as in --select UCB",
    "--select UCB --select.prune_ration 0.3": "UCB takes no argument 'prune_ration'. Did you mean prune_ratio, the",
    "--select UCB --select.logged_loss weighted": "'logged_loss'. It would change nothing, as it never weights samples",
    "--select UCB --select.prune_ratio abc": "prune_ratio='abc' is neither a number nor a schedule. Write one as in",
    "--select UCB --select.prune_ratio 2": "prune_ratio=2.0 is outside [0, 1): give the share of samples",
    "--select UCB --select.lr_schedule x": "--select.lr_schedule: expected one of 'stretch', 'steps', got x.",
    "--select UCB --select.sample_loss my.f": "sample_loss='my.f' cannot be imported: No module named 'my'. Give the",
    "--select UCB --select.sample_loss math.sin_": "sample_loss='math.sin_' cannot be imported: module 'math' has no",
    "--select UCB --select.sample_loss math.pi": "sample_loss='math.pi' is 3.14",
    "--select ScoreSelector --select.sampler startified": "sampler='startified' is unknown. Did you mean stratified?",
    "--select EL2N --select.scores none.csv": "scores='none.csv': there is no such file.",
    "--trainer.callbacks+=UCB --trainer.callbacks.prune_ratio=1": "prune_ratio=1.0 is outside [0, 1)",
    "--trainer.callbacks+=lightning_dataselect.InfoBach": "has no attribute 'InfoBach'. Did you mean InfoBatch?",
    "--trainer.callbacks+=UBC": "--trainer.callbacks: 'UBC' names no class. Did you mean UCB?",
    "--select UCB --trainer.callbacks+=InfoBatch": "keep one of them. --trainer.callbacks=null leaves out those of",
    "--config none.yaml": "none.yaml'.",
    "--config bad.yaml": "UCB takes no argument 'prune_ration'. Did you mean prune_ratio, the",
    "--config beside.yaml": "--select: what a class takes stands under its init_args, indented, not beside its class_p",
    "--config beside_in_list.yaml": "--trainer.callbacks: what a class takes stands under its init_args, indented,",
    "--config nameless.yaml": "--select: name the class under class_path, and what it takes under init_args.",
    "--config torn.yaml": "--config is not YAML: line 2, column 1: did not find expected node content while",
    "--config list.yaml": "--config: a config holds sections such as model, data, trainer and select, but this one",
    "--config empty.yaml": "--config: a config holds sections such as model, data, trainer and select, but this one",
    "--config section.yaml": "There is no option --trainr.max_epochs. Did you mean --trainer.max_epochs?",
    "--config trainer.yaml": "There is no option --trainer.max_epoch. Did you mean --trainer.max_epochs?",
    "--config section_of_list.yaml": "--trainer: give its arguments by name, as in max_epochs: 3, not ['max",
    "--ckpt_path none.ckpt": "--ckpt_path none.ckpt: there is no such file.",
    "--selct UCB": "There is no option --selct. Did you mean --select?",
    "exp.yaml": "exp.yaml stands alone, without an option. If it is a config, give --config exp.yaml.",
    "--select UCB --select": "--select: expected one argument.",
    "--select UCB --select.every_n_epochs 0": "every_n_epochs=0 is too small: give an int of at least 1.",
    "--select UCB --select.every_n_epochs 1.5": "--select.every_n_epochs: expected int, got 1.5.",
    "--select lightning_dataselect.UBC": "lightning_dataselect.UBC cannot be imported: module 'light",
    "--trainer.callbacks+=EarlyStoping": "'EarlyStoping' names no class. Did you mean EarlyStopping",
    "--trainer.max_epochs x": "--trainer.max_epochs: expected int, got x.",
    "--trainer.overfit_batches x": "--trainer.overfit_batches: expected int or float, got x.",
    "--trainer.accelerator tpuu": "--trainer: You selected an invalid accelerator name: `accelerator='tpuu'`.",
    "--trainer.val_check_interval 1.5": "--trainer: You have passed invalid value 1.5 for val_check_interval",
    "--data.n_vaal 3": "DigitsData takes no argument 'n_vaal'. Did you mean n_val?",
    "--data.n_val 3000": "n_val=3000: hold out between 1 and 1796 of the 1797 digits.",
    "--model lightning_dataselect.demo.DigitsModl": "no attribute 'DigitsModl'. Did you mean DigitsModel?",
    "--model my.No": "--model: my.No cannot be imported: No module named 'my'.",
    "--optimizer Foo": "--optimizer: 'Foo' names no class. A class of your own goes by its import path, as in my.Foo.",
    "--optimizer Adma": "--optimizer: 'Adma' names no class. Did you mean Adamax or Adam?",
    "--optimizer Adam --optimizer.lrr 3": "Adam takes no argument 'lrr'. Did you mean lr?",
    "--lr_scheduler StepLr": "--lr_scheduler: 'StepLr' names no class. Did you mean StepLR",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_input_ends_in_one_plain_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("select: {class_path: UCB, init_args: {prune_ration: 0.5}}")
    (tmp_path / "beside.yaml").write_text("select: {class_path: UCB, prune_ratio: 0.5}")
    (tmp_path / "beside_in_list.yaml").write_text("trainer: {callbacks: [{class_path: UCB, prune_ratio: 0.5}]}")
    (tmp_path / "nameless.yaml").write_text("select: {name: UCB}")
    (tmp_path / "torn.yaml").write_text("select: {class_path: [")
    (tmp_path / "list.yaml").write_text("- model\n- data\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "section.yaml").write_text("trainr: {max_epochs: 3}")
    (tmp_path / "trainer.yaml").write_text("trainer: {max_epoch: 3}")
    (tmp_path / "section_of_list.yaml").write_text("trainer: [max_epochs, 3]")
    assert main([*FIT, *arguments.split()]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("seed set to 0")]
    assert len(said) == 1 and said[0].startswith("lightning-dataselect fit: "), said
    assert WRONG[arguments] in said[0] and said[0].count("Did you mean") <= 1


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_missing_model_is_named(command, capsys):
    assert main([command]) == 2
    way_out = "Give --config exp.yaml, or --model my.Model --data my.Data."
    assert capsys.readouterr().err.strip() == f"lightning-dataselect {command}: --model is missing. {way_out}"


def test_missing_data_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--model", "test_cli.Model"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lightning-dataselect fit: --data is missing, and Model has no train_dataloader of its own.")


class BringsItsData(Model):
    def train_dataloader(self):
        return make_loader()


def test_a_module_with_its_own_loader_needs_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--model", "test_cli.BringsItsData", *FIT[7:], "--trainer.fast_dev_run", "1"]) == 0


def test_a_fit_without_a_logger_can_be_run_again_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for epochs in ("1", "2"):
        assert main([*FIT, "--trainer.enable_checkpointing", "false", "--trainer.max_epochs", epochs]) == 0
        assert f"max_epochs: {epochs}\n" in (tmp_path / "config.yaml").read_text()


def test_a_config_that_no_run_has_saved_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("mine: 1")
    assert main([*FIT, "--trainer.enable_checkpointing", "false"]) == 2
    said = (
        f"fit: {tmp_path} holds a config.yaml that no run has saved there, where that of this run would be saved: move"
    )
    assert said in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "mine: 1"


def test_an_error_of_the_users_own_code_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a slip of the user's") as caught:
        main(["fit", "--model", "test_cli.SlipsWhenMade", *NAMED])
    assert str(caught.value.__cause__.__cause__) == "its cause"


class SlipsWhenMade(Model):
    def __init__(self):
        raise ValueError("a slip of the user's") from RuntimeError("its cause")


class Named(Model):
    """Says what each sample lost, under a name."""

    def training_step(self, batch, batch_idx):
        losses = F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")
        return {"loss": losses.mean(), "own": 2 * losses}


def own(output):
    return output["own"] / 2


def mean(output):
    return output["own"].mean()


class Contrastive(Model):
    def training_step(self, batch, batch_idx):
        views = self.net(batch[0])
        return F.cross_entropy(views @ views.T, torch.arange(len(views)))


class Slip(Model):
    def training_step(self, batch, batch_idx):
        raise TypeError("a slip of the user's")


NAMED = ["--data", "test_cli.Data", *FIT[7:], "--select", "InfoBatch"]


@pytest.mark.parametrize(("given", "factor"), [("test_cli.own", 1), ("own", 2), ("auto", 1)])
def test_a_sample_loss_is_an_import_path_or_a_key(given, factor, fitted, tmp_path):
    task = ["fit", "--model", "test_cli.Named", *NAMED, "--seed_everything", "3", "--select.prune_ratio", "0"]
    config = tmp_path / "config.yaml"
    assert main([*task, "--select.sample_loss", given]) == 0
    assert yaml.safe_load(config.read_text())["select"]["init_args"]["sample_loss"] == given
    config.rename(tmp_path / "again.yaml")
    assert main(["fit", "--config", "again.yaml"]) == 0
    config.unlink()
    assert main(task) == 0
    named, again, captured = fitted
    torch.testing.assert_close(named.losses, factor * captured.losses)
    torch.testing.assert_close(again.losses, named.losses)


REFUSALS = {
    "--model test_cli.Contrastive": "A sample's loss in this step depends on the other samples of its batch",
    "--model test_cli.Model --select.sample_loss gone": "sample_loss='gone': training_step returned Tensor",
    "--model test_cli.Named --select.sample_loss test_cli.mean": "The result of the callable given as sample_loss",
}


@pytest.mark.parametrize("arguments", REFUSALS)
def test_what_a_selector_refuses_in_a_fit_ends_in_one_plain_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *NAMED, *arguments.split()]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning-dataselect")]
    assert len(said) == 1 and REFUSALS[arguments] in said[0]


def test_a_slip_in_a_training_step_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="a slip of the user's"):
        main(["fit", "--model", "test_cli.Slip", *NAMED])


def test_a_slip_of_our_own_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_dataselect.fit.context.StepReader.run", lambda self: None)
    with pytest.raises(TypeError, match="<lambda>"):
        main(["fit", "--model", "test_cli.Model", *NAMED])


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
        [sys.executable, "-m", "lightning_dataselect", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
