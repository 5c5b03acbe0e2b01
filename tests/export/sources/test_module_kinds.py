"""What people hand over as a model: programs, scripts, wrapped, half-precision and training modules."""

import copy
import dataclasses
import pickle
import warnings
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, TINY_LABELS
from torch import nn
from torch.nn.utils import prune

import ortcam
from ortcam_export import ExportError, export
from ortcam_export.sources.opening import open_source
from ortcam_export.sources.pytorch.outputs import as_classifier
from ortcam_export.sources.source import Source
from ortcam_export.sources.types import InputSpec

SPEC = InputSpec(**TINY_INPUT)


class Tokens(nn.Module):
    """Writes the batch size into its shapes, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.head = nn.Linear(25 * 8, len(TINY_LABELS))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        batch = image.shape[0]
        patches = self.stem(image).relu().flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(batch, -1, -1), patches], 1)
        return self.head(tokens.reshape(batch, -1))


class Trained(TinyNet):
    """With a batch norm and a dropout, as it comes out of training."""

    def __init__(self) -> None:
        super().__init__()
        self.features.insert(1, nn.BatchNorm2d(8))
        self.features.append(nn.Dropout(0.5))
        with torch.no_grad():
            self(torch.randn(8, 3, 32, 48, generator=torch.Generator().manual_seed(5)))


def program(module: nn.Module, batch: int, *, dynamic: bool = False) -> torch.export.ExportedProgram:
    shapes = ({0: torch.export.Dim("n")},) if dynamic else None
    return torch.export.export(module.eval(), (torch.rand(batch, 3, 32, 48),), dynamic_shapes=shapes)


def script(module: nn.Module, *, traced: bool) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, torch.rand(2, 3, 32, 48)) if traced else torch.jit.script(module)


def normed() -> nn.Module:
    """All the ways in which a pass computes a weight; a pass was made, so that tensors of it are left in the module."""
    module = TinyNet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.features[0] = nn.utils.weight_norm(module.features[0])
        module.features[2] = nn.utils.spectral_norm(module.features[2])
    module.features[4] = nn.utils.parametrizations.weight_norm(module.features[4])
    module.classifier = nn.utils.parametrizations.spectral_norm(module.classifier)
    prune.l1_unstructured(module.classifier, "bias", amount=0.5)
    module.eval()(torch.rand(1, 3, 32, 48))
    return module


KINDS: dict[str, Callable[[], Any]] = {
    "module of a program": lambda: program(Tokens(), 2, dynamic=True).module(),
    "module of a program of two": lambda: program(Tokens(), 2).module(),
    "program": lambda: program(Tokens(), 2, dynamic=True),
    "program of one": lambda: program(Tokens(), 1),
    "program of two": lambda: program(Tokens(), 2),
    "decomposed program of four": lambda: program(Tokens(), 4).run_decompositions(),
    "script": lambda: script(TinyNet().eval(), traced=False),
    "trace": lambda: script(Tokens().eval(), traced=True),
    "training": lambda: Trained().train(),
    "DataParallel": lambda: nn.DataParallel(TinyNet()),
    "compiled": lambda: torch.compile(TinyNet()),
    "compiled inside": lambda: nn.Sequential(torch.compile(TinyNet())),
    "computed weights": normed,
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(TinyNet()),
}
REFERENCES: dict[str, Callable[[], nn.Module]] = {"script": TinyNet, "training": Trained, "computed weights": normed}


def state_of(module: object) -> dict[str, tuple[torch.dtype, bytes]]:
    tensors = module.state_dict() if isinstance(module, nn.Module) else {}
    return {key: (value.dtype, value.float().numpy().tobytes()) for key, value in tensors.items()}


def is_training(model: object) -> list[bool]:
    return [part.training for part in model.modules()] if isinstance(model, nn.Module) else []


def open_given(model: Any) -> Source:
    return open_source(model, spec=SPEC)


@pytest.mark.sample(every=4)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_model_gives_its_own_logits_for_any_number_of_images(kind: str) -> None:
    torch.manual_seed(7)
    given = KINDS[kind]()
    before = state_of(given), is_training(given)
    source = open_given(given)
    assert isinstance(source.classifier, nn.Module)
    plain = {"trace", "decomposed program of four"} | {name for name in KINDS if "program" in name}
    reference = REFERENCES.get(kind, Tokens if kind in plain else TinyNet)
    torch.manual_seed(7)
    model = reference().eval()
    for count in (1, 2, 3):
        images = torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected, found = model(images), source.classifier(images)
        # Sums of at most 200 float32 products in another order.
        torch.testing.assert_close(found, expected, rtol=0, atol=200 * 1.2e-7 * float(expected.abs().max()))
    assert source.classes == len(TINY_LABELS)
    assert (state_of(given), is_training(given)) == before, "the user's model is as it was"


@pytest.mark.sample(every=3)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["module", "program", "script"])
def test_another_precision_is_computed_in_float32(kind: torch.dtype, form: str) -> None:
    module = TinyNet().eval().to(kind)
    given: Any = module
    if form == "program":
        given = torch.export.export(module, (torch.rand(2, 3, 32, 48).to(kind),))
    elif form == "script":
        given = script(module, traced=False)
    source = open_given(given)
    assert isinstance(source.classifier, nn.Module)
    assert source.notes == (f"weights are {str(kind).removeprefix('torch.')}: the model is computed in float32",)
    assert {value.dtype for value in module.parameters()} == {kind}, "the user's module is as it was"
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        expected, found = copy.deepcopy(module).double()(images.double()), source.classifier(images)
    assert found.dtype == torch.float32
    # The weights are those of the module to the last digit; only the arithmetic is float32.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=200 * 1.2e-7 * float(expected.abs().max()))


@pytest.mark.long
def test_a_program_file_and_a_script_file_explain_like_their_module(tmp_path: Path, picture: np.ndarray) -> None:
    half = TinyNet().eval().half()
    module = copy.deepcopy(half).float()
    torch.export.save(program(module, 2), tmp_path / "tiny.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script(half, traced=False), tmp_path / "tiny.pt")
    expected = ortcam.load(export(module, tmp_path / "m.ortcam", **TINY_INPUT).path)
    for name in ("tiny.pt2", "tiny.pt"):
        said = {key: value for key, value in TINY_INPUT.items() if name != "tiny.pt2" or key != "input_size"}
        bundle = export(tmp_path / name, tmp_path / f"{name}.ortcam", **said)
        assert bundle.manifest.model.name == name
        maps = [explainer.explain(picture, top_k=3).maps for explainer in (ortcam.load(bundle.path), expected)]
        np.testing.assert_allclose(*maps, atol=1e-5)
    assert "weights are float16: the model is computed in float32" in bundle.manifest.preprocessing_source


class Branch(TinyNet):
    """Another path for bright images."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) if image.mean() > 0 else 2 * super().forward(image)


