"""Channels of a model's image: which side of a shape they are, what is said of them, and what a module takes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from tests.export.zoo.graphs import GraphBuilder, image_info, tensor_info
from torch import nn

from ortcam.errors import OptionError, OrtcamError
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.presets import PRESETS
from ortcam_export.errors import ExportError
from ortcam_export.request import check_spec, per_channel, with_preset
from ortcam_export.sources.libraries import from_data_config
from ortcam_export.sources.onnx_files.layout import sides_of
from ortcam_export.sources.onnx_files.opening import open_onnx_file
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.preprocessing import assumed_of, unknown_preprocessing
from ortcam_export.sources.pytorch.checkpoints import load_state
from ortcam_export.sources.pytorch.image_channels import channels_of
from ortcam_export.sources.types import DeclaredPreprocessing, InputSpec

FILE = Path("net.onnx")


def image(*sides: int | str | None) -> ir.Value:
    return ir.Value(name="x", shape=ir.Shape(sides), type=ir.TensorType(ir.DataType.FLOAT))


@pytest.mark.parametrize(
    ("sides", "layout", "channels"),
    [
        (("N", 3, 224, 224), "nchw", 3),
        (("N", 224, 224, 3), "nhwc", 3),
        (("N", 1, 28, 28), "nchw", 1),
        (("N", 28, 28, 1), "nhwc", 1),
        ((1, 4, 64, 64), "nchw", 4),
        ((1, 64, 64, 4), "nhwc", 4),
        (("N", 13, 64, 64), "nchw", 13),
        (("N", 64, 64, 13), "nhwc", 13),
        (("N", 1, "h", "w"), "nchw", 1),
        (("N", "h", "w", 13), "nhwc", 13),
        ((1, 28, 28), "nchw", 1),
        ((28, 28, 1), "nhwc", 1),
        (("batch_size", "num_channels", "height", "width"), "nchw", None),
        (("N", None, 224, 224), "nchw", None),
        (("N", 3, 64, 13), "nchw", 3),
    ],
)
def test_the_channels_are_the_side_that_has_fewer_than_rows_and_columns(
    sides: tuple[int | str | None, ...], layout: str, channels: int | None
) -> None:
    found = sides_of(image(*sides), None, None, FILE)
    assert (found.layout, found.channels) == (layout, channels)
    rest = [side if isinstance(side, int) else None for side in sides[-3:]]
    assert [found.height, found.width] == (rest[1:] if layout == "nchw" else rest[:2])


@pytest.mark.parametrize("sides", [("N", 8, 8, 8), ("N", 3, 64, 3), ("N", None, None, None)])
def test_a_shape_that_could_be_either_asks_for_the_layout(sides: tuple[int | str | None, ...]) -> None:
    with pytest.raises(ExportError, match="--input-layout nchw or nhwc"):
        sides_of(image(*sides), None, None, FILE)
    for layout in ("nchw", "nhwc"):
        assert sides_of(image(*sides), layout, None, FILE).layout == layout


@pytest.mark.parametrize(
    ("sides", "guessed"),
    [
        (("N", 224, 224, 3), False),
        (("N", 28, 28, 1), False),
        (("N", 32, 32, 3), True),
        (("N", 64, 64, 13), True),
        (("N", 3, 32, 32), True),
    ],
)
def test_a_layout_is_a_guess_where_the_shape_allows_both(sides: tuple[int | str, ...], guessed: bool) -> None:
    assert sides_of(image(*sides), None, None, FILE).guessed is guessed
    layout = "nhwc" if sides[1] != 3 else "nchw"
    assert sides_of(image(*sides), layout, None, FILE).guessed is False


@pytest.mark.parametrize("side", [32, 96])
def test_an_export_says_that_the_channels_are_guessed_to_be_last(side: int, tmp_path: Path) -> None:
    g = GraphBuilder()
    g.head(g.features(g.op("Transpose", "image", perm=[0, 3, 1, 2])), 4, out="logits")
    given = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", side, side, 3])
    path = g.save(tmp_path / "net.onnx", [given], [tensor_info("logits", ("N", 4))])
    said = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "rgb", "resize": side}
    assumed = open_source(path, spec=InputSpec(**said)).assumed  # type: ignore[arg-type]
    told = [sentence for sentence in assumed if "--input-layout nchw says otherwise" in sentence]
    assert len(told) == (side == 32)
    assert not open_source(path, spec=InputSpec(**said, input_layout="nhwc")).assumed  # type: ignore[arg-type]


def test_masks_hide_to_what_a_pixel_can_be(tmp_path: Path) -> None:
    g = GraphBuilder()
    g.head(g.features("image"), 4, out="logits")
    path = g.save(tmp_path / "net.onnx", [image_info()], [tensor_info("logits", ("N", 4))])

    def opened(value: float, **changes: Any) -> tuple[str, ...]:
        said = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "rgb", "resize": 8} | changes
        return open_source(path, spec=InputSpec(**said, baseline_value=(value,))).assumed

    for wrong in (300.0, 1.5, -0.1):
        with pytest.raises(ExportError, match=rf"--baseline-value {wrong:g}: accepted are 0 \(black\) to 1 \(white\)"):
            opened(wrong)
    for fine, changes in ((0.0, {}), (1.0, {}), (255.0, {"scale": 255.0}), (128.0, {"scale": 255.0})):
        assert opened(fine, **changes) == ()
    bands = {"channel_order": "bands", "value_range": (0.0, 4000.0)}
    assert opened(0.5, **bands) == ()
    (sentence,) = opened(300.0, **bands)
    assert "masks hide to 300, which no sample becomes: 0 becomes 0 and 4000 becomes 1" in sentence


def test_a_number_of_channels_that_is_said_decides() -> None:
    assert sides_of(image("N", 13, 8, 8), None, 13, FILE).layout == "nchw"
    assert sides_of(image("N", 13, 8, 8), None, 8, FILE).layout == "nhwc"
    with pytest.raises(ExportError, match="an image of 1 channel; said are 3"):
        sides_of(image("N", 1, 28, 28), None, 3, FILE)
    with pytest.raises(ExportError, match=r"--input-layout nhwc.*28 channels, and --channels says 1"):
        sides_of(image("N", 1, 40, 28), "nhwc", 1, FILE)


@pytest.mark.parametrize("sides", [("N", 1, 1, 16000), ("N", 65, 70, 70)])
def test_what_is_no_image_is_refused(sides: tuple[int | str, ...]) -> None:
    with pytest.raises(ExportError, match="accepted is an image of 1 to 64 channels"):
        sides_of(image(*sides), None, None, FILE)


def test_one_value_is_that_of_all_channels_and_the_order_follows_from_their_number() -> None:
    spec = InputSpec(mean=(0.5,), std=(0.25,), baseline_value=(0.1,))
    for channels, order in ((1, "grey"), (3, "rgb"), (4, "bands")):
        full = spec.for_channels(channels, "net")
        assert full.baseline_value == (0.1,) * channels
        made = full.preprocessing(8, 8)
        assert (made.mean, made.std, made.channel_order) == ((0.5,) * channels, (0.25,) * channels, order)
        assert made.value_range == ((0.0, 255.0) if order == "bands" else None)


def test_values_for_another_number_of_channels_are_refused() -> None:
    with pytest.raises(ExportError, match=r"net: mean has 3 values.*its input has 1"):
        InputSpec(mean=(0.1, 0.2, 0.3), std=(1.0,)).for_channels(1, "net")
    with pytest.raises(ExportError, match=r"net: --channels 4: its input has 1"):
        InputSpec(channels=4).for_channels(1, "net")
    with pytest.raises(ExportError, match=r"preset imagenet has 3 values"):
        with_preset(InputSpec(), "imagenet").for_channels(1, "net")
    with pytest.raises(ExportError, match=r"channels=65: accepted is a whole number from 1 to 64"):
        check_spec(InputSpec(channels=65))
    with pytest.raises(ExportError, match=r"baseline_value='black': accepted is 'mean', 'zero'"):
        check_spec(InputSpec(baseline_value="black"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["unit", "bytes", "tensorflow"])
def test_presets_of_one_value_go_with_any_number_of_channels(name: str) -> None:
    spec = with_preset(InputSpec(), name)
    assert [len(spec.for_channels(count, "net").preprocessing(8, 8).mean) for count in (1, 3, 13)] == [1, 3, 13]
    assert not any("takes" in sentence for sentence in assumed_of(spec.for_channels(1, "net"), (8, 8)))


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_the_presets_that_are_listed_are_those_that_the_model_takes(channels: int) -> None:
    (note,) = unknown_preprocessing("net", InputSpec(channels=channels)).__notes__
    listed = {line.split()[0] for line in note.splitlines()[1:]}
    for name in PRESETS:
        try:
            with_preset(InputSpec(), name).for_channels(channels, "net").preprocessing(8, 8)
        except OrtcamError:
            assert name not in listed
        else:
            assert name in listed


def test_torchxrayvisions_preset_makes_what_its_normalize_makes() -> None:
    spec = with_preset(InputSpec(), "torchxrayvision")
    made = spec.for_channels(1, "net").preprocessing(*(spec.preset_size or ()))
    assert (made.height, made.width, made.channel_order) == (224, 224, "grey")
    # torchxrayvision.datasets.normalize(x, 255) = (2 x / 255 - 1) 1024; float32 rounds three times.
    values = made.values()[0]
    assert [abs(value - (2 * level / 255 - 1) * 1024) for level, value in enumerate(values)] < [1024 * 2**-22] * 256
    assert with_preset(InputSpec(), "mnist").preset_size == (28, 28)


def test_a_missing_mean_is_asked_for_per_channel() -> None:
    assert "--mean V and --std V" in str(unknown_preprocessing("net", InputSpec(channels=1)))
    assert "--mean V[,V...] and --std V[,V...]" in str(unknown_preprocessing("net", InputSpec(channels=4)))
    assert "--mean R,G,B and --std R,G,B" in str(unknown_preprocessing("net", InputSpec()))


def convolving(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


class MakesGrey(nn.Module):
    """A model of RGB that makes grey itself: its first convolution takes one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolving(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x * torch.tensor([0.3, 0.6, 0.1])[:, None, None]).sum(1, keepdim=True))


