"""Pages of reports for tests: what is written on them, and how it is read."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

from ortcam.evaluation.entries import Entry
from ortcam.evaluation.protocols import resolve_protocol
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


def names(count):
    return [f"photo-{number:02}.png" for number in range(count)]


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


def policy_name(script):
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
