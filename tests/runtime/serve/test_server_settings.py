"""Settings of the server: flags, files, environment and folders become one checked object, or one sentence."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from ortcam.bundle.shipped import bundle_path
from ortcam.errors import OptionError
from ortcam.serve.configuration import read_config, read_token
from ortcam.serve.models.found import ServedBundle, find_bundles, mounted_bundles, named_bundles
from ortcam.serve.settings import LIMIT_RANGES, RequestLimits, Settings

SHIPPED = [ServedBundle("shapes", bundle_path())]


def test_a_bundle_is_named_after_its_folder(tiny_bundle: Path) -> None:
    assert [item.name for item in Settings.of([tiny_bundle, "shapes"]).bundles] == ["tiny", "shapes"]


def test_the_defaults_of_the_limits_are_accepted_and_every_limit_has_a_range() -> None:
    defaults = RequestLimits()
    assert RequestLimits.of({name: getattr(defaults, name) for name in LIMIT_RANGES}) == defaults
    assert set(vars(defaults)) == set(LIMIT_RANGES)


def test_a_settings_object_does_not_show_its_token() -> None:
    assert "secret" not in repr(Settings.of(["shapes"], token="secret"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bundles": []}, "no bundle"),
        ({"bundles": ["nowhere.ortcam"]}, "'nowhere.ortcam': there is no such folder"),
        ({"bundles": [ServedBundle("a b", bundle_path())]}, "name 'a b': accepted are"),
        ({"bundles": ["shapes", "shapes"]}, "two models are called 'shapes'"),
        ({"bundles": [*SHIPPED, ServedBundle("shapes-explain", bundle_path())]}, "two models are called"),
        ({"limits": {"pixel": 3}}, "unknown limit 'pixel': accepted are body_bytes"),
        ({"limits": {"pixels": "many"}}, "limit pixels='many': accepted is a whole number"),
        ({"limits": {"seconds": 0}}, "limit seconds=0: accepted is seconds from 0.01"),
        ({"limits": {"queue": True}}, "limit queue=True"),
        ({"memory_limit": 0}, "memory_limit=0: accepted is a whole number of megabytes from 1 to 1000000"),
        ({"port": 70000}, "port=70000: accepted is a whole number from 0 to 65535"),
        ({"workers": 0}, "workers=0"),
        ({"tokens": "x"}, "unknown setting 'tokens': accepted are host"),
        ({"token": "two words"}, "token: accepted are"),
        ({"cors": "example.org"}, "cors='example.org': accepted are origins"),
        ({"ui": 1}, "ui=1: accepted is true or false"),
        ({"host": ""}, "host='': accepted is an address"),
        ({"log_file": 3}, "log_file=3: accepted is the path of a file"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError) as raised:
        Settings.of(**{"bundles": ["shapes"], **given})
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_configuration_names_bundles_limits_and_a_token_relative_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "token.txt").write_text("secret\n")
    (tmp_path / "model").symlink_to(bundle_path())
    (tmp_path / "serve.toml").write_text(
        'host = "0.0.0.0"\nworkers = 2\ntoken_file = "token.txt"\nlog_file = "serve.log"\n'
        '[bundles]\nmine = "model"\nother = "shapes"\n[limits]\npixels = 1000000\n'
    )
    given = read_config(tmp_path / "serve.toml")
    settings = Settings.of(given.pop("bundles"), **given)
    assert settings.bundles == (ServedBundle("mine", tmp_path / "model"), ServedBundle("other", bundle_path()))
    assert (settings.host, settings.workers, settings.token) == ("0.0.0.0", 2, "secret")
    assert settings.log_file == tmp_path / "serve.log"
    assert settings.limits == RequestLimits(pixels=1_000_000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("host = ", "no TOML"),
        ("limits = 3", "limits: accepted is a table"),
        ("[bundles]\na = 3", "bundles.a=3: accepted is the path"),
        ('[bundles]\na = "nowhere"', "there is no such folder"),
        ('token = "x"', "token: accepted is token_file"),
        ('token_file = "nowhere"', "cannot be read"),
        ("token_file = 3", "token_file=3: accepted is the path of a file"),
    ],
)
def test_a_configuration_that_is_wrong_is_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(text)
    with pytest.raises(OptionError) as raised:
        read_config(tmp_path / "serve.toml")
    assert told in str(raised.value)


def test_a_token_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-file\n")
    assert read_token(tmp_path / "token", {"ORTCAM_TOKEN": "of-environment"}) == "of-file"
    assert read_token(None, {"ORTCAM_TOKEN": "of-environment"}) == "of-environment"
    assert read_token(None, {}) is None
    (tmp_path / "token").write_text("\n")
    with pytest.raises(OptionError, match="is empty"):
        read_token(tmp_path / "token")


def test_a_folder_may_hold_bundles(tmp_path: Path) -> None:
    for name in ("b.ortcam", "a"):
        (tmp_path / name).symlink_to(bundle_path(), target_is_directory=True)
    (tmp_path / "notes").mkdir()
    assert [item.path.name for item in find_bundles([tmp_path])] == ["a", "b.ortcam"]
    with pytest.raises(OptionError, match="is no bundle and holds none"):
        find_bundles([tmp_path / "notes"])


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "current.ortcam").symlink_to(bundle_path(), target_is_directory=True)
    assert [item.name for item in find_bundles([tmp_path / "current.ortcam"])] == ["current"]


def test_names_are_given_to_bundles_in_their_order() -> None:
    assert named_bundles(SHIPPED, ["cat"]) == [ServedBundle("cat", bundle_path())]
    with pytest.raises(OptionError, match="2 names for 1 bundle"):
        named_bundles(SHIPPED, ["cat", "dog"])


def test_a_container_finds_what_kserve_has_put_there(tmp_path: Path) -> None:
    environment = {"STORAGE_URI": "s3://bucket/resnet18.ortcam"}
    (tmp_path / "models").symlink_to(bundle_path(), target_is_directory=True)
    assert [item.name for item in mounted_bundles(environment, tmp_path / "models")] == ["resnet18"]
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "cat.ortcam").mkdir()
    (tmp_path / "many" / "cat.ortcam" / "bundle.json").write_text("{}")
    assert [item.name for item in mounted_bundles(environment, tmp_path / "many")] == ["cat"]
    local = {"STORAGE_URI": f"file://{bundle_path()}"}
    assert mounted_bundles(local, tmp_path / "none") == SHIPPED
    with pytest.raises(OptionError, match="BUNDLE is missing"):
        mounted_bundles({}, tmp_path / "none")


def test_limits_are_read_from_texts_as_from_numbers() -> None:
    assert RequestLimits.of({"seconds": "2.5", "images": "3"}) == RequestLimits(seconds=2.5, images=3)
    with pytest.raises((OptionError, argparse.ArgumentTypeError)):
        RequestLimits.of({"images": "2.5"})