def test_a_module_takes_what_its_first_convolution_takes() -> None:
    spec = InputSpec((8, 8))
    assert [channels_of(convolving(count), spec) for count in (1, 2, 3, 13)] == [1, 2, 3, 13]
    assert channels_of(MakesGrey(), spec) == 3
    assert channels_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval(), spec) == 1
    assert channels_of(convolving(3), InputSpec((8, 8), channels=5)) == 5
    script = torch.jit.trace(convolving(4), torch.zeros(1, 4, 8, 8))
    assert channels_of(script, spec) == 4


class TakesDepth(nn.Module):
    """Images and depths, whose convolution comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.colour = nn.Conv2d(1, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, image: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        return (self.colour(image) + self.depth(depth)).mean((2, 3))


def test_the_channels_are_those_of_the_image_where_other_arguments_are_fixed() -> None:
    module, depth = TakesDepth().eval(), np.zeros((1, 8, 8), np.float32)
    assert channels_of(module, InputSpec((8, 8), inputs={"depth": depth})) == 3
    assert channels_of(module, InputSpec((8, 8))) == 3, "of a model that does not run yet"
    four = TakesDepth().eval()
    four.colour = nn.Conv2d(4, 2, 3)
    assert channels_of(four, InputSpec((8, 8), inputs={"depth": depth})) == 4


def test_a_checkpoint_of_another_first_convolution_says_so() -> None:
    with pytest.raises(ExportError, match=r"first convolution 0 takes images of 1 channel, and that of Sequential 3"):
        load_state(convolving(3), convolving(1).state_dict(), Path("grey.pth"))


CONFIG = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center"}


def test_a_data_config_has_any_number_of_channels() -> None:
    config = CONFIG | {"input_size": (4, 32, 32), "mean": (0.1, 0.2, 0.3, 0.4), "std": (1.0,)}
    made = from_data_config(config).preprocessing
    assert (made.channels, made.channel_order, made.std) == (4, "bands", (1.0,) * 4)


def test_a_declared_preprocessing_of_three_channels_needs_the_mean_of_another_number() -> None:
    """As timm's models with `in_chans=1` have it: the config is that of the pretrained weights."""
    config = CONFIG | {"input_size": (3, 32, 32), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}
    spec = InputSpec((32, 32), declared=from_data_config(config))
    with pytest.raises(ExportError, match=r"net: its input has 1 channel, and timm.*of 3; give --mean V and --std V"):
        spec.for_channels(1, "net")
    said = InputSpec((32, 32), declared=from_data_config(config), mean=(0.5,)).for_channels(1, "net")
    assert said.declared is not None
    made = said.declared.preprocessing
    assert (made.mean, made.std, made.channel_order, made.resize) == ((0.5,), (0.2,), "grey", 32)


