"""Every method and every option against its formula in float64, and what must not change a result."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

import ortcam
from ortcam.methods import MASKED_METHODS, resolve_method
from ortcam.scoring.masks import prepare_masks
from tests.common.tolerances import logits_apart, maps_apart
from tests.parity.cases import (
    BOUND,
    CLOSE,
    Case,
    SmallNet,
    assert_mostly_close,
    assert_within_bound,
    map_differences,
    small_case,
    small_image,
)
from tests.parity.reference import DEFAULTS, GATES, Classifier, Reference, at_cut

ALL = [0, 1, 2, 3, 4]

_SHARED: dict[str, list[Any]] = {
    "weighting": ["probability", "logit-softmax"],
    "baseline": ["none", "zeros"],
    "normalize": ["after-upsampling", "before-upsampling"],
    "maps": ["raw", "normalized"],
}
GRIDS: dict[str, list[dict[str, list[Any]]]] = {
    "scorecam": [_SHARED],
    "scorecam++": [
        {
            "gate": [*GATES, "minmax"],
            "gate_sum": [True, False],
            "weighting": _SHARED["weighting"],
            "baseline": _SHARED["baseline"],
        }
    ],
    "sscam": [
        {"num_samples": [2], "noise": ["input"], "std": ["authors", 0.3], "seed": [0], **_SHARED},
        {"num_samples": [2], "noise": ["activation"], "std": [None, 0.3], "seed": [5], **_SHARED},
    ],
    "iscam": [{"num_samples": [1, 3], "path": ["cumulative", "linear"], **_SHARED}],
}


def combinations(method: str) -> list[dict[str, Any]]:
    """Every combination of a method's options."""
    return [
        dict(zip(grid, values, strict=True)) for grid in GRIDS[method] for values in itertools.product(*grid.values())
    ]


def top(case: Case, image: Any, count: int = 5) -> list[int]:
    return np.argsort(-case.explainer.predict(image))[:count].tolist()


def test_the_combinations_hold_every_name_that_an_option_accepts():
    for method in MASKED_METHODS:
        assert {option.name for option in method.options} == set(GRIDS[method.name][0])
        for option in method.options:
            if isinstance(option.default, str):
                tried = {value for grid in GRIDS[method.name] for value in grid[option.name]}
                assert tried == set(option.accepted.split(", "))


@pytest.mark.parametrize("method", DEFAULTS)
def test_the_defaults_are_those_of_the_method_page(method):
    assert resolve_method(method, {}).options == DEFAULTS[method]


# Small classifiers: every combination of options.


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", ["small", "small_signed", "small_transformer", "small_branch", "small_multilabel"])
@pytest.mark.parametrize("method", DEFAULTS)
def test_every_combination_of_options_is_the_formula_in_float64(method, network, request):
    case = request.getfixturevalue(network)
    preprocessing = case.explainer.bundle.manifest.preprocessing
    image = small_image(preprocessing.height, preprocessing.width)
    reference = case.reference(image)
    differences = []
    for options in [{}, *combinations(method)]:
        explanation = case.explainer.explain(image, method=method, target=ALL, **options)
        expected = reference.explain(method, ALL, **options)
        differences.append(assert_within_bound(explanation, expected, f"{method} {options}"))
    assert_mostly_close(differences)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", ["small_multilabel", "small_binary"])
@pytest.mark.parametrize("method", DEFAULTS)
def test_the_sigmoid_of_a_logit_takes_the_place_of_the_softmax(method, network, small_picture, request):
    case = request.getfixturevalue(network)
    targets = list(range(len(case.explainer.labels)))
    explanation = case.explainer.explain(small_picture, method=method, target=targets)
    expected = case.reference(small_picture).explain(method, targets)
    assert_within_bound(explanation, expected, f"{network} {method}")
    assert map_differences(explanation, expected).max() <= CLOSE


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", ["small_multilabel", "small_binary"])
def test_predict_gives_the_sigmoid_of_each_logit(network, small_picture, request):
    case = request.getfixturevalue(network)
    logits = case.reference(small_picture).clean_logits
    expected = logits.sigmoid().numpy()
    atol = logits_apart(logits.numpy()) / 2
    np.testing.assert_allclose(case.explainer.predict(small_picture), expected, rtol=0, atol=atol)


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_a_sigmoid_of_a_millionth_keeps_its_digits(small_picture, tmp_path):
    module = SmallNet(classes=2)
    with torch.no_grad():
        module.classifier.bias -= 14
    case = small_case(module, tmp_path, size=(64, 64), labels="ab", activation="sigmoid")
    assert case.explainer.predict(small_picture)[1] < 1e-5
    explanation = case.explainer.explain(small_picture, method="scorecam", target=1)
    expected = case.reference(small_picture).explain("scorecam", [1])
    assert_within_bound(explanation, expected, "an improbable class")
    assert map_differences(explanation, expected).max() <= CLOSE


