"""`make edge-csharp`: build runtime/csharp and compare its maps with the runtime's."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.edge.cpp import compare
from tests.edge.csharp.program import build, explain, missing, toolchain


def main() -> int:
    """Build the program and compare its maps."""
    argparse.ArgumentParser(prog="python -m tests.edge.csharp", description=__doc__).parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    tools = toolchain()
    with tempfile.TemporaryDirectory() as name:
        program = build(tools, Path(name))
        return 0 if compare("C#", lambda *arguments: explain(tools, program, arguments)) else 1


if __name__ == "__main__":
    sys.exit(main())
