"""Fuzzing of a bundle's other files: the arrays of the probe, by their headers and bytes, and the weights."""

from collections.abc import Callable
from random import Random
from typing import Final

from tests.fuzz import bundles

__all__ = ["change", "seeds", "try_on"]

_SHAPES: Final = (
    *("()", "(0,)", "(-1,)", "(1,)", "(2, 16, 16, 3)", "(2, 4)", "(4, 2)", "(1000000, 1000000, 1000000, 3)"),
    *(
        "(2, -16, -16, 3)",
        "(2.0, 4)",
        "(True, 4)",
        "2",
        "None",
        "((2, 4))",
        "(2, 4, )",
        "(2, 4",
        "(99999999999999999999,)",
    ),
)
_TYPES: Final = (
    "|u1",
    "<f4",
    ">f4",
    "<f8",
    "|O",
    "|V16",
    "<U9",
    "<M8[s]",
    "|b1",
    "<c8",
    "",
    "[('a', '<f4')]",
    "x" * 300,
)
_HEADS: Final = (
    b"",
    b"\x93NUMPY",
    b"\x93NUMPY\x01\0",
    b"\x93NUMPY\x02\0",
    b"\x93NUMPY\x03\0",
    b"\x93NUMPY\x09\0",
    b"PK\x03\x04",
)


def try_on(data: bytes) -> None:
    """Use and verify the bundle with this file; see `bundles.try_with`."""
    bundles.try_with(data, verified=True)


def seeds() -> list[bytes]:
    """The files as they were written."""
    made = bundles.files()
    return [bundles.write_input(name, made[name]) for name in made if name.endswith((".npy", ".bin"))]


def change(data: bytes, random: Random, change_bytes: Callable[[bytes, int], bytes], longest: int) -> bytes:
    """Another file: a header of .npy put together, or bytes as they come."""
    name, content = bundles.read_input(data)
    if not name.endswith((".npy", ".bin")):
        name = random.choice(("probe.npy", "probe-logits.npy", "weights.bin"))
    way = random.random()
    if name.endswith(".npy") and way < 0.4:
        content = _with_header(content, random)
    elif way < 0.5:
        content = content[: random.randrange(len(content) + 1)]
    else:
        content = change_bytes(content, longest - 20)
    return bundles.write_input(name, content)[:longest]


def _with_header(content: bytes, random: Random) -> bytes:
    kind, shape, order = random.choice(_TYPES), random.choice(_SHAPES), random.choice(("False", "True", "0", "None"))
    text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}"
    if random.random() < 0.2:
        text = random.choice(
            ("(" * 5000, "{'a': " * 400, "\0", "x\ny", "'" * 3, "[" + "0," * 3000 + "]", "\\", "1" * 5000)
        )
    if random.random() < 0.3:
        at = random.randrange(len(text))
        text = text[:at] + random.choice("{}[]()'\",:0\n\0é") + text[at + 1 :]
    header = text.encode("utf-8", "replace").ljust(random.choice((0, 118, 53)) or len(text)) + b"\n"
    version = random.choice((1, 1, 2, 3))
    head = b"\x93NUMPY" + bytes([version, 0]) + (len(header) & 0xFFFF).to_bytes(2 if version == 1 else 4, "little")
    if random.random() < 0.1:
        head = random.choice(_HEADS)
    return head + header + content[128:]
