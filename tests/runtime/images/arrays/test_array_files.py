"""Headers of .npy and archives of .npz: what NumPy and others write is read, and no lie costs memory."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ortcam.errors import ImageError
from ortcam.images.arrays.bands import bands_axis
from ortcam.images.arrays.files import is_array_file, read_array_file

PICTURE = np.arange(6 * 8 * 2, dtype=np.uint16).reshape(6, 8, 2)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(*, packed=True, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def with_header(text, body=None, version=1):
    body = PICTURE.tobytes() if body is None else body
    header = text.encode() + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


def header_of(descr="'<u2'", order="False", shape="(6, 8, 2)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def read(data, max_pixels=10**6):
    return read_array_file(data, "x", max_pixels, lambda shape, name: bands_axis(shape, (1, 2), name)[:2])[0]


@pytest.mark.parametrize(
    "data",
    [
        npy(PICTURE),
        npy(np.asfortranarray(PICTURE)),
        npz(a=PICTURE),
        npz(packed=False, a=PICTURE),
        npz(label=np.int64(3), image=PICTURE),
        npz(packed=False, arr_1=PICTURE[:2], arr_0=PICTURE),
        with_header(header_of(), version=2),
        with_header(header_of(), version=3),
        with_header("{'shape': (6, 8, 2), 'fortran_order': False, 'descr': '<u2'}"),
        with_header('{"descr": "<u2", "fortran_order": False, "shape": (6,8,2,)}'),
        with_header(header_of("'>u2'"), PICTURE.astype(">u2").tobytes()),
        with_header(header_of(order="True"), PICTURE.tobytes(order="F")),
    ],
)
def test_an_array_is_read_as_it_was_saved(data):
    assert is_array_file(data)
    assert np.array_equal(read(data), PICTURE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (header_of("'|O'"), "Python objects, which are never loaded"),
        (header_of("'<U9'"), "texts"),
        (header_of("'|S9'"), "bytes"),
        (header_of("'|V2'"), "bfloat16"),
        (header_of("'<M8[s]'"), "unknown type"),
        (header_of("'<c8'"), "complex numbers"),
        (header_of("'<f16'"), "numbers of type '<f16'"),
        (header_of("'<u3'"), "numbers of type '<u3'"),
        (header_of("[('a', '<f4')]"), "records of several fields"),
        (header_of("''"), "unknown type"),
        (header_of(order="0"), "none that NumPy writes"),
        (header_of(shape="(-6, 8, 2)"), "none that NumPy writes"),
        (header_of(shape="(6.0, 8, 2)"), "none that NumPy writes"),
        (header_of(shape="None"), "none that NumPy writes"),
        (header_of(shape="()"), "the shape of no image"),
        (header_of(shape="(0, 8, 2)"), "the shape of no image"),
        (header_of(shape=f"({'1,' * 99})"), "the shape of no image"),
        (header_of(shape="(1000000, 1000000, 2)"), "pixels, more than the limit"),
        (header_of(shape=f"({'9' * 40}, 8, 2)"), "the shape of no image"),
        (header_of() + header_of(), "none that NumPy writes"),
        ("{'descr': '<u2', 'descr': '<u2', 'shape': (6, 8, 2)}", "none that NumPy writes"),
        ("{'descr': '<u2', 'shape': (6, 8, 2)}", "none that NumPy writes"),
        ("(" * 5000, "none that NumPy writes"),
        ("__import__('os').abort()", "none that NumPy writes"),
        (header_of() + " " * 20_000, "header of 20"),
    ],
)
def test_no_other_header_is_believed_or_evaluated(text, said):
    with pytest.raises(ImageError, match=said) as refused:
        read(with_header(text))
    assert "\n" not in str(refused.value)


def test_an_array_with_fewer_or_more_bytes_than_its_shape_is_refused():
    whole = npy(PICTURE)
    for keep in range(8, len(whole), 7):
        with pytest.raises(ImageError, match=r"truncated|cannot be read"):
            read(whole[:keep])
    with pytest.raises(ImageError, match="3 bytes follow"):
        read(whole + b"abc")


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_archive_is_refused_wherever_it_is_damaged(packed):
    whole = npz(packed=packed, image=PICTURE)
    for keep in range(30, len(whole), 11):
        with pytest.raises(ImageError):
            read(whole[:keep])
    random = np.random.default_rng(0)
    for at in random.choice(len(whole), 100, replace=False):
        changed = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
        try:
            found = read(changed)
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:  # a byte that means nothing here, such as one of the time
            assert np.array_equal(found, PICTURE)


def test_of_several_arrays_one_has_to_be_named_image():
    with pytest.raises(ImageError, match=r"2 arrays \('a', 'b'\): accepted is a .npz file with one, or with one named"):
        read(npz(a=PICTURE, b=PICTURE))
    whole = npz(a=PICTURE)
    at = whole.rindex(b"PK\1\2") + 8  # the flags
    with pytest.raises(ImageError, match="encrypted"):
        read(whole[:at] + b"\1" + whole[at + 1 :])


def test_an_archive_of_other_files_is_no_array():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "x")
    assert not is_array_file(file.getvalue())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("image.npy", npy(PICTURE))
    with pytest.raises(ImageError, match="compressed by method 12"):
        read(file.getvalue())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(150):
            archive.writestr(f"{number}.npy", "")
    with pytest.raises(ImageError, match="archive of 150 files"):
        read(file.getvalue())


@pytest.mark.slow
def test_a_bomb_in_an_archive_is_refused_before_it_is_inflated():
    bomb = npz(a=np.zeros((2000, 2000, 2), np.float64))  # 64 MB from 64 KB
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="4000000 pixels, more than the limit of 1000"):
            read(bomb, max_pixels=1000)
        short = npy(PICTURE)[:-1] + b"\0" * (1 << 26)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("image.npy", short)
        del short
        data = file.getvalue()
        file.close()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(ImageError, match="bytes of numbers it has"):
            read(data)
        at = data.rindex(b"PK\1\2") + 24  # the size in the directory, made right: the rest of the stream is not read
        lying = data[:at] + struct.pack("<I", len(npy(PICTURE))) + data[at + 4 :]
        with pytest.raises(ImageError, match="checksum"):
            read(lying)
        assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    finally:
        tracemalloc.stop()
