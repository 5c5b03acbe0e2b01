"""Images that a program holds: every kind gives the pixels, and so the map, of the file that it came from."""

import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tests.common.images import encoded, exif, photograph

import ortcam
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.images.photograph import read_photograph
from ortcam.images.reading import read_image


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), threads=1)


@pytest.fixture(scope="module")
def sample() -> Path:
    return next(path for path in sample_images() if path.suffix in {".jpg", ".png"})


class OfAnotherLibrary:
    """An array as JAX and TensorFlow give one to numpy."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._array


class OnlyDlpack:
    """An array of a library that numpy knows by DLPack alone."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def as_float(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / 255


def channels_first(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


ARRAYS: dict[str, Callable[[NDArray[np.uint8]], Any]] = {
    "uint8 [H,W,3]": lambda pixels: pixels,
    "uint8 [3,H,W]": channels_first,
    "uint8 [4,H,W]": lambda pixels: channels_first(np.dstack([pixels, pixels[..., 0]])),
    "float32 [H,W,3]": as_float,
    "float32 [3,H,W]": lambda pixels: channels_first(as_float(pixels)),
    "float64 [H,W,4]": lambda pixels: np.dstack([pixels / 255, pixels[..., 0] / 255]),
    "float16 [H,W,3]": lambda pixels: as_float(pixels).astype(np.float16),
    "big-endian float32": lambda pixels: as_float(pixels).astype(">f4"),
    "floats within half a level of the range": lambda pixels: as_float(pixels) * np.float32(1.0018) - np.float32(9e-4),
    "__array__": lambda pixels: OfAnotherLibrary(as_float(pixels)),
    "__dlpack__": lambda pixels: OnlyDlpack(pixels.copy()),
}


@pytest.mark.sample(every=5)
@pytest.mark.whole
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_any_kind_gives_the_map_of_its_file(name: str, explainer: ortcam.Explainer, sample: Path) -> None:
    image = ARRAYS[name](read_image(sample))
    of_file = explainer.explain(sample, method="recipro-cam")
    explanation = explainer.explain(image, method="recipro-cam")
    np.testing.assert_array_equal(explanation.image, of_file.image)
    np.testing.assert_array_equal(explanation.maps, of_file.maps)
    assert (
        explanation.provenance["image"]["pixels_sha256"]
        == explainer.explain(of_file.image, method="recipro-cam").provenance["image"]["pixels_sha256"]
    )


def test_bfloat16_gives_the_levels_that_it_holds() -> None:
    pixels = np.array([0, 64, 128, 255], np.uint8).reshape(2, 2)
    exact = np.float32([0, 0.25, 0.5, 1]).reshape(2, 2)
    np.testing.assert_array_equal(read_image(OfAnotherLibrary(exact.astype(ml_dtypes.bfloat16)))[..., 0], pixels)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (1, 20, 30)])
def test_grey_of_any_shape_becomes_rgb(shape: tuple[int, ...]) -> None:
    grey = photograph(20, 30)[..., 1]
    expected = np.dstack([grey] * 3)
    np.testing.assert_array_equal(read_image(grey.reshape(shape)), expected)
    np.testing.assert_array_equal(read_image(as_float(grey).reshape(shape)), expected)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((5, 5, 3), 255.0), r"float64 \[5, 5, 3\] has values from 255 to 255, .*: divide it by 255"),
        (np.linspace(-2, 2, 75).reshape(5, 5, 3), "from -2 to 2.*undo its normalisation, or give it as preprocessed="),
        (np.full((5, 5), np.nan), "infinite or not a number"),
        (np.full((5, 5), 1e39), "divide it by 255|undo its normalisation"),
        (np.full((5, 5), 1.01), "from 1.01 to 1.01"),
        (np.zeros((5, 5), complex), "complex128.* accepted: uint8, or floats from 0 to 1"),
        (np.zeros((5, 5), np.uint16), "or say what is white: white=4095"),
        (np.zeros((8, 3, 9, 9), np.float32), r"is a batch, .* give list\(array\)"),
        (np.broadcast_to(np.uint8(0), (3, 10**6, 10**6)), "more than the limit"),
        (np.zeros((3, 9, 4)), "channels first or last"),
    ],
)
def test_what_is_ambiguous_or_out_of_range_is_refused_in_one_sentence(array: Any, said: str) -> None:
    with pytest.raises(ortcam.ImageError, match=said) as raised:
        read_image(array)
    assert "\n" not in str(raised.value)


