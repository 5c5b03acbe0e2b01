"""Tar shards: every image in them, as WebDataset and tar write them; damaged ones lose nothing in silence."""

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ortcam.batch.items import MemberPlace, NoPlace
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.sources.opening import open_source
from ortcam.batch.sources.shards import members
from ortcam.errors import DatasetError, ImageError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
CONTENTS = [
    ("000.jpg", b"first"),
    ("000.cls", b"3"),
    ("000.seg.png", b"x" * 512),
    ("000.json", b"{}"),
    ("a/\u732b.PNG", b""),
    ("./b.webp", b"y" * 513),
    ("._b.jpg", b"a fork of macOS"),
    (".hidden/c.jpg", b"hidden"),
]
IMAGES = {"000.jpg": b"first", "000.seg.png": b"x" * 512, "a/\u732b.PNG": b"", "b.webp": b"y" * 513}


def tar(contents: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, **pax: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, **pax) as archive:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def images(source: Any) -> dict[str, bytes]:
    fetcher = Fetcher()
    return {item.id: fetcher.fetch(item.place) for item in source.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_every_image_is_found_and_nothing_else(form: str, tmp_path: Path) -> None:
    long = f"{'long' * 40}/{'name' * 20}.jpg" if form != "ustar" else "long.jpg"
    (tmp_path / "s.tar").write_bytes(tar([*CONTENTS, (long, b"long")], FORMATS[form]))
    source = open_source(tmp_path / "s.tar")
    expected = {**IMAGES, long: b"long"}
    assert images(source) == {f"s.tar/{name}": content for name, content in expected.items()}
    assert source.counted() == len(expected)


def test_shards_in_folders_globs_and_braces_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in (0, 1, 3):
        (tmp_path / "x" / f"{number:03}.tar").write_bytes(tar([("a.jpg", b"%d" % number)]))
    assert [item.id for item in open_source(tmp_path).items()] == [f"x/{n:03}.tar/a.jpg" for n in (0, 1, 3)]
    assert [item.id for item in open_source(f"{tmp_path}/*/*.tar").items()] == [
        f"x/{n:03}.tar/a.jpg" for n in (0, 1, 3)
    ]
    *found, gap, last = open_source(
        f"{tmp_path}/x/{{000..003}}.tar"
    ).items()  # one of those that are named is not there
    assert [item.id for item in found] == ["000.tar/a.jpg", "001.tar/a.jpg"]
    assert (gap.id, last.id) == ("002.tar", "003.tar/a.jpg")
    assert isinstance(gap.place, NoPlace)
    assert "does not exist" in gap.place.error


def test_a_name_that_comes_twice_is_two_images(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar([("a.jpg", b"1"), ("a.jpg#2", b""), ("a.jpg", b"2"), ("a.jpg", b"3")]))
    found = images(open_source(tmp_path / "s.tar"))
    assert found == {"s.tar/a.jpg": b"1", "s.tar/a.jpg#2": b"2", "s.tar/a.jpg#3": b"3"}


def test_links_and_folders_in_a_shard_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("real.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"real"))
    assert images(open_source(tmp_path / "s.tar")) == {"s.tar/real.jpg": b"real"}


@pytest.mark.long  # webdataset imports PyTorch
def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=3, verbose=0) as writer:
        for number in (0, 1, 2, 5, 9, 10, 11):  # with gaps
            content = b"image %d" % number
            writer.write({"__key__": f"k/{number:04}", "jpg": content, "cls": number, "left.png": content + b" left"})
    found = images(open_source(f"{tmp_path}/s-{{000000..000002}}.tar"))
    assert len(found) == 14
    assert found["s-000001.tar/k/0005.jpg"] == b"image 5"
    assert found["s-000002.tar/k/0011.left.png"] == b"image 11 left"


def test_a_shard_that_ends_too_early_gives_what_it_has_and_a_failure(tmp_path: Path) -> None:
    whole = tar([("a.jpg", b"a" * 600), ("b.jpg", b"b" * 600)])
    (tmp_path / "s.tar").write_bytes(whole[: 512 + 1024 + 512 + 100])
    (tmp_path / "t.tar").write_bytes(whole)
    first, failed, *others = open_source(tmp_path).items()
    assert (first.id, failed.id, len(others)) == ("s.tar/a.jpg", "s.tar", 2)
    assert isinstance(failed.place, NoPlace)
    assert "ends too early, within 'b.jpg'" in failed.place.error
    with pytest.raises(ImageError, match="ends too early"):
        Fetcher().fetch(failed.place)


def test_a_shard_cut_or_changed_at_any_byte_loses_nothing_in_silence() -> None:
    whole = tar([("a.jpg", b"a" * 700), ("b.jpg", b"b" * 700), ("c.jpg", b"")], tarfile.GNU_FORMAT)
    end_of_headers = whole.rindex(b"c.jpg") + 512
    for end in range(1, end_of_headers - 512, 97):
        found, error = walked(whole[:end])
        # Cut between two members an archive is whole, as nothing says how many it has.
        assert error or end % 512 == 0, end
        assert len(found) == (end >= 512 + 700) + (end >= 512 + 1024 + 512 + 700), end
    for at in [*range(0, 345, 7), *range(1536, 1536 + 345, 7)]:
        changed = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        found, error = walked(changed)
        assert error, at  # the checksum of the header tells
        assert len(found) == (at > 512)


def walked(content: bytes) -> tuple[list[str], str]:
    found = []
    try:
        for name, _, _ in members(io.BytesIO(content), "s.tar"):
            found.append(name)
    except DatasetError as error:
        return found, str(error)
    return found, ""


def hostile_header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE = {
    "a name of gigabytes": (hostile_header(tarfile.GNUTYPE_LONGNAME, 1 << 33), "ends too early"),
    "a long name": (hostile_header(tarfile.GNUTYPE_LONGNAME, 2 << 20) + bytes(2 << 20), "are no header"),
    "a size below zero": (hostile_header(tarfile.REGTYPE, -512), "ends too early"),
    "a size beyond any disk": (hostile_header(tarfile.REGTYPE, 1 << 62), "ends too early"),
    "compressed": (gzip.compress(tar(CONTENTS)), "is compressed"),
    "no archive": (b"\x89PNG" + bytes(600), "is no tar archive"),
    "short": (b"x", "is no tar archive"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_shard_is_refused_at_once(what: str, tmp_path: Path) -> None:
    content, why = HOSTILE[what]
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(DatasetError, match=why) as caught:
        open_source(tmp_path / "s.tar")
    assert "s.tar" in str(caught.value)


def test_sparse_members_and_headers_that_lie_are_no_images() -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("sparse.jpg", pax), ("size.jpg", {"size": "9" * 30}), ("good.jpg", {})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 4, dict(headers)
            archive.addfile(info, io.BytesIO(b"data"))
    found, _ = walked(file.getvalue())
    assert "sparse.jpg" not in found
    assert found[-1:] == ["good.jpg"]


def test_an_archive_that_shrank_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar([("a.jpg", b"a" * 600)]))
    (item,) = open_source(tmp_path / "s.tar").items()
    assert isinstance(item.place, MemberPlace)
    (tmp_path / "s.tar").write_bytes((tmp_path / "s.tar").read_bytes()[: item.place.offset + 10])
    with pytest.raises(ImageError, match="the archive ends 590 bytes too early"):
        Fetcher().fetch(item.place)
