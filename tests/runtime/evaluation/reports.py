"""What the tests of the report measure and read: scores that are made up, and the elements of a page."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import numpy as np

from ortcam.evaluation.entries import Entry
from ortcam.evaluation.measuring import THUMBNAIL, Measurement
from ortcam.evaluation.protocols import resolve_protocol
from ortcam.images.encoding import write_png
from ortcam.images.preprocessing import Preprocessing

HOSTILE = "</script><!--<script>alert(1)</script>\u2028.png"
QUOTED = "a\" onerror='alert(2)' {{ 7 * 7 }}.png"
METHODS = [Entry("scorecam", "Score-CAM"), Entry("iscam:samples=4", "IS-CAM (samples 4)")]
PREPROCESSING = Preprocessing(
    height=32, width=48, resize=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), channel_order="bgr", scale=255.0
)
MORE = {
    "settings": {"bundle": "c981" * 16, "images": "photographs", "annotations": None, "seed": 0, "metrics": ["adcc"]},
    "protocol": dataclasses.asdict(resolve_protocol("soft-map")),
    "model": {"name": "tiny", "source": "onnx", "weights": None, "weights_sha256": None},
    "providers": ["CPUExecutionProvider"],
    "versions": {"ortcam": "1.2.3", "onnxruntime": "1.20"},
    "failures": [],
    "notes": [],
}
METRICS = ("average-drop", "increase", "win", "insertion-zero", "deletion-zero", "coherency", "complexity", "adcc")
ADCC = ("average-drop", "coherency", "complexity", "adcc")  # and what it is made of


def picture_of(folder, image):
    """Blue, with a red left half."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[..., 2] = 100 + image
    pixels[:, :24] = 220, 30, 20
    write_png(folder / "picture.png", pixels)
    return (folder / "picture.png").read_bytes()


def random_scores(image, method):
    rng = np.random.default_rng((image, method))
    return dict.fromkeys(METRICS, 0.0) | {"adcc": rng.uniform(40, 60), "average-drop": rng.uniform(0, 30)}


def measurement_of(name, entry, values, wanted):
    curves = {key: np.linspace(0.1, 0.9, 11).tolist() for key in wanted if key.startswith(("insertion", "deletion"))}
    thumbnail = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    thumbnail[:, THUMBNAIL // 2 :] = 255
    return Measurement(
        image=name,
        variant=entry,
        label=1,
        target=1,
        probability=0.75,
        clean=0.75,
        masked=values["adcc"] / 100,
        flat=False,
        seconds=0.5,
        passes=64,
        scores={key: values[key] for key in wanted if key in values and key != "win"},
        curves=curves,
        thumbnail=thumbnail,
    )


class Page(HTMLParser):
    """The page's elements in order, and its text."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.source = path.read_text("utf-8")
        self.elements, self.text = [], []
        self._silent = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.text.append(data)

    def of(self, tag, **wanted):
        return [has for name, has in self.elements if name == tag and wanted.items() <= has.items()]

    def cards(self):
        """Names of the photographs, in their order."""
        return re.findall(r"The photograph (.*?), cropped as", "\n".join(has["alt"] for has in self.of("img")))


def names(count):
    return [f"photo-{number:02}.png" for number in range(count)]


def policy_name(script):
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
