"""Results of earlier commands: nothing is lost, and what would be is said before any work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.runtime.cli.running import explained, run

import ortcam
from ortcam.cli import main


@pytest.mark.slow
def test_pictures_of_one_name_do_not_overwrite_each_other(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    cv2.imwrite(str(tmp_path / "b" / "photo.jpg"), picture[::-1])
    (tmp_path / "photo-2.png").write_bytes(photograph.read_bytes())
    images = [photograph, tmp_path / "b" / "photo.jpg", tmp_path / "photo-2.png"]
    assert run("explain", tiny_bundle, *images, "-o", tmp_path / "o").returncode == 0
    folders = sorted(path.name for path in (tmp_path / "o").iterdir() if path.is_dir())
    assert folders == ["photo", "photo-2", "photo-2-2"]


def test_the_same_image_twice_keeps_a_folder_each(
    tiny_bundle: Path, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.png"
    images = [str(photograph), str(missing), str(photograph)]
    assert main(["explain", str(tiny_bundle), *images, "-m", "scorecam", "-o", str(tmp_path / "out")]) == 2
    assert "missing.png" in capsys.readouterr().err
    stem = photograph.stem
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [stem, f"{stem}-2"]


@pytest.mark.slow
def test_another_class_is_added_and_another_image_of_the_name_gets_a_number(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    cv2.imwrite(str(tmp_path / "b" / "photo.png"), picture[::-1])
    other, out = tmp_path / "b" / "photo.png", tmp_path / "out"
    for image, target in ((photograph, 1), (photograph, 2), (other, 1), (photograph, 1), (other, 0)):
        arguments = ["explain", str(tiny_bundle), str(image), "-t", str(target), "-o", str(out), "-m", "eigen-cam"]
        assert main([*arguments, "--quiet"]) == 0
    folder = "eigen-cam/class"
    assert explained(out) == [
        f"photo-2/{folder}-0.npy",
        f"photo-2/{folder}-1.npy",
        f"photo/{folder}-1.npy",
        f"photo/{folder}-2.npy",
    ]


@pytest.mark.slow
def test_results_with_other_settings_are_replaced_only_by_force_and_nothing_is_done_before(
    tiny_bundle: Path, photograph: Path, picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "second.png"), picture[::-1])
    cv2.imwrite(str(tmp_path / "third.png"), picture[:, ::-1])
    images = [str(photograph), str(tmp_path / "second.png")]
    command = [
        "explain",
        str(tiny_bundle),
        *images,
        "-m",
        "scorecam++",
        "-t",
        "1",
        "-o",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert main([*command, "--budget", "4"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for flags in (["--budget", "5"], ["--option", "gate=sigmoid"], ["--colormap", "jet"]):
        assert main([*command, *(["--budget", "4"] if "--budget" not in flags else []), *flags, "-t", "2"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "photo/scorecam++: holds class 1 explained with" in line
        assert "--force" in line
        assert "(the same of 1 more)" in line
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    arguments = [*command[:3], str(tmp_path / "third.png"), *command[3:]]
    assert main([*arguments, "--budget", "5", "--force"]) == 0
    manifest = json.loads((tmp_path / "out" / "photo" / "scorecam++" / "manifest.json").read_text())
    assert manifest["limits"]["budget"] == 5


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_a_faster_command_with_another_image_of_the_name_loses_nothing(
    tiny_bundle: Path,
    photograph: Path,
    picture: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    other = ortcam.load(tiny_bundle).explain(picture[::-1], method="eigen-cam", target=5)
    real = ortcam.Explanation.save

    def save(self: ortcam.Explanation, folder: Path, **options: object) -> Path:
        if not (folder / "manifest.json").exists() and folder.parent.name == "photo":
            real(other, folder)  # another process
        return real(self, folder, **options)

    monkeypatch.setattr(ortcam.Explanation, "save", save)
    arguments = ["explain", str(tiny_bundle), str(photograph), "-t", "1", "-m", "eigen-cam", "-o", str(tmp_path)]
    assert main([*arguments, "--quiet", *more]) == 0
    assert explained(tmp_path) == ["photo-2/eigen-cam/class-1.npy", "photo/eigen-cam/class-5.npy"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_strange_names_are_explained_inside_the_output_and_printed_escaped(
    tiny_bundle: Path, photograph: Path, tmp_path: Path
) -> None:
    names = [b"...jpg", b"caf\xe9.png", b"a\nb\x1b[31m.png", "\u202egpj.png".encode(), b"x" * 251 + b".png", b"con.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(photograph.read_bytes())
    command = [os.fsencode(sys.executable), b"-m", b"ortcam", b"explain", os.fsencode(tiny_bundle), *names]
    for more in ([], [b"--json"]):
        result = subprocess.run(
            [*command, b"-m", b"eigen-cam", b"-o", b"a/out", *more], capture_output=True, check=False, cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        assert b"\x1b" not in result.stdout
        assert b"\xe2\x80\xae" not in result.stdout
        text = result.stdout.decode()
        assert "caf\\xe9.png" in (json.loads(text)["explanations"][1]["image"]["path"] if more else text)
    assert [path.name for path in tmp_path.glob("a/*")] == ["out"]
    folders = {path.name for path in (tmp_path / "a" / "out").iterdir() if path.is_dir()}
    assert folders == {"image", "caf_", "a_b_[31m", "_gpj", "x" * 240, "con_"}
    assert len(explained(tmp_path / "a" / "out")) == len(names)
