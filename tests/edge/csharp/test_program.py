"""What the example in C# is built with, as far as it can be seen without .NET."""

import pytest

from tests.edge.csharp.program import older


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("names.Select(static name => name.Length)", "names.Select(name => name.Length)"),
        ("if (node.Value is not TensorBase)", "if (!(node.Value is TensorBase))"),
        ("List<string> names = new(capacity);", "var names = new List<string>(capacity);"),
    ],
)
def test_c_sharp_9_becomes_c_sharp_8(written: str, read: str) -> None:
    assert older(written) == read


@pytest.mark.parametrize(
    "source", ["static int Count(int of) => of;", "List<int> sizes = new List<int>(2);", "// is not null", "x is null"]
)
def test_c_sharp_8_stays(source: str) -> None:
    assert older(source) == source