def test_what_is_declared_of_bands_stays_as_it_is() -> None:
    declared = Preprocessing(8, 8, None, (0.0,) * 3, (1.0,) * 3, channel_order="bands", value_range=(0, 10_000))
    spec = InputSpec((8, 8), declared=DeclaredPreprocessing(declared, "test")).for_channels(3, "net")
    assert spec.declared is not None
    assert spec.declared.preprocessing == declared


def test_values_per_channel() -> None:
    assert (per_channel(None), per_channel(0.5), per_channel([1, 2])) == (None, (0.5,), (1, 2))
    found = per_channel(np.float32([0.5, 0.25]))
    assert found == (0.5, 0.25)
    assert all(type(value) is float for value in found)


def written(folder: Path, dtype: ir.DataType, *sides: int) -> Path:
    """A file that averages an image of these sides: its logits are the means of its channels, and twice these."""
    axis = 1 if sides[0] < sides[-1] else 3
    x = ir.Value(name="x", shape=ir.Shape((1, *sides)), type=ir.TensorType(dtype))
    floating = ir.node("Cast", [x], {"to": int(ir.DataType.FLOAT)}, name="cast")
    floating.outputs[0].name = "floating"
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([2, 3] if axis == 1 else [1, 2])))
    mean = ir.node("ReduceMean", [floating.outputs[0], axes], {"keepdims": 0}, name="mean")
    logits = mean.outputs[0]
    logits.name, logits.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    logits.shape = ir.Shape((1, min(sides)))
    graph = ir.Graph(
        [x], [logits], nodes=[floating, mean], initializers=[axes], opset_imports={"": 18}, name="averaging"
    )
    ir.save(ir.Model(graph, ir_version=9), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("dtype", "sides", "said", "expected"),
    [
        (ir.DataType.UINT8, (1, 28, 28), {}, (1, "grey", None, 255.0)),
        (ir.DataType.UINT8, (32, 32, 4), {}, (4, "bands", (0.0, 255.0), 255.0)),
        (ir.DataType.UINT16, (13, 32, 32), {}, (13, "bands", (0.0, 65535.0), 65535.0)),
        (ir.DataType.UINT16, (1, 32, 32), {}, (1, "grey", None, 255.0)),
        (ir.DataType.UINT16, (1, 32, 32), {"value_range": (0.0, 4095.0)}, (1, "grey", (0.0, 4095.0), 4095.0)),
        (ir.DataType.INT16, (2, 32, 32), {"value_range": (-1024.0, 1024.0)}, (2, "bands", (-1024.0, 1024.0), 2048.0)),
    ],
)
def test_a_graph_of_integers_takes_samples_as_they_are(
    dtype: ir.DataType, sides: tuple[int, ...], said: Any, expected: Any, tmp_path: Path
) -> None:
    made = open_onnx_file(written(tmp_path, dtype, *sides), InputSpec(**said)).preprocessing
    assert (made.channels, made.channel_order, made.value_range, made.scale) == expected
    low, high = made.value_range or (0.0, 255.0)
    values = made.values()
    np.testing.assert_allclose(values[:, [0, -1]], [[low, high]] * made.channels)  # black, and white


