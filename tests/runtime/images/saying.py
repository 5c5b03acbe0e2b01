"""What tests of images ask of a reading: its one-line error, or that it is silent; and what this OpenCV reads."""

import warnings

import cv2
import pytest

from ortcam.errors import ImageError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.reading import read_image

BUILD = cv2.getBuildInformation()
needs_gif = pytest.mark.skipif("GIF:                         YES" not in BUILD, reason="this OpenCV reads no GIF")
needs_avif = pytest.mark.skipif("AVIF:                        " not in BUILD, reason="this OpenCV reads no AVIF")

PREPROCESSING = Preprocessing(8, 8, None, (0,) * 3, (1,) * 3)


def message(source, **options):
    """The one line of the error that reading gives."""
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_in_silence(data, **options):
    """The pixels; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_image(data, **options)