def test_the_activation_counts(small_multilabel, small_picture):
    """The same weights read as a softmax give another map: the test above can fail."""
    softmax = Reference(
        dataclasses.replace(small_multilabel.classifier, activation="softmax"),
        torch.from_numpy(small_multilabel.explainer.preprocess(small_picture)),
    )
    sigmoid = small_multilabel.reference(small_picture)
    maps = [reference.explain("scorecam", ALL).maps for reference in (softmax, sigmoid)]
    assert (maps[0] - maps[1]).abs().max() > 100 * CLOSE


@pytest.mark.slow
def test_a_layer_inside_a_branch_has_a_classifier_and_no_head(small_branch, small):
    assert small_branch.explainer.bundle.manifest.graphs.head is None
    assert small_branch.explainer.bundle.manifest.cut.module == "inner"
    assert small.explainer.bundle.manifest.graphs.classifier is None


def test_flat_channels_have_weight_zero_and_no_pass(small, small_picture):
    explanation = small.explainer.explain(small_picture, method="scorecam", target=ALL)
    assert (explanation.weights[:, :2] == 0).all()
    assert (explanation.weights[:, 2:] > 0).all()
    assert explanation.stats.passes == explanation.stats.live_channels == 6


def test_scorecampp_scores_a_constant_channel_and_skips_a_zero_one(small, small_picture):
    explanation = small.explainer.explain(small_picture, method="scorecam++", target=ALL)
    assert (explanation.weights[:, 0] == 0).all()
    assert (explanation.weights[:, 1:] > 0).all()
    assert explanation.stats.passes == 7


@pytest.mark.parametrize("gate", GATES)
def test_a_channel_is_skipped_just_where_its_gated_map_is_zero_everywhere(gate):
    # Upsampling mixes the lone positive value of the third channel with its neighbours: nothing positive is left.
    features = np.zeros((4, 5, 5), np.float32)
    features[1] = -1
    features[2] = -10
    features[2, 2, 2] = 0.01
    features[3, 2, 2] = 1
    A = torch.from_numpy(features)[None]
    reference = Reference(Classifier(lambda _: A, lambda images: images[:, 0, 0, :3]), torch.ones(1, 3, 20, 20))
    expected = reference.explain("scorecam++", [0], gate=gate).live
    plan = resolve_method("scorecam++", {"gate": gate}).plan
    assert prepare_masks(features, plan, height=20, width=20).active.tolist() == expected.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": name} for name in ("scorecam", "sscam", "iscam")])
def test_a_feature_map_that_is_constant_gives_zeros_and_says_so(all_flat, small_picture, options):
    explanation = all_flat.explainer.explain(small_picture, target=ALL, **options)
    assert explanation.stats.passes == 0
    assert explanation.flat.all()
    assert (explanation.maps == 0).all()
    assert (explanation.weights == 0).all()


@pytest.mark.parametrize("weighting", ["probability", "logit-softmax"])
def test_scorecampp_scores_constant_channels_and_its_constant_map_is_zeros(all_flat, small_picture, weighting):
    explanation = all_flat.explainer.explain(small_picture, method="scorecam++", target=ALL, weighting=weighting)
    assert explanation.stats.passes == 7
    assert explanation.flat.all()
    assert (explanation.maps == 0).all()
    expected = all_flat.reference(small_picture).explain("scorecam++", ALL, weighting=weighting)
    assert_within_bound(explanation, expected, "constant channels")