def test_a_file_says_in_its_error_how_many_means_it_needs(tmp_path: Path) -> None:
    path = written(tmp_path, ir.DataType.FLOAT, 32, 32, 4)
    with pytest.raises(ExportError, match=r"--mean V\[,V...\] and --std V"):
        open_onnx_file(path, InputSpec())
    made = open_onnx_file(path, InputSpec(mean=(0.5,), std=(0.1, 0.2, 0.3, 0.4))).preprocessing
    assert (made.mean, made.std) == ((0.5,) * 4, (0.1, 0.2, 0.3, 0.4))


def test_flags_take_one_value_or_several() -> None:
    from ortcam.support.ranges import BASELINE_VALUE, DISPLAY, MEAN, VALUE_RANGE

    assert MEAN(".5") == (0.5,)
    assert MEAN("1,2,3,4") == (1.0, 2.0, 3.0, 4.0)
    assert (BASELINE_VALUE("zero"), BASELINE_VALUE("0.5")) == ("zero", (0.5,))
    assert (DISPLAY("3,2,1"), VALUE_RANGE("-1024,1024")) == ((3, 2, 1), (-1024.0, 1024.0))
    with pytest.raises((OptionError, Exception), match="accepted is mean, or zero, or 1 to 64 numbers"):
        BASELINE_VALUE(",".join("1" * 65))
