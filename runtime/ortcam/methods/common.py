"""The options that every method has: those of `Augmentation`."""

import math
from collections.abc import Mapping
from typing import Any, Final, get_args

from ortcam.errors import OptionError
from ortcam.methods.augmentation import Augmentation, Combination
from ortcam.methods.method import Option
from ortcam.support.ranges import SEED

__all__ = ["COMMON_OPTIONS", "augmentation_of"]

_MOST_COPIES: Final = 1000
_USUAL: Final = Augmentation(1)

# The ranges are those of Augmented Grad-CAM: angles of 0.5 radians, and 30 of 224 pixels.
COMMON_OPTIONS: Final = (
    Option.number(
        "augment",
        0,
        least=0,
        most=_MOST_COPIES,
        help="explain this many copies of the image, turned and moved, and combine their maps; the first copy is the "
        "image itself. 0: off",
    ),
    Option.choice(
        "augment_combine",
        *get_args(Combination),
        help="the mean of the copies' maps, their maximum, or total-variation fusion (tv, as in Augmented Grad-CAM)",
    ),
    Option.number(
        "augment_rotation",
        _USUAL.rotation,
        least=0,
        most=math.pi,
        whole=False,
        help="largest angle of a copy, in radians, to either side",
    ),
    Option.number(
        "augment_shift",
        _USUAL.shift,
        least=0,
        most=1,
        whole=False,
        help="largest shift of a copy, as a share of each side",
    ),
    Option.number(
        "augment_scale",
        _USUAL.scale,
        least=0,
        most=4,
        whole=False,
        help="largest change of size: 0.25 makes a copy up to 1.25 times as large, or as small",
    ),
    Option.flag("augment_flip", _USUAL.flip, help="mirror half of the copies, left to right"),
    Option.number(
        "augment_seed", _USUAL.seed, least=SEED.least, most=SEED.most, help="of the copies; the same seed, the same map"
    ),
)


def augmentation_of(method: str, options: Mapping[str, object]) -> Augmentation | None:
    """What common options say, completed; None where the image is explained as it is.

    Args:
        method: name, for messages.
        options: those of `COMMON_OPTIONS` that were given, parsed.

    Raises:
        OptionError: one of them without `augment`.
    """
    complete: dict[str, Any] = {option.name: option.default for option in COMMON_OPTIONS} | dict(options)
    copies = complete.pop("augment")
    if copies:
        return Augmentation(copies, **{name.removeprefix("augment_"): value for name, value in complete.items()})
    if given := [name for name in options if name != "augment"]:
        raise OptionError(f"{method}: {', '.join(given)} without augment: goes with augment=N, such as augment=10")
    return None
