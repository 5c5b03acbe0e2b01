"""The bundles that are measured: exported once into a folder, and used again from there."""

from pathlib import Path

from benchmarks.common.arguments import say
from benchmarks.common.subjects import SUBJECTS, bundle_path

from ortcam.bundle import shipped

__all__ = ["bundle_of"]


def bundle_of(model: str, folder: Path) -> Path:
    """The bundle of a model, exported where the folder has none.

    Args:
        model: "shapes", which is shipped, or the name of a subject.
        folder: that has bundles or takes them.
    """
    if model == "shapes":
        return shipped.bundle_path()
    subject = SUBJECTS[model]
    # A bundle with random weights is never taken for one with the real ones.
    place = folder / ("random" if subject.random else "weights")
    bundle = bundle_path(place, model)
    if not bundle.is_dir():
        say(f"{model}: exporting")
        place.mkdir(parents=True, exist_ok=True)
        subject.export(place)
    return bundle