def test_white_is_of_arrays_of_sixteen_bits_as_it_is_of_files() -> None:
    samples = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG")
    for image in (samples, samples.astype(">u2"), samples[None], Image.fromarray(samples)):
        np.testing.assert_array_equal(read_image(image, white=4095), read_image(file.getvalue(), white=4095))


PILLOW_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("mode", PILLOW_MODES)
def test_a_pillow_image_of_any_mode_gives_the_pixels_of_its_file(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64))
    else:
        image = Image.fromarray(photograph()).convert(mode)
    data = encoded(image, "PNG")
    assert opened(data).mode == mode
    np.testing.assert_array_equal(read_image(opened(data)), read_image(data))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_pillow_image_of_cmyk_gives_the_pixels_of_its_file(kind: str) -> None:
    data = encoded(Image.fromarray(photograph()).convert("CMYK"), kind)
    assert opened(data).mode == "CMYK"
    np.testing.assert_array_equal(read_image(opened(data)), read_image(data))


@pytest.mark.sample(every=3)
@pytest.mark.whole
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8])
def test_a_pillow_image_is_turned_upright_once(kind: str, orientation: int) -> None:
    data = encoded(photograph(), kind, exif=exif(orientation), **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(read_image(opened(data)), read_image(data))
    np.testing.assert_array_equal(read_image(ImageOps.exif_transpose(opened(data))), read_image(data))


def test_a_dark_pillow_image_of_sixteen_bits_warns_as_its_file() -> None:
    samples = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for image in (Image.fromarray(samples), Image.fromarray(samples.astype(np.int32))):
        with pytest.warns(ortcam.ImageWarning, match="white=4095"):
            np.testing.assert_array_equal(read_image(image)[..., 0], samples >> 8)
    with pytest.raises(ortcam.ImageError, match="values from 0 to 70000: accepted are 0 to 65535"):
        read_image(Image.fromarray(np.int32([[0, 70000]])))


def test_a_pillow_image_meets_the_same_limits(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    data = encoded(photograph(), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ortcam.ImageError, match=r"mode 'RGB' from '.*cut.jpg' cannot be decoded by Pillow"):
        read_image(Image.open(path))
    with pytest.raises(ortcam.ImageError, match="more than the limit of 99"):
        read_image(Image.new("L", (10, 10)), max_pixels=99)


def test_a_file_object_gives_what_its_file_gives(tmp_path: Path) -> None:
    data = encoded(photograph(), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as unbuffered:
        for stream in (file, unbuffered, io.BytesIO(data)):
            np.testing.assert_array_equal(read_image(stream), photograph())
        with pytest.raises(ortcam.ImageError, match=r"photo.png' is at its end: call seek\(0\)"):
            read_image(file)
        file.seek(0)
        assert read_image(file).shape == photograph().shape


def test_a_file_object_that_gives_no_bytes_says_so(tmp_path: Path) -> None:
    async def upload(_: int) -> bytes:  # as a web framework's upload
        return b""

    path = tmp_path / "photo.txt"
    path.write_text("text")
    closed = io.BytesIO(b"x")
    closed.close()
    with path.open() as text, warnings.catch_warnings():
        warnings.simplefilter("error")  # of a coroutine that nobody waits for
        for stream, said in [
            (text, "photo.txt' gives str instead of bytes: open it in binary mode, 'rb'"),
            (SimpleNamespace(read=upload), "gives coroutine instead of bytes"),
            (closed, "cannot be read"),
            (io.BytesIO(), "is empty"),
        ]:
            with pytest.raises(ortcam.ImageError, match=said):
                read_image(stream)


def test_a_file_object_is_read_no_further_than_a_file_may_be_long() -> None:
    class Endless:
        given = 0

        def read(self, size: int) -> bytes:
            self.given += size
            return bytes(size)

    endless = Endless()
    with pytest.raises(ortcam.ImageError, match="30000006 are the most that go with max_pixels=1"):
        read_image(endless, max_pixels=1)
    assert endless.given < 40_000_000


def test_a_buffer_that_changes_afterwards_changes_nothing(explainer: ortcam.Explainer) -> None:
    buffer = np.zeros((64, 64, 3), np.uint8)
    photographs = [explainer.read(buffer), explainer.read(OnlyDlpack(buffer)), explainer.read(buffer[:, ::2])]
    buffer[:] = 255
    for read in photographs:
        assert read.pixels.max() == 0


@pytest.mark.slow
def test_neither_torch_nor_pillow_is_imported_to_read_an_array() -> None:
    code = (
        "import sys, numpy as np; from ortcam.images import read_image; read_image(np.zeros((9, 9)));"
        "sys.exit(int(bool({'torch', 'PIL', 'jax', 'tensorflow'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Lists, folders, and inputs that are preprocessed already


def test_a_list_of_images_gives_a_list_back(explainer: ortcam.Explainer, sample: Path) -> None:
    array = read_image(sample)
    explanations = explainer.explain([sample, array], method="recipro-cam", top_k=2)
    assert [e.maps.shape[0] for e in explanations] == [2, 2]
    np.testing.assert_array_equal(explanations[0].maps, explanations[1].maps)
    for several, one in [
        (explainer.predict((sample, array)), explainer.predict(sample)),
        (explainer.preprocess([sample, array]), explainer.preprocess(sample)),
        (explainer.predict(list(np.stack([array, array]))), explainer.predict(sample)),
    ]:
        assert isinstance(several, list)
        assert len(several) == 2
        for each in several:
            np.testing.assert_array_equal(each, one)
    assert explainer.explain([]) == explainer.predict([]) == []


def test_a_folder_a_glob_and_a_batch_are_many_images(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    for name in ("b10.png", "b9.png", "notes.txt"):
        (tmp_path / name).write_bytes(encoded(photograph(), "PNG"))
    for images in (tmp_path, str(tmp_path), str(tmp_path / "*.png")):
        found = explainer.explain_many(images, method="recipro-cam")
        assert [Path(e.provenance["image"]["path"]).name for e in found] == ["b9.png", "b10.png"]
    batch = np.stack([photograph()] * 3)
    assert len(list(explainer.explain_many(batch, method="recipro-cam"))) == 3
    with pytest.raises(ortcam.ImageError, match=r"is a folder.*explain_many"):
        explainer.explain(tmp_path)


@pytest.mark.parametrize("image", [photograph(), b"\x89PNG", io.BytesIO(b"x"), Image.new("L", (9, 9))])
def test_one_image_is_not_taken_for_many(explainer: ortcam.Explainer, image: Any) -> None:
    with pytest.raises(ortcam.ImageError, match="is one image, and this takes several"):
        explainer.explain_many(image)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda values: values, id="numpy"),
        pytest.param(lambda values: values[0], id="[3,H,W]"),
        pytest.param(lambda values: values.astype(np.float64), id="float64"),
    ],
)
def test_a_preprocessed_input_gives_the_map_of_its_image(
    make: Callable[[NDArray[np.float32]], Any], explainer: ortcam.Explainer, sample: Path
) -> None:
    photo = explainer.read(sample)
    given = make(photo.model_input)
    of_file = explainer.explain(photo, method="recipro-cam")
    explanation = explainer.explain(preprocessed=given, method="recipro-cam")
    np.testing.assert_array_equal(explanation.maps, of_file.maps)
    np.testing.assert_array_equal(explainer.predict(preprocessed=given), explainer.predict(photo))
    *_, last = explainer.explain_iter(preprocessed=given, budget=8)
    assert last.maps.shape == of_file.maps.shape


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_pixels_shown_of_a_preprocessed_input_are_those_of_the_crop(order: Any) -> None:
    preprocessing = ortcam.Preprocessing(
        height=40, width=50, resize=60, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), channel_order=order, scale=2.0
    )
    model_input = preprocessing(photograph())
    shown = preprocessing.to_pixels(model_input)
    straight = ortcam.Preprocessing(
        height=40, width=50, resize=None, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), channel_order=order, scale=2.0
    )
    np.testing.assert_array_equal(straight(shown), model_input)


