"""PyTorch models: torchvision's families and their classes, checkpoints however wrapped, outputs of any container."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, TINY_LABELS
from torch import nn

from ortcam_export import ExportError, export, inspect_model
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.pytorch.checkpoints import (
    class_count,
    differing_classes,
    load_state,
    read_checkpoint,
    with_classes,
)
from ortcam_export.sources.pytorch.outputs import LogitsOf, as_classifier
from ortcam_export.sources.types import InputSpec

CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
# Their builders compute widths with tensors, which meta tensors do not allow; the small one of each is built for real.
REGNETS = [name for name in CLASSIFIERS if name.startswith("regnet")]


def architecture(name: str, classes: int) -> nn.Module:
    """The model without its weights, where that can be."""
    device = "cpu" if name in REGNETS else "meta"
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device(device):
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in CLASSIFIERS if name not in REGNETS or name in ("regnet_x_400mf", "regnet_y_400mf")]
)
def test_the_number_of_classes_of_a_checkpoint_is_known_in_whatever_order_its_keys_are(name: str) -> None:
    state = architecture(name, 7).state_dict()
    other = architecture(name, 11)
    for keys in (sorted(state), sorted(state, reverse=True), list(state)):
        assert class_count(other, {key: state[key] for key in keys}) == 7
        assert class_count(other, {f"module.{key}": state[key] for key in keys}) == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_checkpoint_of_an_inception_gives_the_logits_of_torchvisions_own_model(
    name: str, auxiliary: bool, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    reference = torchvision.models.get_model(
        name, weights=None, init_weights=False, aux_logits=auxiliary, transform_input=True
    ).eval()
    for layer in reference.modules():  # so that the logits depend on the image, and the conversion of the input shows
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    source = open_source(name, checkpoint=tmp_path / "weights.pth", spec=InputSpec(input_size=(128, 128)))
    assert isinstance(source.classifier, nn.Module)
    images = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        expected, got = reference(images), source.classifier(images)
        reference.transform_input = False
        plain = reference(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert (plain - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_loads_without_its_auxiliary_heads(tmp_path: Path) -> None:
    state = torchvision.models.googlenet(weights=None, num_classes=5, init_weights=False).state_dict()
    assert "aux1.fc2.weight" in state
    torch.save(state, tmp_path / "weights.pth")
    source = open_source(
        "googlenet", checkpoint=tmp_path / "weights.pth", spec=InputSpec(labels=["a", "b", "c", "d", "e"])
    )
    assert isinstance(source.classifier, nn.Module)
    assert source.classifier(torch.zeros(1, 3, 224, 224)).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_32", "googlenet", "inception_v3"])
def test_random_weights_have_logits_that_depend_on_the_image(name: str) -> None:
    before = torch.get_rng_state()
    source = open_source(name, weights="none")
    assert torch.equal(torch.get_rng_state(), before), "the user's own random numbers go on as they would have"
    assert isinstance(source.classifier, nn.Module)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, source.preprocessing.height, source.preprocessing.width, generator=generator)
    with torch.inference_mode():
        first, second = source.classifier(images)
    assert (first - second).abs().max() > 1e-3 * first.abs().max()


@pytest.mark.long
def test_a_random_vit_has_a_default_layer_before_its_last_block() -> None:
    inspection = inspect_model("vit_b_32", input_size=(64, 64))
    assert inspection.default.cut.module == "encoder.layers.encoder_layer_10"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fasterrcnn_resnet50_fpn", "a detection model"),
        ("fcn_resnet50", "a segmentation model"),
        ("r3d_18", "a video model"),
        ("raft_small", "an optical flow model"),
        ("quantized_resnet18", "a quantized model"),
    ],
)
def test_torchvisions_other_models_are_named_for_what_they_are(name: str, kind: str) -> None:
    with pytest.raises(ExportError, match=f"{name} is {kind}; accepted is a classifier"):
        open_source(name)


TORCHVISION_HEADS = {
    "mobilenet_v3_small": "classifier.3",
    "densenet121": "classifier",
    "squeezenet1_1": "classifier.1",
    "vit_b_32": "heads.head",
    "resnet18": "fc",
}


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("name", TORCHVISION_HEADS)
def test_a_checkpoint_differs_from_a_model_in_its_classes_alone(name: str) -> None:
    state, module = architecture(name, 7).state_dict(), architecture(name, 11)
    assert differing_classes(module, state) == 7
    assert differing_classes(module, module.state_dict()) is None
    head = with_classes(module, state).get_submodule(TORCHVISION_HEADS[name])
    assert {value.shape[0] for value in head.parameters()} == {7}
    inside = next(key for key, value in state.items() if value.ndim == 4)
    other = {**state, inside: state[inside][:1]}
    assert differing_classes(architecture(name, 11), other) is None


class SmallHead(TinyNet):
    """TinyNet with another head in its place."""

    def __init__(self, *head: nn.Module) -> None:
        super().__init__()
        self.classifier = nn.Sequential(*head)


def test_a_head_that_training_put_into_a_sequential_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)  # of four outputs one in twelve draws has its order everywhere, as scores by rank do
    for position, head in enumerate([[nn.Linear(10, 4)], [nn.Dropout(0.2), nn.Linear(10, 4)]]):
        trained = SmallHead(*head).eval()
        torch.save({"model_state_dict": trained.state_dict()}, tmp_path / "c.pth")
        said = InputSpec(**TINY_INPUT | {"labels": list("abcd")})
        source = open_source("tests.common.tiny:TinyNet", checkpoint=tmp_path / "c.pth", spec=said)
        images = torch.rand(2, 3, 32, 48)
        with torch.inference_mode():
            assert torch.equal(source.classifier(images), trained(images))
        assert source.classes == 4
        assert source.notes[0].startswith(f"the checkpoint's last layer is classifier.{position}: it is taken for")
    deeper = SmallHead(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    torch.save(deeper.state_dict(), tmp_path / "c.pth")
    with pytest.raises(ExportError, match=r"its head has other layers .* name a callable that builds the model"):
        open_source("tests.common.tiny:TinyNet", checkpoint=tmp_path / "c.pth", spec=said)


def test_a_head_in_the_place_of_a_sequential_is_found() -> None:
    module = nn.Sequential(OrderedDict(body=nn.Flatten(), top=nn.Sequential(nn.Dropout(), nn.Linear(6, 11))))
    state = {"top.weight": torch.rand(7, 6), "top.bias": torch.rand(7)}
    assert differing_classes(module, state) == 7
    load_state(with_classes(module, state), state, Path("c.pth"))
    assert torch.equal(module.top[1].bias, state["top.bias"])
    active = nn.Sequential(OrderedDict(body=nn.Flatten(), top=nn.Sequential(nn.Tanh(), nn.Linear(6, 7))))
    with pytest.raises(ExportError, match=r"lacks top\.1\.weight"):
        load_state(active, state, Path("c.pth"))


def test_a_users_module_keeps_its_own_weights_when_a_checkpoint_is_given(tmp_path: Path) -> None:
    module = TinyNet().eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    torch.save({key: value + 1 for key, value in before.items()}, tmp_path / "c.pth")
    source = open_source(module, checkpoint=tmp_path / "c.pth", spec=InputSpec(**TINY_INPUT))
    assert torch.equal(source.classifier.state_dict()["classifier.bias"], before["classifier.bias"] + 1)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def wrapped(state: dict[str, torch.Tensor], *prefixes: str) -> dict[str, torch.Tensor]:
    prefix = "".join(prefixes)
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "form",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {}},
        lambda state: {"model_ema": {"n_averaged": torch.tensor(9), **wrapped(state, "module.")}},
        lambda state: {"ema": {"state_dict": state}},
        lambda state: {"state_dict_ema": wrapped(state, "module.")},
        lambda state: wrapped(state, "module.", "_orig_mod."),
        lambda state: {"state_dict": wrapped(state, "model.")},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
        lambda state: {"net": wrapped(state, "module.", "backbone.")},
        lambda state: {"state_dict": wrapped(state, "net."), "hyper_parameters": {}},
    ],
)
def test_a_state_dict_is_found_in_what_training_scripts_save(form: Callable[[Any], Any], tmp_path: Path) -> None:
    state = TinyNet().state_dict()
    torch.save(form(state), tmp_path / "checkpoint.pth")
    module = TinyNet()
    nn.init.zeros_(module.classifier.weight)
    load_state(module, read_checkpoint(tmp_path / "checkpoint.pth"), tmp_path / "checkpoint.pth")
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key])


def test_plain_weights_come_before_averaged_ones(tmp_path: Path) -> None:
    plain, average = ({"a": torch.full((1,), value)} for value in (1.0, 2.0))
    torch.save({"model_ema": average, "model": plain}, tmp_path / "checkpoint.pth")
    assert read_checkpoint(tmp_path / "checkpoint.pth")["a"] == 1


def test_a_prefix_that_does_not_make_the_keys_fit_stays_in_the_error(tmp_path: Path) -> None:
    torch.save({"module.other.weight": torch.zeros(2)}, tmp_path / "checkpoint.pth")
    with pytest.raises(ExportError, match=r"also has module\.other\.weight"):
        load_state(TinyNet(), read_checkpoint(tmp_path / "checkpoint.pth"), tmp_path / "checkpoint.pth")


def test_safetensors_load_and_broken_ones_get_one_line(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()
    safetensors.save_file(state, tmp_path / "weights.safetensors")
    source = open_source("squeezenet1_1", checkpoint=tmp_path / "weights.safetensors", spec=InputSpec(labels=["a"] * 4))
    assert isinstance(source.classifier, nn.Module)
    assert torch.equal(source.classifier.state_dict()["classifier.1.bias"], state["classifier.1.bias"])
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    for name, message in (("broken", "cannot be read as safetensors"), ("missing", "no such checkpoint")):
        with pytest.raises(ExportError, match=rf"{name}\.safetensors: {message}"):
            read_checkpoint(tmp_path / f"{name}.safetensors")


class Returning(nn.Module):
    """TinyNet, its logits handed to a function that makes of them what the model returns."""

    def __init__(self, form: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net = TinyNet()
        self.form = form

    def forward(self, image: torch.Tensor) -> Any:
        return self.form(self.net(image))


@pytest.mark.parametrize(
    ("form", "output", "classes"),
    [
        (lambda x: {"loss": x.sum(), "logits": x}, None, 6),
        (lambda x: OrderedDict(scores=x), None, 6),
        (lambda x: (x,), None, 6),
        (lambda x: [x * 2, x], "1", 6),
        (lambda x: {"coarse": x[:, :2], "fine": x}, "fine", 6),
        (lambda x: x[:, :, None, None], None, 6),
        (lambda x: x[:, 0], None, 1),
    ],
)
def test_logits_are_taken_from_what_a_model_returns(
    form: Callable[[Any], Any], output: str | None, classes: int
) -> None:
    images = torch.rand(3, 3, 32, 48)
    module = Returning(form).eval()
    classifier = as_classifier(module, height=32, width=48, output=output)
    with torch.inference_mode():
        assert torch.equal(classifier(images), module.net(images)[:, :classes])


def test_a_model_that_returns_logits_is_left_as_it_is() -> None:
    module = TinyNet()
    assert as_classifier(module, height=32, width=48, output=None) is module


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        (lambda x: (x, x), None, r"tuple of 0: \[N,6\], 1: \[N,6\]; .* --model-output 0 takes one of them"),
        (
            lambda x: {"a": x, "b": x},
            "c",
            r"--model-output c: .* dict of a: \[N,6\], b: \[N,6\]; accepted is one of these",
        ),
        (lambda x: x, "logits", "--model-output logits: the model returns one tensor"),
        (
            lambda x: {"out": x[:, :, None, None].expand(-1, -1, 4, 4)},
            None,
            r"\[N,6,4,4\], as a segmentation model does",
        ),
        (lambda x: x[:, :, None, None].expand(-1, -1, 4, 4), None, "as a segmentation model does"),
        (lambda x: [{"boxes": x[:, :4], "labels": x.argmax(1)}] * 2, None, "as a detection model does"),
        (lambda x: {"logits": x[:, None], "pred_boxes": x[:, None]}, None, "as a detection model does"),
        (lambda x: x.argmax(1), None, r"a tensor of int64 \[N\]"),
        (lambda x: x.sum(), None, r"a tensor \[\]"),
        (lambda x: x.mean(0, keepdim=True), None, r"a tensor \[1,6\]"),
        (lambda _: None, None, "the model returns NoneType; accepted is a classifier"),
    ],
)
def test_what_is_no_classifiers_output_is_described(
    form: Callable[[Any], Any], output: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(Returning(form), tmp_path / "a.ortcam", output=output, **TINY_INPUT)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_an_adapted_model_keeps_the_names_of_its_layers(tmp_path: Path) -> None:
    plain = export(TinyNet(), tmp_path / "plain.ortcam", **TINY_INPUT).manifest
    module = Returning(lambda x: {"logits": x, "loss": x.sum()})
    adapted = export(module, tmp_path / "adapted.ortcam", **TINY_INPUT).manifest
    assert adapted.cut.module == f"net.{plain.cut.module}"
    named = export(module, tmp_path / "named.ortcam", layer="net.features.3", **TINY_INPUT)
    assert named.manifest.cut.module == "net.features.3"
    assert isinstance(as_classifier(module, height=32, width=48, output=None), LogitsOf)
    ours, theirs = (np.load(tmp_path / folder / "probe-logits.npy") for folder in ("adapted.ortcam", "plain.ortcam"))
    np.testing.assert_array_equal(ours, theirs)


def test_an_input_larger_than_the_declared_resize_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"300 x 300 is larger than the short side of 256 .* --resize N"):
        export("squeezenet1_1", tmp_path / "a.ortcam", weights="none", input_size=(300, 300))
    source = open_source("squeezenet1_1", weights="none", spec=InputSpec(input_size=(300, 300), resize=340))
    assert (source.preprocessing.height, source.preprocessing.resize) == (300, 340)


def test_an_input_layout_goes_with_an_onnx_file_only(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="--input-layout nhwc: goes with an"):
        export(TinyNet(), tmp_path / "a.ortcam", input_layout="nhwc", **TINY_INPUT)


@pytest.mark.slow
def test_channel_order_and_scale_reach_the_bundle(tmp_path: Path) -> None:
    manifest = export(TinyNet(), tmp_path / "a.ortcam", channel_order="bgr", scale=255, **TINY_INPUT).manifest
    assert (manifest.preprocessing.channel_order, manifest.preprocessing.scale) == ("bgr", 255)
    assert manifest.labels == TINY_LABELS
