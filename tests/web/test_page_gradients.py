"""The methods that mask no image, on the page in a real browser: what it computes is what Python computes."""

import json

import numpy as np
import pytest
import torch
from tests.common.sharing import export_once
from tests.common.tiny import TinyNet
from tests.conftest import TINY_INPUT, TINY_LABELS
from tests.web.conftest import SAMPLES, SHIPPED
from torch import nn
from torchvision.models import VisionTransformer

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.methods.auto import row_of

FISH, MUG = SAMPLES / "fish.png", SAMPLES / "mug-umbrella.png"
GRADIENT_METHODS = ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam", "finer-cam", "smooth-grad-cam++")
# Features and gradients differ in their last bits, relative to their largest values; min-max makes little of it.
ALIKE = 1e-4
more = pytest.mark.slow


class DeepHead(TinyNet):
    """The tiny classifier with a hidden layer behind the pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, len(TINY_LABELS)))


class Branches(TinyNet):
    """A branch beside the one that is cut: the logits depend on the image beside the features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.other = nn.Sequential(nn.Conv2d(3, 10, 3, 4, 1), nn.ReLU())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.tanh(self.features(image) * self.other(image)).mean((2, 3)))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    made = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=len(TINY_LABELS))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


EXPORTS = {
    "layers": (DeepHead, {"layer": "features.1,features.5"}),
    "inside": (Branches, {"layer": "features.5"}),
    "tokens": (transformer, {}),
}


@pytest.fixture(scope="session")
def exported(shared):
    """Exports a model of `EXPORTS` by its name."""

    def export(name):
        make, arguments = EXPORTS[name]
        size = {"input_size": (32, 32)} if name == "tokens" else {}
        return export_once(make().eval(), shared / f"page-{name}.ortcam", **TINY_INPUT | size | arguments)

    return export


@pytest.fixture
def compared(record_property):
    """Compares a map of the page with Python's, of the page's settings."""

    def compare(visit, explainer, image, found):
        manifest = visit.manifest()
        options = {name: value for name, value in manifest["options"].items() if value is not None}
        target = manifest["targets"][0]["index"]
        expected = explainer.explain(image, method=manifest["method"], target=target, **options)
        difference = float(np.abs(found - expected.maps[0]).max())
        record_property("difference", difference)
        assert difference <= ALIKE, manifest["method"]
        summary = json.loads(json.dumps(expected.summary()))
        for key in ("options", "limits", "map_size", "cut", "layers"):
            assert manifest[key] == summary[key], key
        assert manifest["bundle"]["sha256"] == summary["bundle"]["sha256"]
        for key in ("channels", "live_channels", "scored_channels", "passes", "head_passes", "gradient_passes"):
            assert manifest["stats"][key] == summary["stats"][key], key
        return manifest

    return compare


