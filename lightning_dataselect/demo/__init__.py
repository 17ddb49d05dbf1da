"""Small real tasks for `lightning-dataselect compare`: plain modules that know nothing of selection."""

from lightning_dataselect.demo.digits import DigitsData, DigitsModel
from lightning_dataselect.demo.fashion_mnist import FashionMNISTData, FashionMNISTModel

__all__ = ["DigitsData", "DigitsModel", "FashionMNISTData", "FashionMNISTModel"]
