"""Places and their options: what is a URL, what is joined, which options go where, and no secret is shown."""

import socket
from pathlib import Path

import pytest

from ortcam.batch.storage import absolute, filesystem, is_url, joined, local_path, parsed_options, without_secrets
from ortcam.errors import OptionError


@pytest.mark.parametrize("text", ["s3://b/a", "memory://a", "simplecache::s3://b/a", "https://host/a", "GS://b/a"])
def test_urls_are_told_from_paths(text: str) -> None:
    assert is_url(text)
    assert absolute(text) == text


@pytest.mark.parametrize("text", ["a", "/a/b", "./a", "a::b.jpg", "file:///a", "a:b", "1://a", "folder::b/c"])
def test_paths_are_told_from_urls(text: str) -> None:
    assert not is_url(text)
    assert Path(absolute(text)).is_absolute()


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    assert local_path("file:///a%20b") == "/a b"
    system, path = filesystem((tmp_path / "x").as_uri())
    assert (path, system.protocol[0]) == (str(tmp_path / "x"), "file")


def test_a_name_is_joined_to_a_folder() -> None:
    assert joined("/a", "b/c") == "/a/b/c"
    assert joined("s3://b", "c") == joined("s3://b/", "c") == "s3://b/c"
    assert joined("simplecache::s3://b/x", "c") == "simplecache::s3://b/x/c"
    assert joined("zip://x::file:///a.zip", "c") == "zip://x/c::file:///a.zip"


def test_double_colons_in_a_name_are_no_chain() -> None:
    assert filesystem("https://127.0.0.1/a::b.jpg")[1] == "https://127.0.0.1/a::b.jpg"


def test_options_are_read_as_a_command_line_has_them() -> None:
    pairs = [
        "anon=true",
        "key=0123",
        "retries=3",
        "url=http://127.0.0.1:1/?a=b",
        'quoted="12"',
        "a.b.c=x",
        "a.b.d=null",
    ]
    assert parsed_options(pairs) == {
        "anon": True,
        "key": "0123",
        "retries": 3,
        "url": "http://127.0.0.1:1/?a=b",
        "quoted": "12",
        "a": {"b": {"c": "x", "d": None}},
    }


@pytest.mark.parametrize("pairs", [["anon"], ["=x"], ["a b=x"], ["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_options_that_make_no_sense_are_refused(pairs: list[str]) -> None:
    with pytest.raises(OptionError, match="--storage-option"):
        parsed_options(pairs)


def test_an_unknown_protocol_is_named_without_its_secrets() -> None:
    with pytest.raises(OptionError, match=r"nonsense://host/a.*accepted are local paths and URLs") as caught:
        filesystem("nonsense://me:secret@host/a")
    assert "secret" not in str(caught.value)


def test_an_option_that_a_protocol_does_not_take_is_one_sentence() -> None:
    with pytest.raises(OptionError, match=r"github:// cannot be opened with these storage options: .*'repo'") as caught:
        filesystem("github://a", {"org": "b"})
    assert "\n" not in str(caught.value)


def test_a_host_is_part_of_an_address_and_one_that_is_away_is_one_sentence() -> None:
    with socket.socket() as held:  # a port that nobody listens on
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(OptionError, match=rf"ftp://127.0.0.1:{port}/a' cannot be reached: ") as caught:
            filesystem(f"ftp://me:secret@127.0.0.1:{port}/a")
    assert isinstance(caught.value.__cause__, OSError)
    assert "secret" not in str(caught.value)


def test_options_of_other_protocols_are_left_out() -> None:
    system, _ = filesystem("https://127.0.0.1/a", {"s3": {"key": "1"}, "https": {"block_size": 7}})
    assert system.block_size == 7
    assert filesystem("memory://a", {"endpoint_url": "http://127.0.0.1"})[1] == "/a"


def test_secrets_are_left_out() -> None:
    assert without_secrets("https://host/a?X-Amz-Signature=1") == "https://host/a"
    assert without_secrets("s3://bucket/a@b?c.jpg") == "s3://bucket/a@b?c.jpg"
    assert without_secrets("/a?b@c") == "/a?b@c"
