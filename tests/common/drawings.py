"""Images on disk that the shipped model knows: scenes of models/shapes, each a function of its number."""

from pathlib import Path

import cv2

from shapes.scenes import draw_scene

__all__ = ["draw_image", "draw_images"]

# Training takes its seeds from the other end, and the figures of the model card begin at 50,000,000.
_FIRST_SEED = 60_000_000
_SIZES = ((96, 96), (80, 112), (112, 80), (64, 96))  # rows and columns, small so that thousands are drawn in seconds


def draw_image(number: int) -> bytes:
    """One drawn image as a file: JPEG, and every fourth a PNG.

    Args:
        number: of the image; the same number is the same image.
    """
    scene = draw_scene(_FIRST_SEED + number, size=_SIZES[number % len(_SIZES)])
    _, encoded = cv2.imencode(_ending(number), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def draw_images(folder: Path, count: int, *, first: int = 0, per_folder: int = 500) -> list[str]:
    """Draw images into folders below a folder.

    Args:
        folder: is made where it is absent.
        count: how many.
        first: number of the first.
        per_folder: how many lie in one folder, `000`, `001` and so on.

    Returns:
        Their paths below the folder, with `/`, sorted.
    """
    names = []
    for number in range(first, first + count):
        name = f"{number // per_folder:03}/{number:06}{_ending(number)}"
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(draw_image(number))
        names.append(name)
    return sorted(names)


def _ending(number: int) -> str:
    return ".png" if number % 4 == 3 else ".jpg"
