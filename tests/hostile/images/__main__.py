"""Writes all bombs into a folder: `python -m tests.hostile.images FOLDER`."""

import sys
from pathlib import Path

from tests.hostile.images import BOMBS, write


def main(folder: str) -> None:
    """Write all bombs, and say how many bytes each has before the zeros at its end."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for bomb in BOMBS:
        path = write(bomb, place)
        sys.stdout.write(f"{path.name} {path.stat().st_size - bomb.tail}\n")


if __name__ == "__main__":
    main(sys.argv[1])
