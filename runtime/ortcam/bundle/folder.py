"""`Bundle`: a folder whose files have been checked, and the graphs in it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ortcam.bundle.contents import Content, held, read_file
from ortcam.bundle.manifest import MANIFEST_NAME, Manifest, graph_files, precision_by_name
from ortcam.errors import BundleError
from ortcam.support.terminal import printable

__all__ = ["Bundle", "Graph"]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A verified graph of a bundle with its weights. Nothing of it is read from a disk again.

    Attributes:
        name: of its file, for messages.
        model: the bytes of its file.
        files: name -> bytes of the files that hold its weights.
    """

    name: str
    model: Content
    files: dict[str, Content]


@dataclasses.dataclass(frozen=True, repr=False)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        path: of the folder; absolute and without links, so that it stays the folder that was checked.
        manifest: the content of its bundle.json, migrated to the current schema.
        schema: that of bundle.json as it was written.
        sha256: SHA-256 of bundle.json, and through the hashes in it of the whole bundle.
        weights: name of a graph -> names of the files that hold its weights.
    """

    path: Path
    manifest: Manifest
    schema: int
    sha256: str
    weights: Mapping[str, tuple[str, ...]]

    def __repr__(self) -> str:
        return f"<Bundle {printable(self.path.name)} of {self.manifest.in_words}>"

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists. The file may have changed since it was checked."""
        return self.path / name

    def content(self, name: str) -> Content:
        """Content of a file that the manifest lists: from memory if it is held (`hold`), else read and verified again.

        Raises:
            BundleError: the file is missing, or it has changed since the bundle was read.
        """
        record = self.manifest.files[name]
        if (in_memory := held(record.sha256)) is not None:
            return in_memory
        try:
            return read_file(self.path, name, record)
        except BundleError as error:
            raise BundleError(f"the bundle has changed since it was loaded: {error}") from None

    def graph(self, name: str) -> Graph:
        """Read a graph with its weights, verified.

        Raises:
            BundleError: a file is missing, or it has changed since the bundle was read.
        """
        return Graph(name, self.content(name), {file: self.content(file) for file in self.weights[name]})

    def hold(self, precision: str | None = None) -> dict[str, Content]:
        """Hold what the graphs of a precision need. While the result exists, `graph` and `content` read no file again.

        Args:
            precision: "float32", "float16", "int8" or "qnn"; None takes that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no scorers in this precision, or a file is missing or has changed.
        """
        return {name: self.content(name) for name in self.files_of(self.check_precision(precision))}

    def files_of(self, precision: str) -> list[str]:
        """List the files that the graphs of a precision need: the graphs, then their weights.

        Args:
            precision: full name of one that the bundle has.
        """
        graphs = graph_files(self.manifest, precision)
        weights = [file for graph in graphs for file in self.weights[graph]]
        return [*dict.fromkeys([*graphs, *weights])]

    def copy_to(self, folder: Path) -> "Bundle":
        """Copy the verified files into an existing folder, and return the bundle there.

        Raises:
            BundleError: a file is missing, or it has changed since the bundle was read.
            OSError: the folder cannot be written to.
        """
        for name in self.manifest.files:
            (folder / name).write_bytes(self.content(name).data)
        (folder / MANIFEST_NAME).write_text(self.manifest.to_json(), "utf-8")
        return dataclasses.replace(self, path=folder.resolve())

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of the scorers; that of the bundle's own graphs comes first."""
        return (self.manifest.precision, *self.manifest.variants)

    def check_precision(self, name: str | None) -> str:
        """Return the full name of a precision; for None, that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no scorers in it.
        """
        precision = self.manifest.precision if name is None else precision_by_name(name)
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path}: no scorers in {precision} in this bundle; it has {', '.join(self.precisions)} "
                "(`ortcam export --precision` makes others)"
            )
        return precision

    def scorer(self, kind: str, precision: str | None = None) -> Path:
        """Path of the scorer for a kind of mask.

        Args:
            kind: of mask.
            precision: "float32", "float16", "int8" or "qnn"; None takes that of the bundle's own graphs.

        Raises:
            OptionError: no precision of this name.
            BundleError: the bundle has no such scorer.
        """
        precision = self.check_precision(precision)
        manifest = self.manifest
        own = precision == manifest.precision
        scorers = manifest.graphs.scorers if own else manifest.variants[precision].scorers
        if kind not in scorers:
            raise BundleError(f"{self.path}: no scorer for {kind!r} in this bundle; it has {', '.join(scorers)}")
        return self.file(scorers[kind])
