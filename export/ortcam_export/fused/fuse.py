"""One file that explains: a bundle and a method fused into an ONNX model, checked against the runtime, and written."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from ortcam.bundle import Bundle, read_bundle
from ortcam.errors import OptionError
from ortcam.explainer.scored import scored_by
from ortcam.methods import AUTO_METHOD, MASKED_ONLY, Settings
from ortcam.request import ExplainRequest, Score, for_fused_file, resolve_fusible
from ortcam.scoring import Limits
from ortcam.support.ranges import CHUNK, TOP_K, check_flags, shown
from ortcam.support.unfinished import workspace
from ortcam_export.errors import ExportError
from ortcam_export.fused.checking import (
    baseline_scores,
    check_model,
    difference_by_rounding,
    difference_from_runtime,
    is_expression,
)
from ortcam_export.fused.explainer_graph import ExplainerSpec, Gradients, Masking, build_explainer
from ortcam_export.fused.file import Fused, client_parameters, describe, metadata, save
from ortcam_export.fused.placement import Place, choose_place, put_in_place
from ortcam_export.fused.triton import CONFIGURATION, configuration
from ortcam_export.ort_format import save_in_ort_format
from ortcam_export.staging import reported

__all__ = ["DEFAULT_CHUNK", "TOLERANCE", "Fused", "fuse"]

DEFAULT_CHUNK: Final = 8
# What a fused file's map may differ from the runtime's by.
TOLERANCE: Final = 1e-4
# Where rounding alone moves a map by more: by how many times that. A graph that is one file rounds at more than its
# input, and the largest of a few measurements is not the largest there is.
_ROUNDING_FACTOR: Final = 8


def fuse(
    bundle: str | os.PathLike[str] | Bundle,
    output: str | os.PathLike[str] | None = None,
    *,
    triton: str | os.PathLike[str] | None = None,
    name: str | None = None,
    method: str = "auto",
    budget: float | int | None = None,
    precision: str | None = None,
    top_k: int | None = None,
    runtime_targets: bool = False,
    score: Score | str | None = None,
    uint8_input: bool = False,
    batch_size: int = DEFAULT_CHUNK,
    external: bool = False,
    ort: bool = False,
    force: bool = False,
    verify: bool = True,
    report: Callable[[str], None] | None = None,
    **options: object,
) -> Fused:
    """Write a bundle and a method as one ONNX model that explains. `fused.explainer_graph.explainer` has its interface.

    Its maps are those of `Explainer.explain` with the same settings. With a budget they are those of
    `completion="none"`: the channels of the highest energy are scored, and the others weigh nothing. The file of a
    gradient method has no loop, and without `runtime_targets` and `uint8_input` no open dimension.

    Args:
        bundle: folder written by `ortcam export`.
        output: file to write, ending in `.onnx`, or in `.ort` with `ort`; None where `triton` says where it goes.
        triton: folder of a model repository of Triton Inference Server; the file is written there as
            `NAME/1/model.onnx`, with its `config.pbtxt`.
        name: of the model in the repository; None makes one of the names of bundle and method.
        method: one that masks the image or that takes gradients; "auto" takes the one that suits the bundle.
        budget: channels to score, of a method that masks the image: a share in (0,1] of those that are not flat, or a
            whole number of them; None: all.
        precision: of its masked passes, where the bundle has it; None takes that of its own graphs.
        top_k: how many of the most probable classes are explained; None: 1.
        runtime_targets: whether the classes are an input instead.
        score: what is explained, as of `Explainer.explain`: "logit" or "probability" of the classes, or an expression,
            which the file then has in it. A model whose output is a tensor needs one.
        uint8_input: whether the input is an image of any size, preprocessed inside the graph: uint8 [h,w,3], RGB; of a
            model with a value range its samples, float32 [h,w,C].
        batch_size: masked images per turn of the loop.
        external: whether the weights lie in a file of their own, `NAME.onnx.data`, or `NAME.onnx.HEX.data` where a
            model that is replaced has other weights under that name: so no model ever meets another's weights.
        ort: whether the file is in ORT format, which minimal builds of ONNX Runtime load: optimized, for any processor.
        force: replace a file that is there.
        verify: whether the file is run on the bundle's probe and compared with the runtime before it is written.
        report: told the stages.
        **options: of the method; see `ortcam.methods.METHODS`.

    Raises:
        ExportError: a file that is there, a method that cannot be fused, or a map that is not the runtime's; nothing is
            written.
        OptionError: a value that is not accepted.
        BundleError: the bundle cannot be trusted or read, or has no scorers in this precision.
    """
    say = report or (lambda _: None)
    check_flags(runtime_targets=runtime_targets, uint8_input=uint8_input, external=external, ort=ort)
    check_flags(force=force, verify=verify)
    request = _check_request(method, options, budget, top_k, batch_size, score, runtime_targets=runtime_targets)
    _check_masks(request.settings, budget, precision)
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    _check_classes(top_k, opened)
    request = for_fused_file(request, opened.manifest, masked=precision is not None)
    if request.chosen is not None:
        say(request.chosen)
    place = choose_place(
        opened, request.settings.method.name, output, triton, name, external=external, ort=ort, force=force
    )
    spec = _spec(opened, request, precision, runtime_targets=runtime_targets, uint8_input=uint8_input)
    say("building the graph")
    with reported(place.whole), workspace(place.whole.parent) as own:
        # Of a copy: the weights are read when the file is written, and are to be those that were verified.
        (copied := own / "bundle").mkdir()
        model = build_explainer(opened.copy_to(copied), spec)
        model.metadata_props.update(metadata(opened, request, spec))
        say("writing the file")
        made = _write(model, place, own)
        say("checking the file")
        check_model(made, say)
        onnx_size = None
        if place.ort:
            say("converting it to ORT format")
            onnx_size = made.stat().st_size
            save_in_ort_format(made, own / place.file)
            made = own / place.file
        difference = None
        if verify:
            say("comparing its maps with the runtime's")
            difference = _verified(opened, request, spec, made)
        if place.repository:
            text = configuration(place.whole.name, model, client_parameters(model))
            (place.folder_made(own) / CONFIGURATION).write_text(text, "ascii")
        weights = put_in_place(made, place, own, force=force)
        return describe(model, place, weights, difference, onnx_size)


def _check_request(
    method: str,
    options: Mapping[str, Any],
    budget: float | int | None,
    top_k: int | None,
    batch_size: int,
    score: Score | str | None,
    *,
    runtime_targets: bool,
) -> ExplainRequest:
    """Check what the file is to explain, as far as that needs no bundle.

    Raises:
        ExportError: classes that are chosen twice.
        OptionError: a method that cannot be fused, or a value that is not accepted.
    """
    resolve_fusible(method, options)
    limits = Limits(budget)
    for range_, value in ((TOP_K, top_k), (CHUNK, batch_size)):
        if value is not None:
            range_.check(value)
    if top_k is not None and runtime_targets:
        raise ExportError(f"top_k={top_k} with runtime_targets: the classes are chosen at one time or the other")
    asked = ExplainRequest.of(method=method, top_k=int(top_k or 1), batch_size=int(batch_size), score=score, **options)
    if asked.score is not None and is_expression(asked) and runtime_targets:
        raise OptionError(
            f"score={shown(asked.score.text)} with runtime_targets: an expression is one score and names its classes "
            "itself"
        )
    return dataclasses.replace(asked, limits=limits)


def _check_masks(settings: Settings, budget: float | int | None, precision: str | None) -> None:
    """Refuse what only masked methods have.

    Raises:
        OptionError: a budget or a precision of the masked passes where there are none.
    """
    given = [name for name, value in (("budget", budget), ("precision", precision)) if value is not None]
    if given and not settings.method.masks_image and settings.method is not AUTO_METHOD:
        raise OptionError(f"{', '.join(given)} with {settings.method.name}: {MASKED_ONLY}")


def _check_classes(top_k: int | None, bundle: Bundle) -> None:
    classes = bundle.manifest.outputs
    if top_k is not None and top_k > classes:
        raise ExportError(f"top_k={top_k}: accepted is a whole number from 1 to {classes}, the model's classes")


def _spec(
    bundle: Bundle, request: ExplainRequest, precision: str | None, *, runtime_targets: bool, uint8_input: bool
) -> ExplainerSpec:
    """What the graph is to do for a request.

    Raises:
        BundleError: the bundle has no scorers in this precision.
    """
    settings, manifest = request.settings, bundle.manifest
    score = request.score.matrix(manifest) if request.score is not None and is_expression(request) else None
    how: Masking | Gradients
    if settings.plan is None:
        by_probability = request.score is not None and request.score.word == "probabilities"
        how = Gradients(settings.method.name, settings.options, by_probability and manifest.activation != "identity")
    else:
        scored = scored_by(request, manifest, settings.plan, np.zeros(1, np.int64))
        how = Masking(
            plan=settings.plan,
            budget=request.limits.budget,
            precision=bundle.check_precision(precision),
            batch_size=int(request.batch_size),
            baseline=baseline_scores(bundle, request, settings.plan),
            rows=scored.rows if manifest.graphs.score_terms else None,
            column=int(scored.columns[0]),
            signed=settings.plan.weighting == "probability" and not request.has_zero(manifest),
        )
    return ExplainerSpec(how, None if runtime_targets else request.top_k, uint8_input, score)


def _write(model: ir.Model, place: Place, own: Path) -> Path:
    """Write a model into a workspace. Returns its path."""
    made = (place.folder_made(own) / place.file).with_suffix(".onnx")
    made.parent.mkdir(parents=True, exist_ok=True)
    save(model, made, external=place.external, functions=not place.ort)
    return made


def _verified(bundle: Bundle, request: ExplainRequest, spec: ExplainerSpec, made: Path) -> float | None:
    """Compare a file with the runtime. Returns the difference of their maps, None where the bundle has no probe.

    Raises:
        ExportError: the maps differ by more than `TOLERANCE`, and by more than rounding explains.
    """
    difference = difference_from_runtime(bundle, request, spec, made)
    if difference is None or difference <= TOLERANCE:
        return difference
    # Of masked methods, whose weights are means and probabilities, no more is accepted.
    accepted = TOLERANCE
    if isinstance(spec.how, Gradients):
        accepted = max(TOLERANCE, _ROUNDING_FACTOR * difference_by_rounding(bundle, request, spec))
    if not difference <= accepted:
        raise ExportError(
            f"the maps of the file differ from the runtime's by {difference:.1e}; accepted is {accepted:.0e}. "
            "Nothing was written"
        )
    return difference