def test_a_newcomer_sees_a_map_without_a_masked_pass_and_nothing_more_is_fetched(fresh):
    visit = fresh.open()
    fetched = list(visit.requests)
    visit.tab.click("#samples button >> nth=0")
    visit.wait("explained")
    row = row_of(read_bundle(SHIPPED).manifest)
    manifest = visit.manifest()
    assert manifest["method"] == row.method
    assert manifest["chosen"] == row.line
    assert manifest["stats"]["passes"] == 0
    assert row.reason in visit.tab.inner_text("#method-help")
    assert ortcam.METHODS.find(row.method).title in visit.tab.inner_text("#method option:checked")
    new = {address.removeprefix(visit.site.address) for address in visit.requests[len(fetched) :]}
    assert {address for address in new if not address.startswith(("samples/", "blob:"))} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "grad-cam++",
        "recipro-cam",
        *(pytest.param(other, marks=more) for other in GRADIENT_METHODS[:1] + GRADIENT_METHODS[2:]),
    ],
)
def test_the_shipped_bundle_is_explained_as_in_python(visit, explainer, compared, method):
    found = visit.explain(MUG, method)
    compared(visit, explainer, MUG, found)
    assert visit.tab.is_hidden("#refine")
    found = visit.explain_again(method, target=0)
    compared(visit, explainer, MUG, found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("layers", ("layer-cam", "smooth-grad-cam++")),
        pytest.param("inside", ("grad-cam++", "layer-cam", "smooth-grad-cam++"), marks=more),
        pytest.param("tokens", ("grad-cam", "grad-attention", "recipro-cam"), marks=more),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bundle_of_ones_own_is_explained_as_in_python(fresh, compared, exported, photograph, name, methods):
    bundle = exported(name)
    visit = fresh.open(f"?bundle={fresh.site.add_bundle(bundle.name, bundle).name}")
    explainer = ortcam.load(bundle)
    visit.explain(photograph, methods[0])
    for method in methods:
        found = visit.explain_again(method, target=2)
        compared(visit, explainer, photograph, found)


@pytest.mark.long
def test_a_click_on_a_class_runs_the_last_layers_no_further_time(fresh):
    visit = fresh.open()
    visit.explain(MUG, "recipro-cam")
    visit.tab.evaluate(
        "window.steps = 0; document.addEventListener('ortcam-preview', () => (window.steps += 1))",
    )
    first = visit.explain_again("recipro-cam", target=0)
    second = visit.explain_again("recipro-cam", target=3)
    assert np.abs(first - second).max() > 0.1
    assert visit.tab.evaluate("window.steps") == 0


@pytest.mark.slow
def test_a_layer_can_be_chosen(fresh, compared, exported, photograph):
    bundle = exported("layers")
    fresh.site.add_bundle("chosen.ortcam", bundle)
    visit = fresh.open("?bundle=chosen.ortcam")
    explainer = ortcam.load(bundle)
    visit.explain(photograph, "grad-cam")
    names = visit.tab.locator("#layer option").evaluate_all("all => all.map((one) => one.value)")
    assert names == ["", "features", "features.1", "all"]
    maps = {}
    for name in names[1:]:
        visit.tab.evaluate("(name) => (document.getElementById('layer').value = name)", name)
        maps[name] = visit.explain_again("grad-cam")
        assert compared(visit, explainer, photograph, maps[name])["options"]["layer"] == name
    assert np.abs(maps["features.1"] - maps["features"]).max() > 0.1
    visit.set_options("scorecam")
    assert visit.tab.is_hidden("#layer")


@pytest.mark.slow
@pytest.mark.parametrize("why", ["its operator ArgMax has no derivative"])
def test_a_bundle_without_a_gradient_says_why_and_offers_the_others(fresh, explainer, why):
    bundle = fresh.site.add_bundle("without.ortcam", SHIPPED)
    content = json.loads((bundle / MANIFEST_NAME).read_text("utf-8")) | {"gradient": None, "no_gradient": why}
    (bundle / MANIFEST_NAME).write_text(json.dumps(content), "utf-8")
    visit = fresh.open("?bundle=without.ortcam")
    assert why in visit.tab.inner_text("#method-help")
    assert visit.tab.locator("#method option:disabled, #method :disabled option").count() == 8
    visit.choose(MUG)
    visit.wait("explained")
    assert visit.manifest()["method"] == row_of(read_bundle(bundle).manifest).method
    assert visit.explain_again("scorecam").max() == 1


@pytest.mark.long
@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_bundle_of_an_older_schema_works_without_gradients(fresh, schema):
    bundle = fresh.site.add_bundle(f"older-{schema}.ortcam", SHIPPED)
    content = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    for name in ("layers", "gradient", "no_gradient"):
        del content[name]
    content["probe"].pop("gradient", None)
    if schema < 3:
        del content["variants"]
    if schema < 2:
        del content["activation"], content["graphs"]["classifier"], content["probe"]
        del content["parity"]["scorer_tolerance"]
        for name in ("channel_order", "scale", "keep_aspect", "crop_rounding"):
            del content["preprocessing"][name]
    (bundle / MANIFEST_NAME).write_text(json.dumps(content | {"schema": schema}), "utf-8")
    read_bundle(bundle)  # that it is one
    visit = fresh.open(f"?bundle=older-{schema}.ortcam")
    assert "exported before gradients were part of a bundle" in visit.tab.inner_text("#method-help")
    visit.choose(MUG)
    visit.wait("explained")
    assert visit.explain_again("scorecam").max() == 1


@pytest.mark.long
def test_a_damaged_gradient_stops_only_what_needs_it(fresh):
    bundle = fresh.site.add_bundle("damaged.ortcam", SHIPPED)
    (bundle / "gradient.onnx").write_bytes(b"damaged")
    visit = fresh.open("?bundle=damaged.ortcam")
    visit.set_options("grad-cam")
    visit.choose(MUG)
    visit.tab.wait_for_selector("#error:not([hidden])")
    assert "damaged.ortcam/gradient.onnx: truncated, 7 bytes" in visit.error
    visit.set_options("recipro-cam")
    visit.tab.dispatch_event("#method", "change", {"bubbles": True})
    visit.wait("explained")
    assert not visit.tab.is_visible("#error")
