"""Migration of bundles with older schemas: each step adds the new fields, with the values that held before it.

A reader of schema n reads all schemas from 1 to n. There is one function per step, and they are applied one after
another. A newer schema is refused. A step adds nothing that its bundles did not mean when they were written.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ortcam.support.strict_json import SchemaError

__all__ = ["MIGRATIONS", "migrate"]

Raw = Mapping[str, Any]


def migrate(raw: Raw) -> Raw:
    """Migrate a parsed bundle.json of any schema to the current one.

    Args:
        raw: the object in bundle.json, whose "schema" is an integer.

    Raises:
        SchemaError: it has an entry that its schema did not have yet.
    """
    while (step := MIGRATIONS.get(raw["schema"])) is not None:
        raw = step(raw) | {"schema": raw["schema"] + 1}
    return raw


def _from_1(raw: Raw) -> dict[str, Any]:
    """Add what schema 1 implied: torchvision's resize, RGB in [0,1], softmax, one tolerance, a head, no probe."""
    return _with(raw, "bundle.json", activation="softmax", probe=None) | {
        name: _with(raw[name], f"bundle.json.{name}", **added)
        for name, added in (
            (
                "preprocessing",
                {"channel_order": "rgb", "scale": 1.0, "keep_aspect": True, "crop_rounding": "half-even"},
            ),
            ("graphs", {"classifier": None}),
            ("parity", {"scorer_tolerance": _entry(raw, "parity", "tolerance")}),
        )
        if isinstance(raw.get(name), dict)  # what is not an object is left to the decoder, which names it
    }


def _from_2(raw: Raw) -> dict[str, Any]:
    """Add what schema 2 implied: scorers in the precision of the other graphs alone."""
    return _with(raw, "bundle.json", variants={})


def _from_3(raw: Raw) -> dict[str, Any]:
    """Add what schema 3 implied: one cut, and no derivative of the head."""
    why = "it was exported before gradients were part of a bundle; export the model again"
    probe = raw.get("probe")
    added = {"probe": _with(probe, "bundle.json.probe", gradient=None)} if isinstance(probe, dict) else {}
    return _with(raw, "bundle.json", layers=[], gradient=None, no_gradient=why) | added


def _from_4(raw: Raw) -> dict[str, Any]:
    """Add what schema 4 implied: 8-bit levels in three channels, one output per label, no inputs beside, no scores."""
    labels = raw.get("labels")
    shape = [len(labels)] if isinstance(labels, list) else []
    return _with(raw, "bundle.json", output_shape=shape, inputs={}, output_parts=[]) | {
        name: _with(raw[name], f"bundle.json.{name}", **added)
        for name, added in (
            ("model", {"embeddings_sha256": None, "logit_scale": None, "logit_bias": None}),
            ("preprocessing", {"value_range": None, "display": None}),
            ("graphs", {"score_terms": [], "static_batch": None}),
        )
        if isinstance(raw.get(name), dict)
    }


def _entry(raw: Raw, name: str, entry: str) -> object:
    record = raw.get(name)
    return record.get(entry) if isinstance(record, dict) else None


def _with(record: Raw, where: str, **added: object) -> dict[str, Any]:
    if unknown := [name for name in added if name in record]:
        raise SchemaError(f"{where} has unknown entries {', '.join(unknown)}")
    return {**record, **added}


# From the schema of that number to the next one.
MIGRATIONS: Final[Mapping[int, Callable[[Raw], dict[str, Any]]]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
}
