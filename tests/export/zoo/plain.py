"""The plainest classifier of the zoo, and how a builder is entered under its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.export.zoo.graphs import GraphBuilder, ZooFile, classes_info, image_info

Builder = Callable[[Path], ZooFile]

# Stands for what a file may know of the machine that made it.
PRIVATE_PATH: Final = "/home/somebody/secret-project"


def enter(files: dict[str, Builder]) -> Callable[[Builder], Builder]:
    """A decorator that enters builders under their own names."""

    def decorate(builder: Builder) -> Builder:
        files[builder.__name__] = builder
        return builder

    return decorate


def plain(
    folder: Path,
    *,
    opset: int = 17,
    image: str = "image",
    logits: str = "logits",
    batch: int | str = "N",
    name: str = "net.onnx",
    **saving: Any,
) -> Path:
    """The plainest classifier: three convolutions, pooling, one linear layer."""
    g = GraphBuilder(opset=opset)
    g.head(g.features(image), out=logits)
    return g.save(folder / name, [image_info(image, batch=batch)], [classes_info(logits, batch=batch)], **saving)
