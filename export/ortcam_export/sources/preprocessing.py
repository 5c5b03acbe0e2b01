"""The preprocessing that a user gave, what it takes for granted, and the error where nobody gave any."""

import dataclasses

from ortcam.images.preprocessing import Preprocessing
from ortcam.images.presets import presets_in_words
from ortcam_export.errors import ExportError
from ortcam_export.sources.types import InputSpec

__all__ = ["assumed_of", "unknown_preprocessing", "user_preprocessing"]


def user_preprocessing(spec: InputSpec, size: tuple[int, int], model: str) -> tuple[Preprocessing, str]:
    """Preprocessing in the user's own words, or as declared with the user's changes, for an input of this size.

    Returns:
        The preprocessing, and the source in words.

    Raises:
        ExportError: mean or std were neither said nor declared, or values that `Preprocessing` does not take.
    """
    if not spec.says_normalisation:
        raise unknown_preprocessing(model, spec)
    if spec.declared is not None:
        declared = dataclasses.replace(spec, input_size=size).overriding(spec.declared)
        return declared.preprocessing, declared.source
    said = spec.mean is not None and spec.std is not None
    return spec.preprocessing(*size), "given by the user" if said else "not known"


def assumed_of(spec: InputSpec, size: tuple[int, int]) -> tuple[str, ...]:
    """What is taken for granted where the user said mean and std, a sentence each.

    Args:
        spec: what was said.
        size: (H, W) of the model's input.
    """
    if spec.partial or spec.declared is not None:
        return ()
    assumed = []
    channels = spec.said_channels or 3
    if spec.channel_order is None and spec.preset is None and channels == 3:
        assumed.append("the model takes RGB; --channel-order bgr says otherwise")
    elif spec.channel_order is None and spec.preset is None and channels == 1:
        assumed.append("the model takes grey, weighed as Pillow does; --channel-order grey-opencv says otherwise")
    if spec.order == "bands" and spec.value_range is None:
        assumed.append("the bands of an image go from 0 to 255; --value-range LOW,HIGH says otherwise")
    if spec.resize is None:
        assumed.append(
            f"an image is resized straight to {size[0]} x {size[1]}; --resize N scales its short side to N, then crops"
        )
    return tuple(assumed)


def unknown_preprocessing(model: str, spec: InputSpec, *, sized: bool = True) -> ExportError:
    """The error for a model whose preprocessing nobody has said: what to say, and what the presets stand for.

    Args:
        model: its name.
        spec: what was said.
        sized: whether the size of its input is known.
    """
    values = {1: "V", 3: "R,G,B"}.get(spec.said_channels or 3, "V[,V...]")
    needed = [f"--{name} {values}" for name in ("mean", "std") if getattr(spec, name) is None]
    wanted = [] if spec.says_normalisation else [f"--preset NAME, or {' and '.join(needed)}"]
    wanted += [] if sized else ["--input-size 224, or whatever its sides are"]
    error = ExportError(f"{model}: does not say how an image becomes its input; give {', and '.join(wanted)}")
    if not spec.says_normalisation:
        error.add_note(f"The presets, and the calls that they stand for:\n{presets_in_words(spec.said_channels)}")
    return error
