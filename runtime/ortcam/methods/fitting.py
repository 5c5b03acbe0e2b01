"""Which methods a bundle allows: what of it each needs, and what to do where that is missing."""

from ortcam.bundle import Manifest
from ortcam.errors import OptionError
from ortcam.methods.gradient import ALL_LAYERS, PRIMARY_LAYER, layer_places
from ortcam.methods.method import Method, Settings
from ortcam.methods.registry import METHODS
from ortcam.support.ranges import shown
from ortcam.support.suggestions import did_you_mean

__all__ = ["check_fits", "fits", "fitting_methods"]


def fits(method: Method, manifest: Manifest) -> bool:
    """Whether a bundle has what a method needs: a head, the gradient of one, or attention in it."""
    gradient = manifest.gradient
    return not (
        (method.needs_head and manifest.graphs.head is None)
        or (method.needs_gradient and gradient is None)
        or (method.needs_attention and (gradient is None or gradient.attention_heads is None))
    )


def fitting_methods(manifest: Manifest) -> tuple[str, ...]:
    """The names of the methods that work with a bundle, in the order of the table."""
    return tuple(method.name for method in METHODS if fits(method, manifest))


def check_fits(settings: Settings, manifest: Manifest) -> None:
    """Refuse a method that a bundle does not allow.

    Raises:
        OptionError: the bundle has no head, no gradient or no attention, and the method needs it, or has no such layer;
            the message says what works.
    """
    method, missing = settings.method, None
    if method.needs_head and manifest.graphs.head is None:
        missing = "the head of the classifier, and this bundle has none, since its layer lies inside a branch"
    elif method.needs_gradient and manifest.gradient is None:
        missing = f"the gradient of the logits, and this bundle has none, since {manifest.no_gradient}"
    elif not fits(method, manifest):
        missing = (
            "attention as the one way from the patches to the logits, as behind the last block but one of most vision "
            f"transformers, and layer {manifest.cut.module or manifest.cut.tensor!r} of this bundle has none"
        )
    if missing is not None:
        works = ", ".join(fitting_methods(manifest))
        raise OptionError(f"{method.name}: needs {missing}; methods that work here: {works}")
    layer, cuts = settings.options.get("layer"), tuple(manifest.cuts.values())
    if method.needs_gradient and isinstance(layer, str) and not layer_places(layer, cuts):
        names = [cut.module or cut.tensor for cut in cuts]
        accepted = ", ".join(dict.fromkeys((PRIMARY_LAYER, ALL_LAYERS, *names)))
        raise OptionError(
            f"{method.name}: layer={shown(layer)} is no layer of this bundle; accepted: {accepted}"
            f"{did_you_mean(layer, names)}"
        )
