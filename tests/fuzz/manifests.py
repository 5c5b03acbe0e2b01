"""Fuzzing of bundle.json: its values, keys and nesting changed as JSON, or its bytes as they come."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

from ortcam.bundle import MANIFEST_NAME
from tests.fuzz import bundles

__all__ = ["change", "seeds", "try_on"]

_SINCE_5: Final = frozenset({"output_shape", "inputs", "output_parts"})
_DEEP: Final = "a place for something nested deeply"
_NESTED: Final = "[" * 20_000 + "]" * 20_000
_VALUES: Final = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 16, 16384, 16385, 65536, 1 << 31, 1 << 62, 1 << 64, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1e-300, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", "a", "\0", "\ud800", "../x", "/etc/passwd", "bundle.json", "features.onnx", "head.onnx", "weights.bin"),
    *("unlisted.bin", "a" * 5000, "\x1b[2J", "softmax", "sigmoid", "nchw", "nhwc", "tokens", "float16", "int8"),
    *([], {}, [[]], {"": {}}, [0] * 1000, ["x"] * 1000, _DEEP),
)


def try_on(data: bytes) -> None:
    """Use the bundle with this bundle.json; see `bundles.try_with`."""
    bundles.try_with(bundles.write_input(MANIFEST_NAME, data))


def seeds() -> list[bytes]:
    """The manifest as it was written, and as schemas 1 to 4 would have it."""
    manifest = json.loads(bundles.files()[MANIFEST_NAME])
    newest = manifest
    manifest = {name: value for name, value in newest.items() if name not in _SINCE_5} | {"schema": 4}
    for name, added in (
        ("model", {"embeddings_sha256", "logit_scale", "logit_bias"}),
        ("preprocessing", {"value_range", "display"}),
        ("graphs", {"score_terms", "static_batch"}),
    ):
        manifest[name] = {key: value for key, value in manifest[name].items() if key not in added}
    since_4 = {"layers", "gradient", "no_gradient"}
    third = {name: value for name, value in manifest.items() if name not in since_4} | {"schema": 3}
    third["probe"] = {name: value for name, value in third["probe"].items() if name != "gradient"}
    second = {name: value for name, value in third.items() if name != "variants"} | {"schema": 2}
    first = {name: value for name, value in second.items() if name not in {"activation", "probe"}} | {"schema": 1}
    for name, added in (
        ("preprocessing", ("channel_order", "scale", "keep_aspect", "crop_rounding")),
        ("graphs", ("classifier",)),
        ("parity", ("scorer_tolerance",)),
    ):
        first[name] = {key: value for key, value in first[name].items() if key not in added}
    return [json.dumps(each).encode() for each in (newest, manifest, third, second, first)]


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another manifest, of JSON in most cases."""
    if random.random() < 0.25:
        return change_bytes(data, longest)
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, longest)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        manifest = _with_a_change(manifest, random)
    try:
        text = json.dumps(manifest, ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return data
    changed = text.replace(f'"{_DEEP}"', _NESTED if random.random() < 0.5 else "[]").encode(errors="surrogatepass")
    return changed if len(changed) <= longest else data


def _with_a_change(value: Any, random: Random) -> Any:
    """One entry somewhere replaced, removed, doubled, renamed, or taken from somewhere else."""
    places = list(_places(value))
    if not places:
        return random.choice(_VALUES)
    holder, key = random.choice(places)
    old = holder[key]
    match random.randrange(6):
        case 0 | 1:
            holder[key] = random.choice(_VALUES)
        case 2:
            del holder[key]
        case 3 if isinstance(holder, dict):
            holder[random.choice(("", "schema", f"{key}x", "features.onnx", "unlisted.bin"))] = copy.deepcopy(old)
        case 3:
            holder += [old] * random.choice((1, 2, 1000))
        case 4:
            other, name = random.choice(places)
            holder[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else old
        case _ if isinstance(old, int | float) and not isinstance(old, bool) and abs(old) < 1e300:
            holder[key] = random.choice((-old, old + 1, old - 1, old * 2, old / 2, float(old)))
        case _:
            holder[key] = [old]
    return value


def _places(value: Any) -> Any:
    """Every entry of every object and list, as the one that holds it and its key."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in list(entries):
        yield value, key
        yield from _places(entry)
