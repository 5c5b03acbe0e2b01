"""Scores against plain float64 loops: a score is explained as the only output of a model that computes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ortcam
from tests.conftest import TENSOR_BUNDLE, VALUES_BUNDLE
from tests.export.other_models import BandsNet, TensorNet
from tests.parity.cases import Case, assert_within_bound, small_image
from tests.parity.reference import (
    DEFAULTS,
    GradientReference,
    HeadReference,
    Reference,
    at_layer,
    maps_of,
    promised_noise,
)

QUERY = np.linspace(-1, 1, 5)
MASK = np.arange(5.0)

# Text -> the score in PyTorch, float64 [N,5] -> [N]; and whether 0 is its least value and means nothing.
SCORES: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "a - c": (lambda z: z[:, 0] - z[:, 2], False),
    "a + 2*index:1 + 0.5*'d' - 1.5": (lambda z: z[:, 0] + 2 * z[:, 1] + 0.5 * z[:, 3] - 1.5, False),
    "entropy": (lambda z: torch.distributions.Categorical(logits=z).entropy(), True),
    "-entropy": (lambda z: -torch.distributions.Categorical(logits=z).entropy(), False),
    "probability:b - probability:e": (lambda z: z.softmax(1)[:, 1] - z.softmax(1)[:, 4], False),
    "probability:b + probability:e": (lambda z: z.softmax(1)[:, 1] + z.softmax(1)[:, 4], True),
    "cosine:query": (lambda z: nn.functional.cosine_similarity(z, torch.from_numpy(QUERY)[None]), False),
    "output[3]": (lambda z: z[:, 3], False),
    "2*output[:] - logit:a": (lambda z: 2 * z.mean(1) - z[:, 0], False),
    "0.5*a - 3*probability:b + entropy": (
        lambda z: 0.5 * z[:, 0] - 3 * z.softmax(1)[:, 1] + torch.distributions.Categorical(logits=z).entropy(),
        False,
    ),
}
LINEAR = ("a - c", "a + 2*index:1 + 0.5*'d' - 1.5", "output[3]", "2*output[:] - logit:a")


class ScoredNet(nn.Module):
    """A classifier with a score of its logits behind it: image -> [N,1]."""

    def __init__(self, module: nn.Module, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module
        self.score = score

    def forward(self, image: Tensor) -> Tensor:
        return self.score(self.module(image))[:, None]


def asked(text: str) -> ortcam.Score:
    return ortcam.Score(text, arrays={"query": QUERY} if "query" in text else {})


def references(case: Case, score: Callable[[Tensor], Tensor], image: Any) -> tuple[Reference, HeadReference]:
    return of_module(case.module, case.explainer, score, image)


def of_module(
    module: nn.Module, explainer: ortcam.Explainer, score: Callable[[Tensor], Tensor], image: Any
) -> tuple[Reference, HeadReference]:
    cut = explainer.bundle.manifest.cut
    net = ScoredNet(module, score)
    classifier = at_layer(net, f"module.{cut.module}", maps_of(cut), activation="identity")
    X = torch.from_numpy(explainer.preprocess(image))
    return Reference(classifier, X, promised_noise), HeadReference(classifier, X)


def assert_all_methods_agree(
    module: nn.Module,
    explainer: ortcam.Explainer,
    image: Any,
    read: Callable[[Tensor], Tensor],
    *,
    has_zero: bool = False,
    **asked_for: Any,
) -> None:
    """One method of each kind, as it is when nothing else is said.

    Args:
        module: in PyTorch.
        explainer: of its bundle.
        image: to explain.
        read: the score in PyTorch, float64 [N,...] -> [N].
        has_zero: whether 0 is its least value and means nothing.
        **asked_for: the same score, as `explain` takes it.
    """
    reference, heads = of_module(module, explainer, read, image)
    baseline = "none" if has_zero else "zeros"
    for method in ("scorecam", "scorecam++"):
        found = explainer.explain(image, method=method, **asked_for)
        assert found.options["baseline"] == baseline
        assert_within_bound(found, reference.explain(method, [0], baseline=baseline), f"{method} {asked_for}")
    found = explainer.explain(image, method="recipro-cam", **asked_for)
    expected = heads.recipro_cam([0], score="probability" if has_zero else "logit")
    assert_within_bound(found, expected, f"recipro-cam {asked_for}")
    cuts = explainer.bundle.manifest.cuts.values()
    layers = [(f"module.{cut.module}", maps_of(cut)) for cut in cuts]
    X = torch.from_numpy(explainer.preprocess(image))
    gradients = GradientReference(ScoredNet(module, read), layers, X, promised_noise)
    found = explainer.explain(image, method="grad-cam", layer="primary", **asked_for)
    assert_within_bound(found, gradients.grad_cam([0]), f"grad-cam {asked_for}")


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return small_image(64, 88)


@pytest.mark.sample(every=12)
@pytest.mark.whole
@pytest.mark.parametrize("text", SCORES)
@pytest.mark.parametrize("method", DEFAULTS)
def test_masked_methods_weigh_by_the_score(small: Case, image: NDArray[np.uint8], method: str, text: str) -> None:
    score, has_zero = SCORES[text]
    reference, _ = references(small, score, image)
    own: dict[str, Any] = {"num_samples": 3} if "num_samples" in DEFAULTS[method] else {}
    for options in ({}, {"baseline": "none"}, {"baseline": "zeros"}, {"weighting": "logit-softmax"}):
        expected = dict(options)
        if not options:
            expected["baseline"] = "none" if has_zero else "zeros"
        found = small.explainer.explain(image, method=method, score=asked(text), **own, **options)
        assert found.options["baseline"] == expected.get("baseline", "none")
        assert_within_bound(found, reference.explain(method, [0], **own, **expected), f"{method} {options}")
        assert found.targets == (-1,)
        assert found.labels == (text,)
        assert found.probabilities == pytest.approx(reference.clean_logits.numpy(), rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("text", SCORES)
def test_head_methods_read_the_score(small: Case, image: NDArray[np.uint8], text: str) -> None:
    score, has_zero = SCORES[text]
    _, reference = references(small, score, image)
    for kernel in ("single", "gaussian"):
        found = small.explainer.explain(image, method="recipro-cam", score=asked(text), kernel=kernel)
        expected = reference.recipro_cam([0], kernel=kernel, score="probability" if has_zero else "logit")
        assert_within_bound(found, expected, kernel)
    found = small.explainer.explain(image, method="ablation-cam", score=asked(text))
    assert_within_bound(found, reference.ablation_cam([0]), "ablation-cam")
    found = small.explainer.explain(image, method="eigen-cam", score=asked(text))
    assert_within_bound(found, reference.eigen_cam([0]), "eigen-cam")


@pytest.mark.sample(every=4)
@pytest.mark.whole
@pytest.mark.parametrize("text", SCORES)
def test_gradient_methods_take_the_derivative_of_the_score(small: Case, image: NDArray[np.uint8], text: str) -> None:
    score, _ = SCORES[text]
    X = torch.from_numpy(small.explainer.preprocess(image))
    layers = [(f"module.{cut.module}", maps_of(cut)) for cut in small.explainer.bundle.manifest.cuts.values()]
    reference = GradientReference(ScoredNet(small.module, score), layers, X, promised_noise)
    for method in ("grad_cam", "xgrad_cam", "hires_cam", "layer_cam", "grad_cam_plus_plus"):
        name = method.replace("_plus_plus", "++").replace("_", "-")
        found = small.explainer.explain(image, method=name, layer="primary", score=asked(text))
        assert_within_bound(found, getattr(reference, method)([0]), method)


@pytest.mark.long
@pytest.mark.parametrize("text", ["a - c", "entropy", "probability:b - probability:e", "cosine:query"])
def test_smooth_gradients_are_those_of_the_score_at_each_noisy_image(
    small: Case, image: NDArray[np.uint8], text: str
) -> None:
    score, _ = SCORES[text]
    X = torch.from_numpy(small.explainer.preprocess(image))
    layers = [(f"module.{cut.module}", maps_of(cut)) for cut in small.explainer.bundle.manifest.cuts.values()]
    reference = GradientReference(ScoredNet(small.module, score), layers, X, promised_noise)
    options: dict[str, Any] = {"num_samples": 2, "std": 0.3, "seed": 5}
    found = small.explainer.explain(image, method="smooth-grad-cam++", score=asked(text), epsilon=0, **options)
    assert_within_bound(found, reference.smooth_grad_cam_plus_plus([0], **options), text)


def test_words_are_scores_of_each_class(small: Case, image: NDArray[np.uint8]) -> None:
    explainer, targets = small.explainer, [0, 3]
    for word, read in (("logit", lambda z: z), ("probability", lambda z: z.softmax(1))):
        for method in ("scorecam", "scorecam++"):
            for weighting in ("probability", "logit-softmax"):
                found = explainer.explain(image, method=method, score=word, target=targets, weighting=weighting)
                for place, target in enumerate(targets):
                    reference, _ = references(small, lambda z, t=target, read=read: read(z)[:, t], image)
                    baseline = "zeros" if word == "logit" and weighting == "probability" else "none"
                    expected = reference.explain(method, [0], weighting=weighting, baseline=baseline)
                    assert np.abs(found.maps[place] - expected.maps[0].numpy()).max() < 1e-4
                assert found.targets == (0, 3)
                assert found.score == word
        seeds = explainer.explain(image, method="grad-cam", score=word, target=3)
        one = explainer.explain(image, method="grad-cam", score=f"{word}:d")
        assert np.array_equal(seeds.maps, one.maps)


def test_what_the_methods_take_of_a_class_may_be_said(small: Case, image: NDArray[np.uint8]) -> None:
    for method, word, options in (
        ("scorecam", "probability", {}),
        ("scorecam++", "logit", {"weighting": "logit-softmax"}),
        ("grad-cam", "logit", {}),
        ("recipro-cam", "probability", {}),
        ("ablation-cam", "logit", {}),
    ):
        plain = small.explainer.explain(image, method=method, target=[1, 2], batch_size=4, **options)
        said = small.explainer.explain(image, method=method, target=[1, 2], batch_size=4, score=word, **options)
        assert np.array_equal(plain.maps, said.maps)
        assert plain.options == said.options


def sum_of_entropies(z: Tensor) -> Tensor:
    return torch.distributions.Bernoulli(logits=z).entropy().sum(1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("text", "score", "has_zero"),
    [
        ("probability:b - 2*probability:e", lambda z: z.sigmoid()[:, 1] - 2 * z.sigmoid()[:, 4], False),
        ("probability:b + probability:e", lambda z: z.sigmoid()[:, 1] + z.sigmoid()[:, 4], True),
        ("entropy", sum_of_entropies, True),
        ("c - entropy", lambda z: z[:, 2] - sum_of_entropies(z), False),
    ],
    ids=["difference", "sum", "entropy", "c - entropy"],
)
def test_sigmoids_have_scores_of_their_own(
    small_multilabel: Case, image: NDArray[np.uint8], text: str, score: Callable[[Tensor], Tensor], has_zero: bool
) -> None:
    module, explainer = small_multilabel.module, small_multilabel.explainer
    assert_all_methods_agree(module, explainer, image, score, has_zero=has_zero, score=text)


@pytest.mark.usefixtures("one_thread")
def test_values_and_tensors_are_read_as_they_are(image: NDArray[np.uint8]) -> None:
    with ortcam.load(VALUES_BUNDLE, threads=1) as explainer:
        module = BandsNet(3, 2).eval()
        assert_all_methods_agree(module, explainer, image, lambda z: z[:, 1], target="weight")
        assert_all_methods_agree(module, explainer, image, lambda z: z[:, 1], score="logit", target="weight")
        query = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
        asked_for = ortcam.Score("cosine:q - 0.1*age", arrays={"q": query.numpy()})
        assert_all_methods_agree(
            module,
            explainer,
            image,
            lambda z: nn.functional.cosine_similarity(z, query) - 0.1 * z[:, 0],
            score=asked_for,
        )
    with ortcam.load(TENSOR_BUNDLE, threads=1) as explainer:
        module = TensorNet().eval()
        mask = torch.arange(24.0, dtype=torch.float64).reshape(4, 6)
        asked_for = ortcam.Score("output[1, :, :]@m - output[0, 2, 3]", arrays={"m": mask.numpy()})
        assert_all_methods_agree(
            module,
            explainer,
            image,
            lambda z: (z[:, 1] * mask).sum((1, 2)) / mask.sum() - z[:, 0, 2, 3],
            score=asked_for,
        )


@pytest.mark.long
@pytest.mark.parametrize("text", ["tabby - 'golden retriever'", "entropy", "tabby + Egyptian_cat + 'tiger cat'"])
def test_real_scores(squeezenet: Case, data: Any, text: str) -> None:
    """Real weights and a photograph: the masked methods, Recipro-CAM and Grad-CAM."""
    pictures = sorted((data / "images").glob("*.jpg"))
    labels = squeezenet.explainer.labels
    place = {name: labels.index(name) for name in ("tabby", "golden retriever", "Egyptian cat", "tiger cat")}
    scores = {
        "tabby - 'golden retriever'": lambda z: z[:, place["tabby"]] - z[:, place["golden retriever"]],
        "entropy": SCORES["entropy"][0],
        "tabby + Egyptian_cat + 'tiger cat'": lambda z: z[
            :, [place[n] for n in ("tabby", "Egyptian cat", "tiger cat")]
        ].sum(1),
    }
    baseline = "none" if text == "entropy" else "zeros"
    reference, heads = references(squeezenet, scores[text], pictures[0])
    for method in ("scorecam", "scorecam++"):
        found = squeezenet.explainer.explain(pictures[0], method=method, score=text)
        assert_within_bound(found, reference.explain(method, [0], baseline=baseline), method)
    found = squeezenet.explainer.explain(pictures[0], method="recipro-cam", score=text)
    assert_within_bound(found, heads.recipro_cam([0], score="probability" if text == "entropy" else "logit"), text)
