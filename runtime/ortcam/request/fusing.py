"""What a fused file can explain: which methods there is a graph of, and the request that a file stands for."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.methods import ATTENTION_METHODS, AUTO_METHOD, GRADIENT_METHODS, METHODS, Method, Settings, resolve_method
from ortcam.request.request import ExplainRequest

__all__ = ["for_fused_file", "fusible", "resolve_fusible"]

# The methods that mask no image and have a graph of their own. A method that masks is fused by its plan.
_WITH_GRAPHS: Final = frozenset(method.name for method in (*GRADIENT_METHODS, *ATTENTION_METHODS))


def fusible(method: Method) -> bool:
    """Whether there is a graph of a method."""
    return method.masks_image or method.name in _WITH_GRAPHS


def resolve_fusible(name: str, options: Mapping[str, object]) -> Settings:
    """`resolve_method` of a method that can be fused.

    Raises:
        OptionError: an unknown method, one or options that a fused file cannot have, or a value that is not accepted.
    """
    settings = resolve_method(name, options, among=fusible)
    _check_fusible(settings)
    return settings


def _check_fusible(settings: Settings) -> None:
    """Refuse a method, or options, that a fused file cannot have. "auto" is accepted: some method of it can be fused.

    Raises:
        OptionError: says what is accepted.
    """
    method, augmentation = settings.method, settings.augmentation
    if method is not AUTO_METHOD and not fusible(method):
        names = ", ".join(item.name for item in METHODS if fusible(item))
        raise OptionError(f"{method.name}: cannot be fused; accepted is {names}")
    if augmentation is not None:
        raise OptionError(f"augment={augmentation.copies}: a fused file explains the image alone, without copies of it")


def for_fused_file(request: ExplainRequest, manifest: Manifest, *, masked: bool = False) -> ExplainRequest:
    """The request for one bundle, as `ExplainRequest.for_bundle`, with a method that can be fused in place of "auto".

    A file with a budget scores the channels of the highest energy, as `completion="none"` does: a graph predicts none.

    Args:
        request: whose method passed `resolve_fusible`.
        manifest: of the bundle.
        masked: whether "auto" is to take a method that masks the image.

    Raises:
        TargetError: a number of classes that the model does not have.
        OptionError: the bundle lacks what the method needs, or its graphs have fixed shapes.
    """
    if (static := manifest.graphs.static_batch) is not None:
        raise OptionError(
            f"the graphs of this bundle are fixed at {static} rows per run, and a fused file runs other sizes; "
            "accepted is a bundle that was exported without --static-batch"
        )
    found = request.for_bundle(manifest, previews=masked)
    if not fusible(found.settings.method):
        masked_one = request.for_bundle(manifest, previews=True)
        reason = f"{masked_one.settings.method.name}, because {found.settings.method.name} cannot be fused"
        found = dataclasses.replace(masked_one, chosen=reason)
    if found.settings.method.masks_image:
        return dataclasses.replace(found, limits=dataclasses.replace(found.limits, completion="none"))
    return found