@pytest.fixture(scope="module")
def all_flat(shared):
    constants = (0.0, *np.linspace(0.2, 1.7, 7).tolist())
    return small_case(SmallNet(flat=constants), shared / "all_flat", size=(64, 64))


# What must not change a result beyond the rounding of other kernels and of sums in another order.

SOME_OPTIONS = [
    {"method": "scorecam", "baseline": "zeros"},
    {"method": "scorecam++"},
    {"method": "scorecam++", "weighting": "logit-softmax"},
    {"method": "sscam", "num_samples": 3},
    {"method": "sscam", "num_samples": 2, "noise": "activation", "weighting": "logit-softmax"},
    {"method": "iscam", "num_samples": 4},
]
some_options = pytest.mark.parametrize(
    "options", SOME_OPTIONS, ids=lambda options: " ".join(map(str, options.values()))
)


@pytest.fixture(scope="module")
def same(small, small_picture):
    """How far apart two explanations by `small` may be."""
    return maps_apart(small.reference(small_picture).clean_logits.numpy(), channels=8)


def assert_same(explanation, other, atol):
    np.testing.assert_allclose(explanation.maps, other.maps, rtol=0, atol=atol)
    np.testing.assert_allclose(explanation.weights, other.weights, rtol=0, atol=atol)


@pytest.mark.sample(every=5)
@some_options
@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_the_batch_size_does_not_change_the_result(small, small_picture, options, batch_size, same):
    usual = small.explainer.explain(small_picture, target=ALL, **options)
    assert_same(small.explainer.explain(small_picture, target=ALL, batch_size=batch_size, **options), usual, same)


@pytest.mark.sample(every=2)
@pytest.mark.whole
@some_options
def test_threads_do_not_change_the_result(small, small_picture, options, same):
    one, three = (
        ortcam.load(small.explainer.bundle.path, threads=threads).explain(small_picture, target=ALL, **options)
        for threads in (1, 3)
    )
    assert_same(one, three, same)


@pytest.mark.sample(every=2)
@pytest.mark.whole
@some_options
def test_the_order_of_providers_does_not_change_the_result(small, small_picture, options, same):
    harmless = {"CPUExecutionProvider", "AzureExecutionProvider", "CUDAExecutionProvider"}
    names = [name for name in ort.get_available_providers() if name in harmless]
    if len(names) < 2:
        pytest.skip(f"this ONNX Runtime has only {names[0]}")
    usual = small.explainer.explain(small_picture, target=ALL, **options)
    for order in itertools.permutations(names):
        explainer = ortcam.load(small.explainer.bundle.path, providers=order)
        assert_same(explainer.explain(small_picture, target=ALL, **options), usual, same)


@some_options
def test_several_targets_at_once_are_each_what_they_are_alone(small, small_picture, options, same):
    together = small.explainer.explain(small_picture, target=ALL, **options)
    for index, target in enumerate(ALL):
        alone = small.explainer.explain(small_picture, target=target, **options)
        np.testing.assert_allclose(alone.maps[0], together.maps[index], rtol=0, atol=same)
        np.testing.assert_allclose(alone.weights[0], together.weights[index], rtol=0, atol=same)


@pytest.mark.slow
@some_options
def test_the_order_of_channels_does_not_change_the_map(small, permuted, small_picture, options, same):
    case, order = permuted
    usual = small.explainer.explain(small_picture, target=ALL, **options)
    other = case.explainer.explain(small_picture, target=ALL, **options)
    np.testing.assert_allclose(other.maps, usual.maps, rtol=0, atol=same)
    np.testing.assert_allclose(other.weights, usual.weights[:, order], rtol=0, atol=same)


@pytest.fixture(scope="module")
def permuted(small, shared):
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    return small_case(small.module.permuted(order), shared / "permuted", size=(64, 64)), order


def test_a_seed_gives_the_same_sscam_map_whatever_the_batch_size(small, small_picture):
    first = small.explainer.explain(small_picture, method="sscam", target=ALL, num_samples=3, seed=7)
    again = small.explainer.explain(small_picture, method="sscam", target=ALL, num_samples=3, seed=7)
    np.testing.assert_array_equal(again.maps, first.maps)
    np.testing.assert_array_equal(again.weights, first.weights)


