"""Images: every method at 30, 50 and 70 % dropped, beside full data, fewer epochs of it, and random subsets.

    python -m benchmarks.images --data-dir DIR [--only fashion_mnist] [--seeds N] [--out bench-out]

- cifar10: ResNet-18 on CIFAR-10 (DIR/cifar10/cifar10_a.npz and cifar10_b.npz), 24 epochs; for a GPU, on which the
  images lie from the start;
- fashion_mnist: a small network on 12,000 images of Fashion-MNIST (DIR/fashion_mnist/fashion_mnist.npz), for a machine
  without one;
- fashion_mnist_newer: Frontier and the methods since 2024, at 50 % alone;
- fashion_mnist_batch_loss: InfoBatch and SeTa by per-sample losses, and by a running mean of the batch's loss;
- fashion_mnist_seldom: methods that score one batch in four, beside those that score all;
- fashion_mnist_scaled: a method that scores images at half of their height and width, beside scoring them whole;
- fashion_mnist_window: a method that chooses in every epoch and batch, beside a window of epochs, and of these every
  second batch trained on whole, as in composer;
- cifar10_short, made_up_short: a method of each kind for six epochs, as `benchmarks.gpu_check` runs them; the second on
  made-up images of CIFAR-10's shape, without DIR.

`--quick` takes scikit-learn's digits and needs no DIR.
"""

import argparse
import sys
from typing import Any

from benchmarks.harness import Part, data_file, run_study, trainer_section
from benchmarks.methods import baselines, every_method, newer, unique, within

FASHION_MNIST_EPOCHS = 8
# One batch in four is scored; the others go by what is known of their samples.
SELDOM_SCORED = [f"{name}(batch_ratio=0.5, score_every_n_batches=4)" for name in ("EvolvedSampling", "ESWP")]
BY = ("", ", sample_loss='batch'")


def image_config(model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return a LightningCLI config of `Classifier` on `ImageData`."""
    return {
        "model": {"class_path": "benchmarks.classifier.Classifier", "init_args": model},
        "data": {"class_path": "benchmarks.image_data.ImageData", "init_args": data},
        "trainer": trainer_section(),
    }


def cifar10_config(folder: str | None, **data: Any) -> dict[str, Any]:
    """Return the config of ResNet-18 under a recipe that is meant to reach 94 % in 24 epochs."""
    return image_config(
        {"net": "resnet18", "n_inputs": 3, "n_classes": 10, "lr": 0.2, "label_smoothing": 0.1},
        {
            **{"name": "cifar10", "data_dir": folder, "batch_size": 256, "n_val": 2500},
            **{"flip": True, "crop": 4, "cutout": 8},
            **data,
        },
    )


def fashion_mnist_config(folder: str, **data: Any) -> dict[str, Any]:
    """Return the config of a network of three convolutions, for two cores."""
    return image_config(
        {"net": "small_cnn", "n_inputs": 1, "n_classes": 10, "lr": 0.02, "optimizer": "adamw", "width": 8},
        {
            **{"name": "fashion_mnist", "data_dir": folder, "batch_size": 128, "n_train": 12_000},
            **data,
        },
    )


def digits_config(**data: Any) -> dict[str, Any]:
    """Return the config of two hidden layers on scikit-learn's digits, for `--quick`."""
    return image_config(
        {"net": "mlp", "n_inputs": 64, "n_classes": 10, "lr": 0.1, "width": 64},
        {"name": "digits", "batch_size": 64, "n_val": 300, **data},
    )


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        methods = [*baselines(0.5), "InfoBatch(prune_ratio=0.5)", "ESWP(batch_ratio=0.5)"]
        return [Part("digits", "digits, two hidden layers", digits_config(), 4, methods)]
    every, headline = unique(every_method(0.5), every_method(0.3), every_method(0.7)), every_method(0.5)
    made = []
    if arguments.only is None or "cifar10" in arguments.only:
        title = "CIFAR-10, ResNet-18, 24 epochs, SGD with OneCycle, flip, crop and cutout"
        config = cifar10_config(data_file(arguments, "cifar10", "cifar10_b.npz"))
        made.append(Part("cifar10", title, config, 24, [*every, *SELDOM_SCORED], headline=headline + SELDOM_SCORED))
    if arguments.only is None or any(name.startswith("fashion_mnist") for name in arguments.only):
        title = "Fashion-MNIST, three convolutions, 8 epochs, AdamW with OneCycle"
        config = fashion_mnist_config(data_file(arguments, "fashion_mnist", "fashion_mnist.npz"))
        note = "12,000 of the 60,000 training images, drawn once; 5,000 others for validation; all 10,000 for the test."
        common: dict[str, Any] = {"config": config, "epochs": FASHION_MNIST_EPOCHS, "seeds": 5, "note": note}
        made.append(Part("fashion_mnist", title, methods=every, headline=headline, **common))
        title = "Fashion-MNIST, the same recipe: Frontier and the methods since 2024"
        made.append(Part("fashion_mnist_newer", title, methods=[*baselines(0.5), *newer(0.5)], **common))
        title = "Fashion-MNIST, the same recipe: per-sample losses, and the batch's loss in their place"
        methods = [*baselines(0.5), *(f"{name}(prune_ratio=0.5{how})" for name in ("InfoBatch", "SeTa") for how in BY)]
        made.append(Part("fashion_mnist_batch_loss", title, methods=methods, **common))
        methods = ["EvolvedSampling(batch_ratio=0.5)", "ESWP(batch_ratio=0.5)", *SELDOM_SCORED, within(0.5)]
        title = "Fashion-MNIST, the same recipe: scoring every batch, and one in four"
        made.append(Part("fashion_mnist_seldom", title, methods=methods, **common))
        title = "Fashion-MNIST, the same recipe: scoring images whole, and at half of their size"
        methods = [f"EvolvedSampling(batch_ratio=0.5{how})" for how in ("", ", score_scale=0.5")]
        made.append(Part("fashion_mnist_scaled", title, methods=methods, **common))
        window = ", warmup_epochs=4, anneal=0.125"
        methods = [f"SelectiveBackprop(beta=1.0{how})" for how in ("", window, f"{window}, whole_every_n_batches=2")]
        title = "Fashion-MNIST, the same recipe: choosing throughout, and in a window of epochs"
        made.append(Part("fashion_mnist_window", title, methods=methods, **common))
    if arguments.only is not None and "cifar10_short" in arguments.only:
        made.append(_short("CIFAR-10", "cifar10", data_dir=data_file(arguments, "cifar10", "cifar10_b.npz")))
    if arguments.only is not None and "made_up_short" in arguments.only:
        made.append(_short("Made-up images of CIFAR-10's shape", "made_up", data_dir=None))
    return made


def _short(title: str, name: str, data_dir: str | None) -> Part:
    config = cifar10_config(data_dir, name=name)
    methods = [*baselines(0.5), "InfoBatch(prune_ratio=0.5)", "EvolvedSampling(batch_ratio=0.5)"]
    return Part(f"{name}_short", f"{title}, ResNet-18, 6 epochs", config, 6, methods, seeds=1)


if __name__ == "__main__":
    sys.exit(run_study("images", parts, __doc__))
