"""Wrong labels: where does choosing by loss hurt, and by how much?

    python -m benchmarks.noisy_labels --data-dir DIR [--only flipped_0 flipped_20 flipped_40] [--seeds N]

- flipped_0, flipped_20, flipped_40: the network and images of `benchmarks.images --only fashion_mnist` with 0, 20 and
  40 % of the training labels replaced by another class, drawn evenly;
- flipped_40_newer: the same, with Frontier and the methods since 2024;
- cifar10n_random1, cifar10n_worse: `benchmarks.images --only cifar10` with labels that people gave, 17 and 40 % of
  them wrong (DIR/cifar_n/cifar10n.npz besides); for a GPU.

The labels of the validation split and of the test images are the true ones. `--quick` flips digits and needs no DIR.
"""

import argparse
import sys

from benchmarks.harness import Part, data_file, run_study
from benchmarks.images import FASHION_MNIST_EPOCHS, cifar10_config, digits_config, fashion_mnist_config
from benchmarks.methods import baselines, newer, within

RATIO = 0.5
METHODS = [
    *baselines(RATIO),
    within(RATIO),
    f"InfoBatch(prune_ratio={RATIO})",
    f"SeTa(prune_ratio={RATIO})",
    f"UCB(prune_ratio={RATIO}, every_n_epochs=2)",
    f"EL2N(prune_ratio={RATIO}, warmup_epochs=2)",
    f"ESWP(batch_ratio={RATIO})",
    f"SelectiveBackprop(beta={1 / RATIO - 1})",
    f"RHOLoss(batch_ratio={RATIO})",
]
SHARES = (0, 20, 40)
PEOPLE = {"cifar10n_random1": ("random_label1", 17), "cifar10n_worse": ("worse_label", 40)}


def parts(arguments: argparse.Namespace) -> list[Part]:
    if arguments.quick:
        methods = [*baselines(RATIO), f"UCB(prune_ratio={RATIO}, every_n_epochs=2)"]
        return [
            Part(
                f"digits_{share}",
                f"digits, {share} % of the labels flipped",
                digits_config(noise=share / 100),
                4,
                methods,
            )
            for share in (0, 40)
        ]

    def wanted(name: str) -> bool:
        return arguments.only is None or name in arguments.only

    made = []
    for share in SHARES:
        name = f"flipped_{share}"
        if wanted(name) or wanted(f"{name}_newer"):
            folder = data_file(arguments, "fashion_mnist", "fashion_mnist.npz")
            config = fashion_mnist_config(folder, **({"noise": share / 100} if share else {}))
            title = f"Fashion-MNIST, three convolutions, 8 epochs, {share} % of the training labels flipped"
            note = "12,000 of the 60,000 training images, drawn once; validation and test labels are the true ones."
            made.append(Part(name, title, config, FASHION_MNIST_EPOCHS, METHODS, note=note))
            if share == 40:
                title += ": Frontier and the methods since 2024"
                methods = [*baselines(RATIO), *newer(RATIO)]
                made.append(Part(f"{name}_newer", title, config, FASHION_MNIST_EPOCHS, methods, note=note))
    for name, (labels, share) in PEOPLE.items():
        if wanted(name):
            data_file(arguments, "cifar_n", "cifar10n.npz")
            config = cifar10_config(data_file(arguments, "cifar10", "cifar10_b.npz"), human_noise=labels)
            title = f"CIFAR-10N ({labels}, {share} % wrong), ResNet-18, 24 epochs"
            made.append(Part(name, title, config, 24, METHODS))
    return made


if __name__ == "__main__":
    sys.exit(run_study("noisy_labels", parts, __doc__))
