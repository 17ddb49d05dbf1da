"""Every method in any LightningCLI: by arguments, by YAML, and again by the config that was saved."""

import json

import lightning as L
import pytest
import torch
import yaml
from helpers import Hardest
from matrix_settings import EPOCHS, SETTINGS, Tiny, fit, loader, of_each_kind

pytest.importorskip("jsonargparse")

from lightning.pytorch.cli import LightningCLI

from lightning_dataselect import DataSelector

pytestmark = pytest.mark.filterwarnings(
    "ignore:LightningCLI's args parameter", "ignore:(?s).*deprecated in v4", "ignore:(?s).*JsonargparseDeprecation"
)


class Model(Tiny):
    def __init__(self, seed: int = 0):
        super().__init__(seed)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return loader()


class Counter(L.Callback):
    def __init__(self, start: int = 0):
        self.n_steps = start

    def on_train_batch_end(self, *_):
        self.n_steps += 1


class Script:
    """A script with a LightningCLI, whose runs save their config in ``folder``."""

    def __init__(self, folder):
        quiet = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}
        self.defaults = {"accelerator": "cpu", "logger": False, "max_epochs": EPOCHS, "default_root_dir": str(folder)}
        self.defaults |= quiet
        self.saved = folder / "config.yaml"

    def run(self, *arguments):
        return LightningCLI(
            Model,
            Data,
            trainer_defaults=self.defaults,
            save_config_kwargs={"overwrite": True},
            args=["fit", *map(str, arguments)],
        )


def selector_of(cli):
    return next(callback for callback in cli.trainer.callbacks if isinstance(callback, DataSelector))


def same_run(one, other):
    a, b = selector_of(one), selector_of(other)
    assert type(a) is type(b)
    torch.testing.assert_close((a.scores, a.losses, a.selected), (b.scores, b.losses, b.selected), equal_nan=True)
    assert [r["n_backward"] for r in a.history] == [r["n_backward"] for r in b.history]
    for x, y in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(x, y)


@pytest.fixture
def script(tmp_path):
    return Script(tmp_path)


@pytest.mark.parametrize("name", of_each_kind({name: name for name in SETTINGS}))
def test_by_arguments_and_again_by_the_saved_config(name, script, tmp_path):
    setting = SETTINGS[name]
    written = setting.written(tmp_path)
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in written.items()}
    first = script.run(
        f"--trainer.callbacks+=lightning_dataselect.{setting.method}",
        *(f"--trainer.callbacks.{argument}={value}" for argument, value in values.items()),
        "--trainer.callbacks+=test_cli_config.Counter",
        "--trainer.callbacks.start=100",
    )
    counter = next(callback for callback in first.trainer.callbacks if type(callback).__name__ == "Counter")
    assert counter.n_steps == 100 + first.trainer.fit_loop.total_batch_idx + 1
    selector = selector_of(first)
    assert type(selector).__name__ == setting.method
    plain = setting.make(tmp_path)
    fit(plain, Model())
    again = script.run("--config", script.saved)
    if setting.repeats:
        same_run(first, again)
        torch.testing.assert_close(selector.scores, plain.scores, equal_nan=True)


def test_by_yaml(script, tmp_path):
    selector = {"class_path": "helpers.Hardest", "init_args": {"prune_ratio": 0.5, "sample_loss": "auto", "seed": 4}}
    callbacks = [{"class_path": "test_cli_config.Counter"}, selector]
    (tmp_path / "mine.yaml").write_text(yaml.dump({"trainer": {"callbacks": callbacks}}))
    cli = script.run("--config", tmp_path / "mine.yaml")
    assert [r["n_backward"] for r in selector_of(cli).history] == [48, 24, 24, 24]
    assert selector_of(cli).seed == 4
    same_run(cli, script.run("--config", script.saved))


def test_a_class_of_ones_own(script):
    cli = script.run("--trainer.callbacks+=helpers.Hardest", "--trainer.callbacks.prune_ratio=0.5")
    assert type(selector_of(cli)) is Hardest
    assert [r["n_backward"] for r in selector_of(cli).history] == [48, 24, 24, 24]


def test_two_selectors_are_refused(script):
    with pytest.raises(ValueError, match=r"2 selectors \(InfoBatch, UCB\), but only one can decide.*Keep one of them"):
        script.run(
            "--trainer.callbacks+=lightning_dataselect.InfoBatch", "--trainer.callbacks+=lightning_dataselect.UCB"
        )


def test_a_bad_value_ends_with_the_message(script, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        script.run("--trainer.callbacks+=helpers.Hardest", "--trainer.callbacks.prune_ratio=1.5")
    assert "prune_ratio=1.5 is outside [0, 1)" in str(caught.value) + capsys.readouterr().err
