"""Maps with scales of their own along rows and columns, of a part of the image, in stripes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.export.graphs.networks import IMAGE, SAID, STRETCHED, Pooled, grid, head, onnx_file, trunk
from tests.export.zoo.graphs import LABELS
from torch import nn

import ortcam
from ortcam_export import ExportError, export, inspect_model
from ortcam_export.graphs.layers.layouts import Arrangement, arrange
from ortcam_export.graphs.layers.painting import Answers


class Cropped(nn.Module):
    """Looks at a part of the image alone: its maps, laid over all of the image, would lie beside what they show."""

    def __init__(self) -> None:
        super().__init__()
        self.f = trunk(2, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.f(image[:, :, :48, 24:72])


@pytest.mark.slow
@pytest.mark.parametrize("name", STRETCHED)
def test_rows_and_columns_may_have_scales_of_their_own(name: str, tmp_path: Path) -> None:
    front, size, shape = STRETCHED[name]
    path = onnx_file(Pooled(front(), shape[0]), tmp_path, size)
    said: list[str] = []
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS, report=said.append)
    cut = bundle.manifest.cut
    assert (cut.channels, cut.height, cut.width) == shape
    assert not any("lie behind this layer" in sentence for sentence in said)
    explanation = ortcam.load(bundle.path).explain(np.zeros((*size, 3), np.uint8) + 90, method="scorecam", top_k=1)
    assert explanation.maps.shape == (1, *size)


@pytest.mark.slow
def test_maps_of_a_part_of_the_image_are_refused(tmp_path: Path) -> None:
    path = onnx_file(Pooled(Cropped(), 32), tmp_path, (96, 96))
    for layer in (None, "f"):
        with pytest.raises(ExportError, match="which sees a part of the image alone"):
            export(path, tmp_path / "b.ortcam", layer=layer, **SAID, labels=LABELS)


def test_the_narrow_border_that_long_strides_leave_out_is_no_crop() -> None:
    found = Answers(*grid(4, 4), unseen=(0, 1 / 8))
    assert arrange((2, 5, 4, 4), IMAGE, {1: found}) == Arrangement("nchw", 5, 4, 4)
    assert "sees a part" in str(arrange((2, 5, 12, 12), IMAGE, {1: Answers(*grid(12, 12), unseen=(0, 1 / 8))}))


@pytest.mark.slow
def test_a_network_that_is_mostly_behind_its_default_layer_says_so(tmp_path: Path) -> None:
    class Early(nn.Module):
        """Two networks behind one common layer."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = trunk(2), nn.Conv2d(16, 64, 3), nn.Conv2d(16, 64, 3)
            self.l = head(nn.Linear(64, 5))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            maps = self.stem(image)
            return self.l(self.a(maps).mean((2, 3)) * self.b(maps).amax((2, 3)))

    said: list[str] = []
    path = onnx_file(Early(), tmp_path, (48, 64))
    bundle = export(path, tmp_path / "b.ortcam", **SAID, labels=LABELS, report=said.append)
    assert bundle.manifest.cut.module == "stem"
    assert any("of the model's multiply-adds lie behind this layer" in sentence for sentence in said)


class Stripes(nn.Module):
    """A head for each horizontal stripe of the maps, as networks that find persons again have them."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.heads = trunk(2, 2, 2), nn.ModuleList(nn.Linear(32, 5) for _ in range(4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stripes = self.f(image).chunk(4, dim=2)
        return sum(head(stripe.mean((2, 3))) for head, stripe in zip(self.heads, stripes, strict=True))


def test_maps_that_are_cut_into_parts_of_the_image_are_the_default_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inspection = inspect_model(onnx_file(Stripes(), tmp_path, (64, 64)))
    assert inspection.default is not None
    assert (inspection.default.cut.module, inspection.default.operator) == ("f", "Relu")
