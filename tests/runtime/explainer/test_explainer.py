"""Explaining: shapes and types of the result, targets, providers, batch sizes, what is saved."""

import copy
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.common.tolerances import logits_apart, maps_apart
from tests.conftest import TINY_LABELS

import ortcam
from ortcam.bundle.shipped import bundle_path, demo_image
from ortcam.images.reading import read_image

METHODS = ("scorecam", "scorecam++", "sscam", "iscam")


@pytest.fixture(scope="module")
def explainer(tiny_bundle: Path) -> ortcam.Explainer:
    return ortcam.load(tiny_bundle, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_has_the_documented_shapes_and_types(
    explainer: ortcam.Explainer, photograph: Path, method: str
) -> None:
    e = explainer.explain(photograph, method=method, top_k=3)
    assert e.maps.shape == (3, 32, 48)
    assert e.maps.dtype == e.raw_maps.dtype == e.weights.dtype == e.probabilities.dtype == np.float32
    assert e.maps.min() >= 0
    assert e.maps.max() <= 1
    assert [float(m.max()) for m, flat in zip(e.maps, e.flat, strict=True) if not flat] == [1.0] * int((~e.flat).sum())
    assert e.raw_maps.shape == ((3, 32, 48) if method == "scorecam++" else (3, 8, 12))
    assert e.weights.shape == (3, 10)
    assert e.labels == tuple(TINY_LABELS[index] for index in e.targets)
    probabilities = explainer.predict(photograph)
    assert e.targets == tuple(np.argsort(-probabilities)[:3])
    np.testing.assert_array_equal(e.probabilities, probabilities[list(e.targets)])
    assert e.stats.live_channels + int((e.weights == 0).all(axis=0).sum()) == e.stats.channels == 10
    samples = {"sscam": 35, "iscam": 10}.get(method, 1)
    assert e.stats.passes == e.stats.live_channels * samples


def test_path_bytes_and_pixels_give_the_same(
    explainer: ortcam.Explainer, photograph: Path, picture: np.ndarray
) -> None:
    from_path = explainer.explain(photograph, method="scorecam++", batch_size=8)
    for image in (str(photograph), photograph.read_bytes(), picture, explainer.read(photograph)):
        again = explainer.explain(image, method="scorecam++", batch_size=8)
        np.testing.assert_array_equal(again.maps, from_path.maps)


def test_preprocess_is_what_the_model_sees(explainer: ortcam.Explainer, photograph: Path) -> None:
    tensor = explainer.preprocess(photograph)
    assert tensor.shape == (1, 3, 32, 48)
    assert tensor.dtype == np.float32


def test_predict_gives_probabilities(explainer: ortcam.Explainer, photograph: Path) -> None:
    probabilities = explainer.predict(photograph)
    assert probabilities.shape == (len(TINY_LABELS),)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_an_explanation_with_a_cut_in_a_branch_needs_no_head(
    explainer: ortcam.Explainer, branch_bundle: Path, photograph: Path
) -> None:
    branch = ortcam.load(branch_bundle, providers=["CPUExecutionProvider"])
    logits = explainer.logits(1, lambda _: explainer.preprocess(photograph))
    atol = logits_apart(logits) / 2
    np.testing.assert_allclose(branch.predict(photograph), explainer.predict(photograph), rtol=0, atol=atol)
    atol = maps_apart(logits, channels=10)
    for method in METHODS:
        options = {"top_k": 3, "baseline": "zeros"}
        here, there = (e.explain(photograph, method=method, **options) for e in (branch, explainer))
        np.testing.assert_allclose(here.maps, there.maps, rtol=0, atol=atol)
        np.testing.assert_allclose(here.weights, there.weights, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        (2, (2,)),
        (np.int64(1), (1,)),
        ("dog", (1,)),
        ("Sea_Snake", (2,)),
        ([0, "dog", 5], (0, 1, 5)),
        ((1, "dog"), (1, 1)),
        ("white, striped", (5,)),
    ],
)
def test_targets_are_indices_or_labels(
    explainer: ortcam.Explainer, photograph: Path, target: object, targets: tuple[int, ...]
) -> None:
    assert explainer.explain(photograph, target=target).targets == targets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 6}, "target 6: the model has classes 0 to 5"),
        ({"target": -1}, "target -1: the model has classes 0 to 5"),
        ({"target": "doge"}, "no class of the model has this label.*did you mean 'dog'"),
        ({"target": "crane"}, "names the classes 3, 4"),
        ({"target": []}, "target is empty"),
        ({"target": 1.5}, "target 1.5"),
        ({"target": True}, "target True"),
        ({"top_k": 0}, "top_k=0: accepted is a whole number from 1 to 6"),
        ({"top_k": 7}, "top_k=7"),
        ({"target": 1, "top_k": 2}, "give one or the other"),
    ],
)
def test_a_wrong_target_names_itself_and_what_is_accepted(
    explainer: ortcam.Explainer, photograph: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(ortcam.TargetError, match=message):
        explainer.explain(photograph, **arguments)


def test_a_wrong_batch_size_or_thread_count_is_refused(
    explainer: ortcam.Explainer, tiny_bundle: Path, photograph: Path
) -> None:
    with pytest.raises(ortcam.OptionError, match="batch_size=0"):
        explainer.explain(photograph, batch_size=0)
    with pytest.raises(ortcam.OptionError, match="threads=0"):
        ortcam.load(tiny_bundle, threads=0)
    with pytest.raises(ortcam.OptionError, match="threads=100000: accepted is a whole number from 1 to 1024"):
        ortcam.load(tiny_bundle, threads=100_000)


def test_an_unavailable_provider_is_refused_with_the_available_ones(tiny_bundle: Path) -> None:
    with pytest.raises(ortcam.ProviderError, match=r"'QNNExecutionProvider' is not available.*CPUExecutionProvider"):
        ortcam.load(tiny_bundle, providers=["QNNExecutionProvider"])
    with pytest.raises(ortcam.ProviderError, match="did you mean 'CPUExecutionProvider'"):
        ortcam.load(tiny_bundle, providers=["cpuu"])
    with pytest.raises(ortcam.ProviderError, match="accepted is a list"):
        ortcam.load(tiny_bundle, providers=[])


@pytest.mark.parametrize("providers", [["cpu"], ["CPU"], [("CPUExecutionProvider", {"use_arena": "0"})], None])
def test_providers_come_as_names_or_pairs_and_the_result_says_what_ran(
    tiny_bundle: Path, photograph: Path, providers: list | None
) -> None:
    explanation = ortcam.load(tiny_bundle, providers=providers).explain(photograph, method="scorecam++")
    assert "CPUExecutionProvider" in explanation.stats.providers


def test_progress_counts_every_pass_once(explainer: ortcam.Explainer, photograph: Path) -> None:
    seen: list[tuple[int, int]] = []
    e = explainer.explain(photograph, method="iscam", batch_size=7, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (e.stats.passes, e.stats.passes)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) == e.stats.runs == -(-e.stats.passes // 7)


def test_a_saved_explanation_is_complete(explainer: ortcam.Explainer, photograph: Path, tmp_path: Path) -> None:
    e = explainer.explain(photograph, method="sscam", target=["cat", "dog"], num_samples=2, seed=5)
    folder = e.save(tmp_path / "out" / "here")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert sorted(path.name for path in folder.iterdir()) == sorted([*manifest["files"], "manifest.json"])
    for index, target in enumerate((0, 1)):
        np.testing.assert_array_equal(np.load(folder / f"class-{target}.npy"), e.maps[index])
        assert read_image(folder / f"class-{target}-overlay.png").shape == (90, 120, 3)
        assert read_image(folder / f"class-{target}-heatmap.png").shape == (32, 48, 3)
    assert manifest["bundle"]["sha256"] == explainer.bundle.sha256
    assert manifest["options"]["num_samples"] == 2
    assert manifest["options"]["seed"] == 5
    assert [target["index"] for target in manifest["targets"]] == [0, 1]
    assert manifest["targets"][0]["probability"] == pytest.approx(float(e.probabilities[0]))
    assert manifest["stats"]["providers"] == ["CPUExecutionProvider"]
    assert manifest["stats"]["passes"] == e.stats.passes
    assert manifest["versions"]["ortcam"] == ortcam.__version__


def test_a_manifest_reproduces_its_maps(explainer: ortcam.Explainer, photograph: Path, tmp_path: Path) -> None:
    folder = explainer.explain(photograph, method="sscam", num_samples=3, seed=11).save(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    targets = [target["index"] for target in manifest["targets"]]
    again = explainer.explain(
        manifest["image"]["path"], method=manifest["method"], target=targets, **manifest["options"]
    )
    np.testing.assert_allclose(again.maps[0], np.load(folder / f"class-{targets[0]}.npy"), atol=1e-5)


def test_a_place_that_cannot_be_written_is_named(explainer: ortcam.Explainer, photograph: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ortcam.OutputError, match="cannot write the explanation here"):
        explainer.explain(photograph).save(tmp_path / "file")


@pytest.mark.slow
def test_the_overlay_colours_only_what_the_model_saw(explainer: ortcam.Explainer, picture: np.ndarray) -> None:
    e = explainer.explain(picture)
    _, covered = e.on_photograph()
    assert covered.all()  # this model's input is the whole picture
    assert e.overlay(alpha=0.0).tolist() == picture.tolist()
    assert e.overlay(alpha=1.0).tolist() != picture.tolist()
    with pytest.raises(ortcam.OptionError, match="map 1 of 1"):
        e.overlay(1)


@pytest.mark.parametrize(
    "given", [{"max_pixels": -1}, {"max_pixels": True}, {"max_pixels": 1e6}, {"white": 0}, {"white": 65536}]
)
def test_limits_of_pictures_are_checked_when_a_bundle_is_loaded(tiny_bundle: Path, given: dict[str, object]) -> None:
    (name, value) = next(iter(given.items()))
    with pytest.raises(ortcam.OptionError, match=f"{name}={value!r}: accepted is a whole number"):
        ortcam.load(tiny_bundle, **given)  # type: ignore[arg-type]


def test_strict_is_kept_by_copies_and_pickles_and_refuses_what_is_damaged(tiny_bundle: Path) -> None:
    whole = cv2.imencode(".jpg", np.full((40, 50, 3), 99, np.uint8))[1].tobytes()
    start = whole.index(b"\xff\xda")
    length = int.from_bytes(whole[start + 2 : start + 4])
    empty = whole[: start + 2 + length] + b"\xff\xd9"
    with pytest.warns(ortcam.ImageWarning, match="its scan 1 holds no data"):
        ortcam.load(tiny_bundle).read(empty)
    explainer = ortcam.load(tiny_bundle, strict=True)
    assert explainer.read(whole).pixels.shape == (40, 50, 3)
    for strict in (explainer, copy.copy(explainer), pickle.loads(pickle.dumps(explainer))):
        with pytest.raises(ortcam.ImageError, match=r"its scan 1 holds no data\), and strict refuses it"):
            strict.explain(empty)
    with pytest.raises(ortcam.OptionError, match="strict=1: accepted is True or False"):
        ortcam.load(tiny_bundle, strict=1)  # type: ignore[arg-type]


def test_an_overlay_of_a_longest_side_shows_the_same_map_at_that_size(explainer: ortcam.Explainer) -> None:
    picture = np.repeat(np.repeat(np.arange(60, dtype=np.uint8).reshape(6, 10, 1), 3, axis=2), 20, axis=0)
    e = explainer.explain(np.repeat(picture, 20, axis=1))  # 120 x 200
    small = e.overlay(longest_side=50)
    assert small.shape == (30, 50, 3)
    scaled = cv2.resize(e.overlay(), (50, 30), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - scaled).mean() < 8  # of 255: the map is sampled, not averaged
    np.testing.assert_array_equal(e.overlay(longest_side=200), e.overlay())


def test_an_overlay_is_the_same_made_at_once_or_in_blocks(
    explainer: ortcam.Explainer, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    e = explainer.explain(picture)
    at_once = e.overlay()
    monkeypatch.setattr("ortcam.images.rendering.BLOCK", 1)
    np.testing.assert_array_equal(e.overlay(), at_once)


def test_saved_overlays_are_bounded(explainer: ortcam.Explainer, tmp_path: Path) -> None:
    e = explainer.explain(np.full((2, 8200, 3), 99, np.uint8))
    folder = e.save(tmp_path / "x")
    assert read_image(folder / f"class-{e.targets[0]}-overlay.png").shape == (2, 8192, 3)
    assert max(read_image(e._repr_png_()).shape) < 2000


def test_pictures_of_twelve_bits_are_explained_as_those_of_eight(tiny_bundle: Path) -> None:
    eight = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    twelve = np.rint(eight * (4095 / 255)).astype(np.uint16)
    png = cv2.imencode(".png", np.ascontiguousarray(twelve[..., ::-1]))[1].tobytes()
    explainer = ortcam.load(tiny_bundle, max_pixels=np.int64(10**6), white=np.int64(4095))  # type: ignore[arg-type]
    np.testing.assert_array_equal(explainer.preprocess(png), explainer.preprocess(eight))
    assert explainer.explain(png).provenance["image"]["white"] == 4095


@pytest.mark.slow
@pytest.mark.parametrize("index", ["sea snake", "Sea_Snake", np.int64(1), 1])
def test_an_overlay_is_asked_for_by_place_or_label(
    explainer: ortcam.Explainer, photograph: Path, index: int | str
) -> None:
    e = explainer.explain(photograph, target=["dog", "sea snake"])
    np.testing.assert_array_equal(e.overlay(index), e.overlay(1))
    np.testing.assert_array_equal(e.heatmap(index), e.heatmap(1))
    assert e._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("index", ["key", "", "crane", -1, 3, True, 1.0, None, [0], b"dog"])
def test_an_overlay_of_no_target_or_of_several_is_refused(
    explainer: ortcam.Explainer, photograph: Path, index: object
) -> None:
    e = explainer.explain(photograph, target=[1, 3, 4])
    for draw in (e.overlay, e.heatmap, e.on_photograph):
        with pytest.raises(ortcam.OptionError, match="accepted is"):
            draw(index)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"method": "scorecam++"}, {"method": "recipro-cam"}, {"method": "eigen-cam"}, {"augment": 3}, {"budget": 9}],
)
def test_a_class_that_is_asked_for_twice_is_explained_once_and_given_twice(
    explainer: ortcam.Explainer, photograph: Path, arguments: dict
) -> None:
    twice = explainer.explain(photograph, target=[3, 3, "sea snake"], batch_size=4, **arguments)
    once = explainer.explain(photograph, target=[3, 2], batch_size=4, **arguments)
    assert twice.targets == (3, 3, 2)
    assert twice.labels == ("crane", "crane", "sea snake")
    assert (twice.stats.passes, twice.stats.runs) == (once.stats.passes, once.stats.runs)
    for name in ("maps", "raw_maps", "weights", "flat", "probabilities"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(once, name)[[0, 0, 1]])
    if once.stats.estimated_error is not None:
        first, second = once.stats.estimated_error
        assert twice.stats.estimated_error == (first, first, second)


@pytest.mark.parametrize("target", [np.array(2), np.array([2]), (n for n in [2]), "index:2", "2"])
def test_a_target_may_be_an_array_or_a_generator(explainer: ortcam.Explainer, photograph: Path, target: object) -> None:
    assert explainer.explain(photograph, target=target, batch_size=np.int64(4)).targets == (2,)


def test_what_is_wrong_with_every_image_is_found_before_the_first_is_read(
    explainer: ortcam.Explainer, branch_bundle: Path
) -> None:
    def images() -> object:
        pytest.fail("an image was taken")
        yield

    wrong = [{"target": b"dog"}, {"target": "unicorn"}, {"target": 6}, {"top_k": 7}, {"target": 1, "top_k": 2}]
    for arguments in wrong:
        with pytest.raises(ortcam.TargetError):
            explainer.explain_many(images(), **arguments)
        with pytest.raises(ortcam.TargetError):
            explainer.explain("missing.png", **arguments)
        with pytest.raises(ortcam.TargetError):
            explainer.check(**arguments)
    with pytest.raises(ortcam.OptionError, match="inside a branch"):
        ortcam.load(branch_bundle).explain_many(images(), method="recipro-cam")


def test_representations_are_one_line_that_tells_what_it_is() -> None:
    explainer = ortcam.load(bundle_path(), threads=1)
    photograph = explainer.read(demo_image())
    explanation = explainer.explain(photograph, method="recipro-cam")
    model = "shufflenet_v2_x0_5: 7 classes (fish, flower, house, ...), softmax, 224 x 224 pixels"
    assert repr(explainer) == f"<Explainer of {model}, float32>"
    assert repr(explainer.bundle) == f"<Bundle shapes.ortcam of {model}>"
    assert repr(explainer.bundle.manifest) == f"<Manifest of {model}>"
    assert repr(photograph) == "<Photograph mug-umbrella.png, 320 x 240 pixels, model input [1, 3, 224, 224]>"
    assert repr(explainer.read(preprocessed=photograph.model_input)).startswith("<Photograph preprocessed input, 224")
    preprocessing = explainer.bundle.manifest.preprocessing
    assert eval(repr(preprocessing), {"Preprocessing": ortcam.Preprocessing}) == preprocessing
    assert "antialias" not in repr(preprocessing)
    assert repr(ortcam.METHODS[0]).startswith("<Method scorecam, forward passes: 1 per channel; options: ")
    for each in (explainer, explainer.bundle, photograph, preprocessing, explanation, explanation.stats):
        assert "\n" not in repr(each)
        assert len(repr(each)) < 200
    explainer.close()
    assert repr(explainer).endswith(", closed>")