@pytest.mark.slow
def test_a_branch_on_the_image_is_one_line_that_says_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"test_module_kinds\.py line \d+: return super.*torch\.where") as caught:
        export(Branch().eval(), tmp_path / "a.ortcam", **TINY_INPUT)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def quantised() -> nn.Module:
    module = nn.Sequential(torch.ao.nn.quantized.Conv2d(3, 4, 3), nn.Flatten())
    return module.eval()


class Two(nn.Module):
    """Takes more than an image."""

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3)) + other


@pytest.mark.sample(every=2)
@pytest.mark.whole
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TinyNet().to("meta"), r"features\.0\.weight is on the meta device and has no values"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten()), r"0\.weight has no shape yet, as lazy modules"),
        (quantised, r"0 is a quantised module of torch\.ao.*--precision int8"),
        (
            lambda: torch.export.export(Trained().train(), (torch.rand(2, 3, 32, 48),)),
            "the program was made in training mode",
        ),
        (
            lambda: torch.export.export(Two().eval(), (torch.rand(2, 3, 32, 48), torch.rand(2, 3))),
            "the program takes 2 inputs, .*; accepted is one",
        ),
        (lambda: len, "is no model: accepted is a torch.nn.Module, an ExportedProgram, TorchScript"),
        (lambda: None, "is no model: accepted"),
        (lambda: {"weight": torch.zeros(2)}, "is no model: accepted"),
        (
            lambda: torch.export.export(TinyNet().eval(), (torch.rand(2, 3, 64, 64),)),
            "--input-size 32 48: the program takes 64 x 64",
        ),
    ],
)
def test_what_cannot_be_exported_gets_one_true_line(build: Callable[[], Any], message: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build()
    with pytest.raises(ExportError, match=message) as caught:
        export(model, tmp_path / "a.ortcam", **TINY_INPUT)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class FixedBatch(nn.Module):
    """Mixes its images, so that only the batch it was made for has a meaning."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3)) + image.mean() + torch.arange(image.shape[0] * 3).reshape(image.shape[0], 3)


def test_a_program_that_is_fixed_to_its_batch_says_how_to_open_it() -> None:
    fixed = torch.export.export(FixedBatch(), (torch.rand(4, 3, 32, 48),))
    with pytest.raises(ExportError, match=r"fixed to a batch of 4; export it for any batch: .*dynamic_shapes"):
        open_given(fixed)


def test_a_program_file_with_pickled_objects_is_refused_unread(tmp_path: Path) -> None:
    torch.export.save(program(TinyNet(), 2), tmp_path / "good.pt2")
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for name in good.namelist():
            held = good.read(name)
            bad.writestr(name, pickle.dumps(SimpleNamespace(a=1)) if "sample_inputs" in name else held)
    with pytest.raises(ExportError, match=r"bad\.pt2: .*sample_inputs.* holds pickled Python objects"):
        open_given(tmp_path / "bad.pt2")
    (tmp_path / "noise.pt2").write_bytes(b"noise")
    torch.save(TinyNet().state_dict(), tmp_path / "state.pt")
    for name, message in (("noise.pt2", "cannot be read as a program"), ("state.pt", "a checkpoint, which holds")):
        with pytest.raises(ExportError, match=message):
            export(tmp_path / name, tmp_path / "a.ortcam", **TINY_INPUT)


@dataclasses.dataclass
class Output:
    """What a model may return."""

    logits: torch.Tensor
    hidden: torch.Tensor | None = None


Pair = namedtuple("Pair", ["scores", "features"])


class Returning(TinyNet):
    """TinyNet that returns its logits in a container; takes a flag beside the image."""

    def __init__(self, form: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.form = form

    def forward(self, image: torch.Tensor, flag: bool = True) -> Any:
        return self.form(super().forward(image)) if flag else None


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (Output, None),
        (lambda x: Output(2 * x, x), "hidden"),
        (lambda x: Pair(x, x[:, :2]), "scores"),
        (lambda x: Pair(x, x[:, :2]), "0"),
        (lambda x: SimpleNamespace(logits=x, features=2 * x), None),
    ],
)
def test_logits_are_found_in_objects(form: Callable[[torch.Tensor], Any], output: str | None) -> None:
    images = torch.rand(3, 3, 32, 48)
    classifier = as_classifier(Returning(form).eval(), height=32, width=48, output=output)
    with torch.inference_mode():
        assert torch.equal(classifier(images), TinyNet()(images))


instance = TinyNet().eval()
number = 3


def needs_an_argument(classes: int) -> nn.Module:
    return TinyNet(classes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is int; accepted is a module, or a callable that returns one"),
        ("needs_an_argument", "missing 1 required positional argument: 'classes'; accepted is a callable that"),
        ("needs_argument", "has no 'needs_argument'; .*did you mean 'needs_an_argument'"),
    ],
)
def test_what_a_name_stands_for_is_said(name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        open_given(f"{__name__}:{name}")
    assert "\n" not in str(caught.value)


def test_a_name_may_stand_for_a_module_itself() -> None:
    assert open_given(f"{__name__}:instance").classifier is instance


def test_labels_are_counted_before_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object, **__: object) -> None:
        raise AssertionError("the conversion began")

    monkeypatch.setattr("ortcam_export.exporting.convert", convert)
    with pytest.raises(ExportError, match="2 labels for a model of 6 classes"):
        export(TinyNet(), tmp_path / "a.ortcam", **TINY_INPUT | {"labels": ["a", "b"]})
