"""timm, torchvision and segmentation-models-pytorch: their networks, losses and transforms."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from harness import Case, check_batch_method, check_losses, check_trains, fit, rows_loader

from lightning_dataselect import InfoBatch
from lightning_dataselect.capture import CaptureError

N = 32
IMAGES = torch.randn(N, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % 4
MASKS = (IMAGES[:, 0] > 0).long()


class Images(L.LightningModule):
    def __init__(self, network, loss):
        super().__init__()
        self.network, self.loss = network, loss

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self.network(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def case(network, loss, targets):
    def module():
        torch.manual_seed(0)
        return Images(network(), loss)

    return Case(module, rows_loader(list(zip(IMAGES, targets, strict=True))))


def check(made):
    check_losses(made)
    check_trains(made)


def timm_vit():
    return pytest.importorskip("timm").create_model("test_vit", num_classes=4, img_size=32)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        ("LabelSmoothingCrossEntropy", {"smoothing": 0.1}),
        ("BinaryCrossEntropy", {}),
        ("BinaryCrossEntropy", {"sum_classes": True}),
        ("AsymmetricLossSingleLabel", {}),
    ],
)
def test_timm_with_class_targets(loss, arguments):
    losses = pytest.importorskip("timm.loss")
    check(case(timm_vit, getattr(losses, loss)(**arguments), CLASSES))


def test_timm_with_soft_targets():
    losses = pytest.importorskip("timm.loss")
    soft = 0.9 * F.one_hot(CLASSES, 4) + 0.025
    check(case(timm_vit, losses.SoftTargetCrossEntropy(), soft))


def test_timm_by_batches():
    losses = pytest.importorskip("timm.loss")
    check_batch_method(case(timm_vit, losses.LabelSmoothingCrossEntropy(), CLASSES))


def test_timm_mixup():
    timm_data, losses = pytest.importorskip("timm.data"), pytest.importorskip("timm.loss")

    class Mixed(Images):
        def __init__(self, network, loss):
            super().__init__(network, loss)
            self.mixup = timm_data.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=4)

        def training_step(self, batch, batch_idx):
            return super().training_step(self.mixup(*batch), batch_idx)

    rows = rows_loader(list(zip(IMAGES, CLASSES, strict=True)), drop_last=True)  # it mixes even batches only
    check_trains(Case(lambda: Mixed(timm_vit(), losses.SoftTargetCrossEntropy()), rows))


def shufflenet():
    return pytest.importorskip("torchvision").models.shufflenet_v2_x0_5(num_classes=4)


def test_torchvision_classification():
    made = case(shufflenet, F.cross_entropy, CLASSES)
    check(made)
    check_batch_method(made)


def test_torchvision_focal_loss():
    ops = pytest.importorskip("torchvision.ops")
    targets = F.one_hot(CLASSES, 4).float()
    check_losses(case(shufflenet, lambda x, y: ops.sigmoid_focal_loss(x, y, reduction="mean"), targets))


def test_torchvision_segmentation_with_an_auxiliary_head():
    segmentation = pytest.importorskip("torchvision.models.segmentation")

    def network():
        return segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)

    def loss(out, masks):
        return F.cross_entropy(out["out"], masks) + 0.5 * F.cross_entropy(out["aux"], masks)

    check_losses(case(network, loss, MASKS))


def test_torchvision_detection_is_refused_with_a_way_out():
    detection = pytest.importorskip("torchvision.models.detection")

    class Detection(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)

        def training_step(self, batch, batch_idx):
            return sum(self.network(*batch).values())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    def rows(batch_size):
        boxes = torch.tensor([[2.0, 2, 20, 20], [5.0, 8, 30, 30]])
        data = [(image, {"boxes": boxes[: 1 + i % 2], "labels": torch.ones(1 + i % 2).long()})
                for i, image in enumerate(IMAGES[:16])]  # fmt: skip
        collate = lambda items: tuple(map(list, zip(*items, strict=True)))  # noqa: E731
        return torch.utils.data.DataLoader(data, batch_size, collate_fn=collate)

    with pytest.raises(CaptureError, match="selects rows of the batch"):  # its hardest negatives
        fit(Case(Detection, rows), InfoBatch(), batch_size=8, max_epochs=1)


def unet(classes):
    models = pytest.importorskip("segmentation_models_pytorch")
    return models.Unet("resnet18", encoder_weights=None, classes=classes, decoder_channels=(16, 16, 8, 8, 8))


@pytest.mark.parametrize(
    ("loss", "arguments", "classes"),
    [
        ("SoftCrossEntropyLoss", {"smooth_factor": 0.1}, 3),
        ("FocalLoss", {"mode": "multiclass"}, 3),
        ("SoftBCEWithLogitsLoss", {}, 1),
    ],
)
def test_segmentation_models(loss, arguments, classes):
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    targets = MASKS if classes > 1 else MASKS[:, None].float()
    check_losses(case(lambda: unet(classes), getattr(losses, loss)(**arguments), targets))


def test_segmentation_models_by_batches():
    check_batch_method(case(lambda: unet(3), F.cross_entropy, MASKS))


@pytest.mark.parametrize("loss", ["DiceLoss", "JaccardLoss", "LovaszLoss"])
def test_loss_of_the_whole_batch_is_refused_with_a_way_out(loss):
    losses = pytest.importorskip("segmentation_models_pytorch.losses")
    made = case(lambda: unet(1), getattr(losses, loss)("binary"), MASKS[:, None].float())
    with pytest.raises(CaptureError, match="sample_loss"):
        fit(made, InfoBatch(), batch_size=8, max_epochs=1)
