"""The zoo: real `.onnx` classifiers of every kind that people have, small, with random but seeded weights.

`ZOO` maps a name to a builder that writes the file into a folder and says how to call it. One module has the files of
one kind.
"""

from tests.export.zoo import (
    contents,
    endings,
    external_data,
    floats,
    integers,
    layouts,
    names,
    operators,
    preprocessing,
    tensorflow,
    torch_exporters,
)
from tests.export.zoo.plain import Builder

__all__ = ["ZOO"]

_KINDS = (
    torch_exporters,
    names,
    layouts,
    tensorflow,
    endings,
    floats,
    integers,
    external_data,
    preprocessing,
    operators,
    contents,
)
ZOO: dict[str, Builder] = {name: builder for kind in _KINDS for name, builder in kind.FILES.items()}
