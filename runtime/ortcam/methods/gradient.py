"""The methods that weigh features by the derivative of the class logit, as rows: Grad-CAM and its relatives.

`methods.gradient_formulas` has their formulas.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.bundle import Cut
from ortcam.methods.derivative import Derivative
from ortcam.methods.gradient_formulas import (
    Gradients,
    Maps,
    SmoothGradCamPlusPlus,
    Weighed,
    finer_seeds,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from ortcam.methods.head import HeadInputs, HeadScores
from ortcam.methods.method import Method, Option
from ortcam.support.ranges import SEED

__all__ = ["ALL_LAYERS", "GRADIENT_METHODS", "PRIMARY_LAYER", "layer_places"]

# Values of the option `layer` that are no names of layers.
PRIMARY_LAYER: Final = "primary"
ALL_LAYERS: Final = "all"

_COST: Final = "none; 1 backward of the head per class"


def layer_places(name: str, cuts: Sequence[Cut]) -> tuple[int, ...]:
    """The layers that a value of the option `layer` means, by place; none if there is no such layer.

    Args:
        name: "primary", "all", the path of a module, or the name of a tensor.
        cuts: the layers, the primary one first.
    """
    if name == ALL_LAYERS:
        return tuple(range(len(cuts)))
    if name == PRIMARY_LAYER:
        return (0,)
    return tuple(place for place, cut in enumerate(cuts) if name in (cut.module, cut.tensor))[:1]


def _explained(
    inputs: HeadInputs,
    layer: str,
    weigh: Callable[[Maps, Gradients], Weighed],
    *,
    seeds: NDArray[np.float32] | None = None,
) -> HeadScores:
    """The maps of all classes by a formula that takes the gradients at the image.

    Args:
        inputs: of the image.
        layer: value of the option of that name.
        weigh: from A of a layer and its gradients to map and weights.
        seeds: float32 [K,classes]; None: of what is asked for (`HeadInputs.seeds`).
    """

    def make(derivative: Derivative, batch: NDArray[np.float32], places: Sequence[int]) -> list[Weighed]:
        found = zip(places, derivative.at(batch, layers=places), strict=True)
        return [weigh(derivative.layers[place].maps, gradients) for place, gradients in found]

    return _in_batches(inputs, layer, make, seeds=seeds)


def _in_batches(
    inputs: HeadInputs,
    layer: str,
    make: Callable[[Derivative, NDArray[np.float32], Sequence[int]], list[Weighed]],
    *,
    seeds: NDArray[np.float32] | None = None,
    runs: int = 1,
) -> HeadScores:
    """The maps of all classes, a batch of them at a time.

    Args:
        inputs: of the image.
        layer: value of the option of that name.
        make: from the seeds of a batch and the layers, by place, to map and weights of each layer.
        seeds: float32 [K,classes], or [K,n,classes] with n per class; None: of what is asked for (`HeadInputs.seeds`).
        runs: of the gradient graph that `make` takes.
    """
    derivative = inputs.derivative
    assert derivative is not None  # checked with the request
    places = layer_places(layer, [item.cut for item in derivative.layers])
    assert places  # checked with the request
    batches = derivative.each(
        inputs.seeds if seeds is None else seeds, lambda batch: make(derivative, batch, places), runs=runs
    )
    scores = [
        HeadScores(np.concatenate([raw for raw, _ in parts]), np.concatenate([weights for _, weights in parts]), place)
        for place, parts in zip(places, zip(*batches, strict=True), strict=True)
    ]
    return dataclasses.replace(scores[0], others=tuple(scores[1:]))


def _plain(formula: Callable[..., Weighed]) -> Callable[[HeadInputs, Mapping[str, Any]], HeadScores]:
    """What runs a method that takes the gradients at the image; its options besides `layer` go to the formula."""

    def compute(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
        own = {name: value for name, value in options.items() if name != "layer"}
        return _explained(inputs, options["layer"], functools.partial(formula, **own))

    return compute


def _compute_smooth(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    derivative = inputs.derivative
    assert derivative is not None  # checked with the request
    noisy, seeds = [], []
    for sample in range(options["num_samples"]):
        place = options["std"], options["seed"], sample
        noisy.append(derivative.noisy(*place))
        if inputs.score is None or inputs.score.is_affine:
            seeds.append(inputs.seeds)
        else:  # the derivative of the score at the noisy image
            assert derivative.noisy_logits is not None  # as `noisy`
            seeds.append(inputs.seeds_at(derivative.noisy_logits(*place)))

    def make(derivative: Derivative, batch: NDArray[np.float32], places: Sequence[int]) -> list[Weighed]:
        found = [SmoothGradCamPlusPlus() for _ in places]
        for features, own_seeds in zip(noisy, batch.swapaxes(0, 1), strict=True):
            gradients = derivative.at(np.ascontiguousarray(own_seeds), features, layers=places)
            for of_layer, of_sample in zip(found, gradients, strict=True):
                of_layer.add(of_sample)
        maps = [derivative.layers[place].maps for place in places]
        return [of_layer.weighed(own, epsilon=options["epsilon"]) for of_layer, own in zip(found, maps, strict=True)]

    return _in_batches(inputs, options["layer"], make, seeds=np.stack(seeds, axis=1), runs=len(noisy))


def _compute_finer(inputs: HeadInputs, options: Mapping[str, Any]) -> HeadScores:
    seeds = finer_seeds(
        inputs.logits,
        inputs.targets,
        strength=options["strength"],
        references=options["references"],
        weighting=options["weighting"],
    )
    return _explained(inputs, options["layer"], grad_cam, seeds=seeds)


def _parse_layer(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _layer(default: str = PRIMARY_LAYER) -> Option:
    return Option(
        "layer",
        default,
        f"{PRIMARY_LAYER}, {ALL_LAYERS}, or a layer of the bundle by name",
        _parse_layer,
        help="which layer of the bundle; all fuses the maps of its layers (LayerCAM, eq. 8 and 9)",
    )


def _epsilon(help: str) -> Option:  # noqa: A002
    return Option.number("epsilon", 0, least=0, most=1, whole=False, help=help)


GRADIENT_METHODS: Final = (
    Method(
        name="grad-cam",
        title="Grad-CAM",
        aliases=("gradcam",),
        options=(_layer(),),
        compute=_plain(grad_cam),
        summary="Weighs each channel by the mean derivative of the class logit with respect to it.",
        formula="sum_k mean(g_k) A_k",
        cost=_COST,
        source="Selvaraju et al., Grad-CAM, ICCV 2017",
        use="Choose it for speed with any model: it takes little longer than a prediction.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="grad-cam++",
        title="Grad-CAM++",
        aliases=("gradcam++", "gradcampp", "grad-campp"),
        options=(
            _layer(),
            _epsilon("added to the denominator: 0 as in the paper; 1e-6 as in pytorch-grad-cam"),
        ),
        compute=_plain(grad_cam_plus_plus),
        summary="Grad-CAM with more weight for positions that few others support, so that small objects count, too.",
        formula="sum_k sum(a_k relu(g_k)) A_k, a_k = g_k^2 / (2 g_k^2 + sum(A_k) g_k^3)",
        cost=_COST,
        source="Chattopadhyay et al., Grad-CAM++, WACV 2018, equation 19",
        use="Choose it for speed where an image shows several objects of a class.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="xgrad-cam",
        title="XGrad-CAM",
        aliases=("xgradcam",),
        options=(
            _layer(),
            _epsilon("added to sum(A_k): 0 as in the paper; 1e-7 as in pytorch-grad-cam, 1e-8 as in torch-cam"),
        ),
        compute=_plain(xgrad_cam),
        summary="Grad-CAM with the derivative of each position weighed by the share of the channel that it has.",
        formula="sum_k (sum(g_k A_k) / sum(A_k)) A_k",
        cost=_COST,
        source="Fu et al., Axiom-based Grad-CAM, BMVC 2020",
        use="Choose it for features behind a ReLU; with signed features its sums may cancel.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="layer-cam",
        title="LayerCAM",
        aliases=("layercam",),
        options=(_layer(ALL_LAYERS),),
        compute=_plain(layer_cam),
        summary="Weighs each position of each channel by its positive derivative, and fuses the layers of the bundle.",
        formula="sum_k relu(g_k) A_k",
        cost=_COST,
        source="Jiang et al., LayerCAM, IEEE TIP 2021",
        use="Choose it for fine maps, with a bundle that has earlier layers beside the last one.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="hires-cam",
        title="HiResCAM",
        aliases=("hirescam",),
        options=(_layer(),),
        compute=_plain(hires_cam),
        summary="Weighs each position of each channel by its derivative, negative ones included.",
        formula="sum_k g_k A_k",
        cost=_COST,
        source="Draelos & Carin, Use HiResCAM instead of Grad-CAM, arXiv 2011.08891",
        use="Choose it where a map must not show positions that the head did not use.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="smooth-grad-cam++",
        title="Smooth Grad-CAM++",
        aliases=("smoothgradcam++", "smoothgradcampp", "smooth-grad-campp"),
        options=(
            _layer(),
            Option.number("num_samples", 4, least=1, most=1000, help="noisy images: n"),
            Option.number(
                "std", 0.3, least=0, most=1000, whole=False, help="standard deviation of the noise on the model's input"
            ),
            Option.number("seed", 0, least=SEED.least, most=SEED.most, help="seed of the noise"),
            _epsilon("added to the denominator: 0 as in the paper; 1e-8 as in torch-cam"),
        ),
        compute=_compute_smooth,
        summary="Grad-CAM++ with the derivatives averaged over noisy copies of the image.",
        formula="as grad-cam++, with means of g_k, g_k^2 and g_k^3 over noisy images",
        cost="1 of the features per sample; 1 backward of the head per class and sample",
        source="Omeiza et al., Smooth Grad-CAM++, arXiv 1908.01224",
        use="Choose it where the maps of grad-cam++ are noisy.",
        needs_gradient=True,
        takes_scores=True,
    ),
    Method(
        name="finer-cam",
        title="Finer-CAM",
        aliases=("finercam",),
        options=(
            _layer(),
            Option.number(
                "strength",
                0.6,
                least=0,
                most=10,
                whole=False,
                help="how much of a similar class's logit is subtracted: 0.6 as in the authors' code",
            ),
            Option.number("references", 3, least=1, most=1000, help="similar classes: those of the closest logits"),
            Option.choice(
                "weighting",
                "mean",
                "probability",
                help="of the similar classes: their mean (the authors' aggregate); or by probability "
                "(pytorch-grad-cam, with strength=1)",
            ),
        ),
        compute=_compute_finer,
        summary="Grad-CAM of the difference between a class and those most like it.",
        formula="sum_k mean(d(y_c - s y_d) / d A_k) A_k, averaged over similar classes d",
        cost=_COST,
        source="Zhang et al., Finer-CAM, CVPR 2025",
        use="Choose it for classes that look alike: it shows what tells them apart.",
        needs_gradient=True,
    ),
)
