"""Samples as pictures of a page: what is cut off of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lightning_dataselect.report.specimens import as_uri


def shown(pixels):
    """The picture that a browser would show."""
    kind, _, data = as_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_padding_is_cut_off_and_a_margin_is_not(channels):
    picture = np.zeros((8, 8, *channels))
    picture[:, 2:6] = 1.0  # as wide as a stroke of a digit: half of the pixels
    assert shown(picture).shape[:2] == (72, 72)
    padded = np.zeros((16, 16, *channels))
    padded[:8, :8] = picture + 0.1
    whole, alone = shown(padded / 1.1), shown((picture + 0.1) / 1.1)
    assert (whole == alone).all()


def test_a_black_picture_stays_whole():
    assert not shown(np.zeros((4, 8))).any() and shown(np.zeros((4, 8))).shape == (36, 72)
