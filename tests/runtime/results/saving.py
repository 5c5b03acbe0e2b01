"""What tests of saved explanations write, and what they read of it."""

import json
from pathlib import Path

from ortcam.results import saved


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def summary(*targets: int, image: str = "i", **more: object) -> dict:
    """What `Explanation.summary` says, as far as saving looks at it."""
    return {
        "method": "scorecam",
        "options": {"gate": "tanh"},
        "limits": {"budget": None},
        "stats": {"precision": "float32", "seconds": 1.0},
        "image": {"sha256": image},
        "bundle": {"sha256": "b"},
        "rendering": {"colormap": "jet", "alpha": 0.5},
        "targets": [{"index": target} for target in targets],
        **more,
    }


def contents(*targets: int, content: bytes = b"x") -> dict[str, bytes]:
    return {f"class-{t}{end}": content for t in targets for end in (".npy", "-heatmap.png", "-overlay.png")}


def write(folder: Path, *targets: int, force: bool = False, content: bytes = b"x", **more: object) -> None:
    saved.save(folder, summary(*targets, **more), contents(*targets, content=content), force=force)


def state(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """The manifest and the content of everything that it lists; AssertionError where something is not there."""
    manifest = manifest_of(folder)
    listed = {
        f"class-{t['index']}{end}" for t in manifest["targets"] for end in (".npy", "-heatmap.png", "-overlay.png")
    }
    assert set(manifest["files"]) - {"image.jpg"} == listed
    return manifest, {name: (folder / name).read_bytes() for name in listed}
