"""A small network that learns next to the training which samples are worth training on; knows no Trainer."""

from lightning_dataselect.assistant.assistant import Assistant, Record, Verdict
from lightning_dataselect.assistant.desk import Desk, InlineDesk, ThreadDesk, Waiting
from lightning_dataselect.assistant.inputs import InputFinder, InputReader, Kind, SampleInputs
from lightning_dataselect.assistant.networks import CONVENTIONS, Conventions, default_network, make_network

__all__ = [
    "CONVENTIONS",
    "Assistant",
    "Conventions",
    "Desk",
    "InlineDesk",
    "InputFinder",
    "InputReader",
    "Kind",
    "Record",
    "SampleInputs",
    "ThreadDesk",
    "Verdict",
    "Waiting",
    "default_network",
    "make_network",
]