def test_a_preprocessed_explanation_is_saved_with_the_truth(
    explainer: ortcam.Explainer, sample: Path, tmp_path: Path
) -> None:
    given = explainer.preprocess(sample)
    explanation = explainer.explain(preprocessed=given, method="recipro-cam")
    explanation.save(tmp_path / "out")
    record = ortcam.results.saved.read_manifest(tmp_path / "out")
    assert record["image"]["preprocessed"] is True
    assert record["image"]["path"] is None
    assert record["preprocessing"]["resize"] is None  # nothing is cropped from what is shown
    size = [given.shape[2], given.shape[3]]
    assert record["photograph_size"] == list(explanation.image.shape[:2]) == size
    placed, covered = explanation.on_photograph()
    np.testing.assert_array_equal(placed, explanation.maps[0])
    assert covered.all()
    explanation.save(tmp_path / "out")  # the same again
    with pytest.raises(ortcam.OutputError, match="of another image"):
        explainer.explain(preprocessed=given * 0.5, method="recipro-cam").save(tmp_path / "out")


def test_what_is_no_input_of_the_model_is_refused(explainer: ortcam.Explainer, sample: Path) -> None:
    given = explainer.preprocess(sample)
    wrong = given.copy()
    wrong[0, 1, 2, 3] = np.inf
    for values, said in [
        (given[..., :-1], r"preprocessed=array of float32 \[1, 3, \d+, \d+\]: accepted: floats as \[1, 3, "),
        (np.concatenate([given, given]), r"one by one: preprocessed=batch\[0\]"),
        (given.transpose(0, 2, 3, 1), "accepted: floats as"),
        (given.astype(np.uint8), "pixels that are not preprocessed are given as the image"),
        (wrong, "infinite or not a number"),
        (given.astype(np.float64) * 1e39, "infinite or not a number"),
        (str(sample), "preprocessed=str: accepted"),
    ]:
        with pytest.raises(ortcam.ImageError, match=said):
            explainer.explain(preprocessed=values)
    with pytest.raises(ortcam.OptionError, match="give one of them"):
        explainer.explain(sample, preprocessed=given)
    with pytest.raises(ortcam.OptionError, match="give one of them"):
        explainer.explain([sample], preprocessed=given)
    with pytest.raises(ortcam.OptionError, match="no image: give an image, or preprocessed="):
        explainer.predict()


def test_an_input_is_not_given_to_a_model_with_another_preprocessing(explainer: ortcam.Explainer, sample: Path) -> None:
    read = explainer.read(preprocessed=explainer.preprocess(sample))
    assert explainer.read(read) is read
    other = ortcam.Preprocessing(height=32, width=48, resize=None, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    with pytest.raises(ortcam.ImageError, match="was preprocessed for another model: this one takes 32 x 48 pixels"):
        read_photograph(read, other, max_pixels=10**6)


def test_top_is_what_predict_says(explainer: ortcam.Explainer, sample: Path) -> None:
    probabilities = explainer.predict(sample)
    top = explainer.top(sample, top_k=3)
    assert [p.index for p in top] == list(np.argsort(-probabilities, kind="stable")[:3])
    assert [p.label for p in top] == [explainer.labels[p.index] for p in top]
    assert [p.probability for p in top] == [float(probabilities[p.index]) for p in top]
    assert len(explainer.top(sample, top_k=10**6)) == len(explainer.labels)
    with pytest.raises(ortcam.TargetError, match="top_k=0"):
        explainer.top(sample, top_k=0)
