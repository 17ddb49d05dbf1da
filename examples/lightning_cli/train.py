"""A script of your own around LightningCLI.

python train.py fit --config exp.yaml
python train.py fit --config exp.yaml --trainer.callbacks+=lightning_dataselect.UCB --trainer.callbacks.prune_ratio=0.3
"""  # noqa: E501

from lightning.pytorch.cli import LightningCLI

if __name__ == "__main__":
    LightningCLI()
