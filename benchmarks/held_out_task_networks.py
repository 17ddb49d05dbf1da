"""The networks of `benchmarks.held_out_tasks` that no other tasks have."""

from torch import Tensor, nn

from benchmarks.frontier_tasks import Residual

N_CHARACTERS = 65


class Mixed(nn.Module):
    """Two layers that mix the patches of an image and two that mix their channels, each beside a shortcut."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.over_patches = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.over_channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.first(x).mT).mT
        return x + self.over_channels(self.second(x))


class Mixer(nn.Module):
    """An MLP-Mixer of two blocks on the sixteen patches of an image of 28 x 28."""

    def __init__(self, n_out: int, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.blocks = nn.Sequential(Mixed(16, width), Mixed(16, width), nn.LayerNorm(width))
        self.head = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).flatten(2).mT).mean(1))


class Characters(nn.Module):
    """A GRU that tells after each character the next one, (N, characters, length)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.characters, self.gru = nn.Embedding(N_CHARACTERS, 24), nn.GRU(24, width, batch_first=True)
        self.head = nn.Linear(width, N_CHARACTERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.characters(x))[0]).mT


def small_resnet(n_out: int, width: int = 12) -> nn.Module:
    """Two residual blocks with batch norm behind a convolution of stride 2, for images of 32 x 32."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_out),
    )  # fmt: skip
