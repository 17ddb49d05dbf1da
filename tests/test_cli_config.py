"""The callback in a LightningCLI: by arguments and by a config file."""

import pytest
import yaml
from helpers import Hardest, Net, loader

pytest.importorskip("jsonargparse")

import lightning as L
from lightning.pytorch.cli import LightningCLI


class Plain(Net):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr=lr)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(20, 10, False)


OFF = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 2,
}


def run(arguments):
    return LightningCLI(Plain, Data, save_config_callback=None, trainer_defaults=OFF, args=arguments)


def selector_of(cli):
    return next(c for c in cli.trainer.callbacks if isinstance(c, Hardest))


def test_by_arguments():
    cli = run(["fit", "--trainer.callbacks+=helpers.Hardest", "--trainer.callbacks.prune_ratio=0.3"])
    assert [r["n_backward"] for r in selector_of(cli).history] == [100, 70]


def test_by_a_config_file(tmp_path):
    selector = {"class_path": "helpers.Hardest", "init_args": {"prune_ratio": 0.2, "sample_loss": "auto", "seed": 4}}
    (tmp_path / "config.yaml").write_text(yaml.dump({"trainer": {"callbacks": [selector]}}))
    cli = run(["fit", "--config", str(tmp_path / "config.yaml")])
    assert [r["n_backward"] for r in selector_of(cli).history] == [100, 80]
    assert selector_of(cli).seed == 4


def test_a_bad_value_ends_with_the_message(capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        run(["fit", "--trainer.callbacks+=helpers.Hardest", "--trainer.callbacks.prune_ratio=1.5"])
    assert "prune_ratio=1.5 is outside [0, 1)" in str(caught.value) + capsys.readouterr().err