def test_another_seed_gives_another_sscam_map(small, small_picture):
    first, other = (
        small.explainer.explain(small_picture, method="sscam", target=ALL, num_samples=3, seed=seed) for seed in (7, 8)
    )
    assert np.abs(first.maps - other.maps).max() > 1e-3


# Real weights on photographs.


@pytest.mark.long
def test_scorecam_and_scorecampp_are_their_formulas_on_real_weights(squeezenet, data):
    image = data / "images" / "val_0010.jpg"
    targets = top(squeezenet, image)
    reference = squeezenet.reference(image)
    differences = []
    for method in ("scorecam", "scorecam++"):
        explanation = squeezenet.explainer.explain(image, method=method, target=targets)
        differences.append(assert_within_bound(explanation, reference.explain(method, targets), method))
    assert_mostly_close(differences)


BOUNDED_GATES = ["tanh", "sigmoid", "sigmoid-relu", "softsign", "minmax"]
UNBOUNDED_GATES = ["relu", "mish", "swish"]

# Defaults, and every value of every option; the default number of samples takes minutes in float64, few are the same
# formula.
REAL_OPTIONS = {
    "val_0012.jpg": [
        {"method": "scorecam"},
        *[{"method": "scorecam", option: values[1]} for option, values in _SHARED.items()],
        *[{"method": "scorecam++", "gate": gate} for gate in BOUNDED_GATES],
        {"method": "scorecam++", "gate_sum": False},
        {"method": "scorecam++", "weighting": "logit-softmax"},
        {"method": "scorecam++", "baseline": "zeros"},
        {"method": "sscam", "num_samples": 1, "std": 0.5, "seed": 3},
        {"method": "sscam", "num_samples": 1, "noise": "activation", "weighting": "logit-softmax"},
        {"method": "iscam", "num_samples": 2, "weighting": "logit-softmax"},
        {"method": "iscam", "num_samples": 2, "path": "linear"},
    ],
    "val_0001.jpg": [{"method": "scorecam"}, {"method": "scorecam++"}, {"method": "sscam", "num_samples": 1}],
    "val_0008.jpg": [{"method": "scorecam"}, {"method": "scorecam++"}, {"method": "iscam", "num_samples": 2}],
}


@pytest.mark.long
@pytest.mark.parametrize("photograph", REAL_OPTIONS)
def test_every_option_is_its_formula_on_real_weights(squeezenet_96, data, photograph):
    image = data / "images" / photograph
    targets = top(squeezenet_96, image)
    reference = squeezenet_96.reference(image)
    differences = []
    for options in REAL_OPTIONS[photograph]:
        explanation = squeezenet_96.explainer.explain(image, target=targets, **options)
        method = explanation.method
        expected = reference.explain(method, targets, **{k: v for k, v in options.items() if k != "method"})
        differences.append(assert_within_bound(explanation, expected, f"{photograph} {options}"))
    assert_mostly_close(differences)


@pytest.mark.long
@pytest.mark.parametrize("gate", UNBOUNDED_GATES)
def test_gates_without_bound_are_as_exact_as_float32_can_be(squeezenet_96, data, gate):
    """Features reach 200, and so do their masks; logits reach thousands, where float32 is too coarse for a softmax.

    PyTorch in float32 then misses the target, too: the product may not be further off than twice that.
    """
    image = data / "images" / "val_0012.jpg"
    targets = top(squeezenet_96, image)
    X = torch.from_numpy(squeezenet_96.explainer.preprocess(image))
    cut = squeezenet_96.explainer.bundle.manifest.cut
    expected = squeezenet_96.reference(image).explain("scorecam++", targets, gate=gate)
    single = Reference(at_cut(squeezenet_96.module, cut, dtype=torch.float32), X).explain(
        "scorecam++", targets, gate=gate
    )
    explanation = squeezenet_96.explainer.explain(image, method="scorecam++", target=targets, gate=gate)
    for ours, of_torch, exact in (
        (explanation.maps, single.maps, expected.maps),
        (explanation.weights, single.weights, expected.weights),
    ):
        limit = max(BOUND, 2 * float((of_torch - exact).abs().max()))
        assert np.abs(ours - exact.numpy()).max() <= limit
