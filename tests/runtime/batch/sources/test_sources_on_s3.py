"""Every kind of INPUT in a bucket of an S3 server, listed page by page, with keys by environment or by option."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.common.object_stores import ObjectStore, object_store

from ortcam.batch.items import FilePlace, Item, MemberPlace, place_of
from ortcam.batch.sources.fetching import Fetcher
from ortcam.batch.sources.opening import open_source
from ortcam.batch.storage import parsed_options
from ortcam.bundle.shipped import sample_images
from ortcam.errors import DatasetError, ImageError

pytestmark = pytest.mark.long

NAMES = [
    "a.png",
    "b c/\u00e4 \u732b.png",
    "b c/deep/er/#%+&.png",
    "d/1.png",
    "d/2.png",
    "d/e::f.png",
    "d/g?h.png",
    "z.png",
]
HIDDEN = [".x.png", ".y/x.png", "d/.png", "out/_batch.json", "out/_gallery/x.png", "notes.txt"]
IMAGE = sample_images()[0]
IN_A_PAGE = 3  # keys, so that these few make several pages


@pytest.fixture(scope="module")
def bucket() -> Iterator[ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(IN_A_PAGE))
        with object_store(dict.fromkeys((*NAMES, *HIDDEN), IMAGE)) as store:
            store.files.pipe_file("archive/photographs/d/empty/", b"")  # what consoles make of a folder
            yield store


@pytest.fixture(autouse=True)
def _keys_by_environment(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


def read(items: list[Item]) -> list[bytes]:
    fetcher = Fetcher()
    found = [fetcher.fetch(item.place) for item in items]
    assert [fetcher.fetch(place_of(item.path)) for item in items] == found
    return found


def test_a_prefix_gives_its_images_page_by_page(bucket: ObjectStore) -> None:
    for input_ in ("s3://archive/photographs", "s3://archive/photographs/"):
        items = list(open_source(input_).items())
        assert [item.id for item in items] == sorted(NAMES, key=str.encode)
        assert read(items) == [IMAGE.read_bytes()] * len(NAMES)
    assert [item.id for item in open_source("s3://archive").items()][:1] == ["photographs/a.png"]


@pytest.mark.parametrize("pattern", ["*", "**", "**/*.png", "d/*.png", "b c/**", "d/[12]*", "*/[0-9].png", "b*/*.png"])
def test_a_glob_gives_what_it_gives_of_a_folder(pattern: str, bucket: ObjectStore, tmp_path: Path) -> None:
    for name in (*NAMES, *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    here = sorted(item.id for item in open_source(f"{tmp_path}/{pattern}").items())
    assert sorted(item.id for item in open_source(f"s3://archive/photographs/{pattern}").items()) == here


def test_manifests_tables_and_shards_are_read_from_a_bucket(bucket: ObjectStore) -> None:
    content = IMAGE.read_bytes()
    files, table = bucket.files, io.BytesIO()
    files.pipe_file("archive/lists/near.csv", "path;id\n../photographs/a.png;x\n".encode("utf-16"))
    files.pipe_file("archive/lists/far.txt", b"s3://archive/photographs/a.png\ns3://archive/photographs/d/g?h.png\n")
    pq.write_table(pa.table({"image": [{"bytes": content, "path": None}] * 5}), table, row_group_size=2)
    files.pipe_file("archive/tables/t.parquet", table.getvalue())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    files.pipe_file("archive/shards/000.tar", archive.getvalue())
    files.pipe_file("archive/shards/001.tar", archive.getvalue()[:-20_000])
    assert read(list(open_source("s3://archive/lists/far.txt").items())) == [content] * 2
    assert read(list(open_source("s3://archive/tables").items())) == [content] * 5
    found = list(open_source("s3://archive/shards/*.tar").items())
    good = [item for item in found if isinstance(item.place, MemberPlace)]
    assert read(good) == [content] * 5
    assert [item.id for item in found if item not in good] == ["001.tar"]
    (near,) = open_source("s3://archive/lists/near.csv").items()
    assert (near.id, near.place) == ("x", FilePlace("s3://archive/photographs/a.png"))
    assert read([near]) == [content]


def test_keys_and_endpoint_may_be_options(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = bucket.environment()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    pairs = [
        f"key={environment['AWS_ACCESS_KEY_ID']}",
        f"secret={environment['AWS_SECRET_ACCESS_KEY']}",
        f"endpoint_url={environment['AWS_ENDPOINT_URL']}",
        "client_kwargs.region_name=us-east-1",
    ]
    for form in ("{}", "s3.{}"):
        options = parsed_options(form.format(pair) for pair in pairs)
        source = open_source("s3://archive/photographs/d/*.png", storage_options=options)
        item = next(source.items())
        assert Fetcher(options).fetch(item.place) == IMAGE.read_bytes()
        assert environment["AWS_SECRET_ACCESS_KEY"] not in str(source.record)


def test_what_is_not_there_is_one_sentence(bucket: ObjectStore) -> None:
    for input_ in ("s3://archive/none", "s3://no-such-bucket/a", "s3://archive/none/*.png"):
        with pytest.raises(DatasetError, match=r"does not exist|no images in it") as caught:
            open_source(input_)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=r"image 's3://archive/none.png' cannot be fetched: it does not exist"):
        Fetcher(wait=lambda _: pytest.fail("it waits")).fetch(FilePlace("s3://archive/none.png"))
    bucket.files.pipe_file("archive/empty.png", b"")
    assert Fetcher().fetch(FilePlace("s3://archive/empty.png")) == b""
