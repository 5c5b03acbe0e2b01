"""`ortcam predict`: the classes of images, as Python and the model that was exported give them."""

import csv
import doctest
import io
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

import ortcam
from ortcam.bundle.shipped import bundle_path, sample_images
from ortcam.cli import main
from ortcam.cli.commands import predict

REPOSITORY = Path(__file__).parents[3]
SAMPLES = sample_images()[0].parent


@pytest.fixture(scope="module")
def explainer() -> ortcam.Explainer:
    return ortcam.load(bundle_path(), threads=1)


def printed(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    assert main(["predict", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    if not {"--json", "--csv"} & set(arguments):
        assert all(len(line) <= 80 for line in out.splitlines())
    return out, err


def test_the_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(predict).failed == 0


def test_one_image_gives_a_table_of_what_top_says(
    capsys: pytest.CaptureFixture[str], explainer: ortcam.Explainer
) -> None:
    image = SAMPLES / "mug-umbrella.png"
    out, _ = printed(capsys, "shapes", image, "--top-k", 3)
    head, _, *rows = out.splitlines()
    assert head == "shufflenet_v2_x0_5: 7 classes, softmax (the probabilities add up to 1)"
    assert [row.split() for row in rows] == [
        [str(p.index), p.label, f"{p.probability:.2%}"] for p in explainer.top(image, top_k=3)
    ]
    assert len(printed(capsys, "shapes", image)[0].splitlines()) == 2 + 5
    assert len(printed(capsys, "shapes", image, "--top-k", 99, "--quiet")[0].splitlines()) == 1 + 7


def test_a_folder_gives_a_line_per_image(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, "shapes", SAMPLES)
    _, *rows = out.splitlines()
    assert [row.split()[0] for row in rows] == ["fish.png", "mug-umbrella.png"]
    assert rows[0].split()[2] == "fish"
    assert rows[1].split()[2] == "umbrella"


def test_json_and_csv_have_the_same_and_it_is_what_python_says(
    capsys: pytest.CaptureFixture[str], explainer: ortcam.Explainer
) -> None:
    found = json.loads(printed(capsys, "shapes", SAMPLES, "--json")[0])
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "shapes", SAMPLES, "--csv")[0])))
    assert (found["activation"], found["classes"], found["errors"]) == ("softmax", 7, [])
    of_json = [
        (item["image"], rank, c["index"], c["label"], np.float32(c["probability"]))
        for item in found["predictions"]
        for rank, c in enumerate(item["classes"], 1)
    ]
    of_csv = [
        (row["image"], int(row["rank"]), int(row["index"]), row["label"], np.float32(row["probability"]))
        for row in rows
    ]
    of_python = [
        (str(path), rank, p.index, p.label, np.float32(p.probability))
        for path in sample_images()
        for rank, p in enumerate(explainer.top(path), 1)
    ]
    assert of_json == of_csv == of_python


def test_a_sigmoid_model_is_said_to_be_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundle_path(), tmp_path / "sigmoid.ortcam"))
    manifest = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"activation": "sigmoid"}))
    out, _ = printed(capsys, bundle, SAMPLES / "fish.png")
    assert "7 classes, sigmoid (each class has a probability of its own)" in out
    assert json.loads(printed(capsys, bundle, SAMPLES / "fish.png", "--json")[0])["activation"] == "sigmoid"


def test_an_image_that_cannot_be_read_is_one_error_and_the_others_are_predicted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    out, err = printed(capsys, "shapes", broken, SAMPLES / "fish.png", "absent.jpg", "--json", code=2)
    found = json.loads(out)
    assert [Path(item["image"]).name for item in found["predictions"]] == ["fish.png"]
    assert [Path(item["image"]).name for item in found["errors"]] == ["broken.png", "absent.jpg"]
    assert err.count("ortcam: ") == 2


def test_standard_input_is_an_image(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = types.SimpleNamespace(buffer=io.BytesIO((SAMPLES / "fish.png").read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    assert printed(capsys, "shapes", "-")[0].splitlines()[1] == "stdin"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shapes", SAMPLES / "fish.png", "--json", "--csv"), "--json with --csv: give one or the other"),
        ((SAMPLES / "fish.png", SAMPLES / "fish.png"), "the model comes first, such as `ortcam predict shapes"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    arguments: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, *arguments, code=2)
    assert out == ""
    assert said in err
