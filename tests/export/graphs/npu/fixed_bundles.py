"""A bundle of tests/data with its shapes fixed as the export fixes them, without PyTorch."""

import dataclasses
import shutil
from pathlib import Path

from ortcam.bundle import MANIFEST_NAME, Bundle, FileRecord, file_sha256, read_bundle
from ortcam_export.graphs.batch_axis.fixing import fix_graphs


def fixed_bundle(source: Path, folder: Path, batch: int) -> Bundle:
    """Copy a bundle to a folder, and fix its shapes."""
    shutil.copytree(source, folder)
    manifest = read_bundle(folder).manifest
    graphs = dataclasses.replace(manifest.graphs, static_batch=batch)
    fix_graphs(folder, graphs, manifest.gradient, manifest.variants, batch=batch)
    files = {name: FileRecord((folder / name).stat().st_size, file_sha256(folder / name)) for name in manifest.files}
    changed = dataclasses.replace(manifest, graphs=graphs, files=files)
    (folder / MANIFEST_NAME).write_text(changed.to_json(), "utf-8")
    return read_bundle(folder)
