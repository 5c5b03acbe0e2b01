"""The page: what it shows and of whom, that no text breaks it, and that a browser loads and sorts it."""

import base64
import json
import os
import re

import cv2
import numpy as np
import pytest
from tests.runtime.evaluation.pages import ADCC, HOSTILE, METHODS, MORE, QUOTED, names, policy_name

from ortcam.evaluation.entries import Entry, baselines


def test_the_page_needs_nothing_from_elsewhere(report):
    page = report(names(3))
    addresses = [has[key] for _, has in page.elements for key in ("src", "href") if key in has]
    assert any(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|@import|url\(", page.source)
    (policy,) = page.of("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'; img-src data:;" in policy["content"]


def test_the_policy_lets_this_script_run_and_no_other(report):
    page = report([HOSTILE, QUOTED])
    (policy,) = page.of("meta", **{"http-equiv": "Content-Security-Policy"})
    (allowed,) = re.findall(r"script-src ([^;]*);", policy["content"])
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert [f"'{policy_name(script)}'" for script in scripts] == [allowed]
    assert "=>" in scripts[0], "it is not escaped"
    # The numbers and names are data, from which no text breaks out.
    (data,) = re.findall(r'<script type="application/json" id="values">(.*?)</script>', page.source, re.DOTALL)
    assert not set(data) & set("<>&\u2028\u2029")
    assert {item["name"] for item in json.loads(data)} == {HOSTILE, QUOTED}


def test_text_from_outside_stays_text(report):
    failure = {"image": HOSTILE, "variant": "scorecam", "error": "<img src=x onerror=alert(3)>"}
    model = MORE["model"] | {"name": "<b>model</b>"}
    methods = [Entry("scorecam", "<i>Score-CAM</i>"), METHODS[1]]
    more = {"failures": [failure], "model": model}
    page = report([HOSTILE, QUOTED], methods=methods, more=more, labels=["cat", "</title><script>alert(4)</script>"])
    assert len(page.of("script")) == 2
    assert not page.of("b", onerror="")
    assert not [key for _, has in page.elements for key in has if key.startswith("on")]
    assert not page.of("i")
    assert page.cards() == [HOSTILE, QUOTED] or page.cards() == [QUOTED, HOSTILE]
    text = "".join(page.text)
    for shown in (HOSTILE, QUOTED, failure["error"], model["name"], methods[0].title, "</title><script>alert(4)"):
        assert shown in text


def test_a_name_that_is_not_unicode_is_no_obstacle(report):
    assert "odd-?.png" in "".join(report([os.fsdecode(b"odd-\xff.png"), "plain.png"]).text)


@pytest.mark.slow
def test_bold_is_what_is_better_than_every_other_method(report):
    def scores(image, method):
        # The second method has the better Average Gain throughout; the first its Average Drop on half of the images
        # only; a baseline the lowest complexity.
        noise = 5 * (-1) ** image
        return {
            "average-gain": 50 + 5 * (method == 1) + image / 10,
            "average-drop": 20 + noise * (method == 0),
            "complexity": 1.0 if method == 2 else 30.0,
        }

    page = report(names(16), scores, wanted=("average-drop", "average-gain", "complexity"))
    rows = re.findall(r'<tr>\n<th scope="row" data-value="([^"]+)">(.*?)</tr>', page.source, re.DOTALL)
    bold = {title: re.findall(r'class="best">([\d.]+)<', row) for title, row in rows}
    assert len(bold) == 5
    assert bold.pop("IS-CAM (samples 4)") == ["55.75"]
    assert not any(bold.values())


@pytest.mark.slow
@pytest.mark.parametrize(("count", "intervals"), [(9, False), (10, True)])
def test_bands_and_what_is_said_of_intervals_begin_at_ten_images(report, count, intervals):
    page = report(names(count), wanted=("insertion-zero", "deletion-zero"))
    assert page.source.count("<polygon") == (2 * len(METHODS + baselines(0)) if intervals else 0)
    assert ("the 95&nbsp;% interval of the mean" in page.source) == intervals
    assert ("9 images: too few to call anything better" in page.source) != intervals


@pytest.mark.slow
def test_the_verdict_comes_first_and_a_method_that_a_baseline_beats_is_marked(report):
    def scores(image, method):
        # The first method is the better one throughout; the first baseline is better than the second method.
        return {"average-gain": (50.0, 30.0, 40.0, 10.0, 20.0)[method] + image / 10 + (image * (method + 3)) % 5 / 5}

    page = report(names(16), scores, wanted=("average-gain",))
    told = " ".join("".join(page.text).split())
    assert "Score-CAM is better than IS-CAM (samples 4) on Average Gain." in told
    assert "Random weights (a baseline) is better than IS-CAM (samples 4) on Average Gain." in told
    assert told.index("Verdict") < told.index("Means") < told.index("Paired differences")
    rows = re.findall(r'<tr>\n<th scope="row" data-value="([^"]+)">(.*?)</tr>', page.source, re.DOTALL)
    assert [title for title, row in rows if 'class="beaten"' in row] == ["IS-CAM (samples 4)"]


@pytest.mark.slow
def test_a_single_method_is_not_bold(report):
    assert 'class="best"' not in report(names(5), methods=METHODS[:1]).source


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "wanted", "first"),
    [("adcc", ADCC, "photo-39.png"), ("average-drop", ("average-drop",), "photo-00.png")],
)
def test_the_gallery_has_the_best_and_the_worst_in_turn(report, metric, wanted, first):
    page = report(names(40), lambda image, method: {metric: 2.0 * image + method / 10}, wanted=wanted)
    ranks = re.findall(r'class="rank (\w+)">(\w+ \d+)<', page.source)
    ascending, descending = names(40)[:12], names(40)[:-13:-1]
    best, worst = (descending, ascending) if first == "photo-39.png" else (ascending, descending)
    assert page.cards() == [name for pair in zip(best, worst, strict=True) for name in pair]
    assert ranks[:3] == [("best", "best 1"), ("worst", "worst 1"), ("best", "best 2")]


@pytest.mark.slow
def test_baselines_do_not_choose_the_gallery(report):
    page = report(names(40), lambda image, method: {"adcc": float(image if method < 2 else 1000 * (image == 20))})
    assert "photo-20.png" not in page.cards()
    assert page.cards()[0] == "photo-39.png"


def test_a_photograph_that_is_gone_or_broken_is_left_out(report):
    page = report(names(4), gone=["photo-01.png"])
    assert sorted(page.cards()) == ["photo-00.png", "photo-02.png", "photo-03.png"]
    assert "photo-01.png" not in page.source


@pytest.mark.long
def test_many_methods_leave_room_for_fewer_photographs(report):
    methods = [Entry(f"scorecam:budget={number}", f"Score-CAM {number}") for number in range(1, 33)]
    page = report(names(24), methods=methods, wanted=ADCC)
    assert len(page.cards()) == 10
    looks = re.findall(r"^\.s(\d+) .*--dash: ([^;]+);", page.source, re.MULTILINE)
    colours = dict(re.findall(r"^  --s(\d+): ([^;]+);", page.source, re.MULTILINE))
    marks = dict(re.findall(r'class="key s(\d+)".*?href="#(mark-\d)"', page.source))
    assert len({(colours[number], dash, marks[number]) for number, dash in looks}) == 35


def test_a_card_shows_the_crop_and_the_map_on_it(report):
    page = report(["one.png"], wanted=ADCC)
    pictures = {has["alt"]: _decoded(has["src"]) for has in page.of("img")}
    photograph = pictures["The photograph one.png, cropped as the model sees it"]
    assert photograph.shape == (107, 160, 3)
    np.testing.assert_allclose(photograph[50, 20], [220, 30, 20], atol=8)
    np.testing.assert_allclose(photograph[50, 140], [0, 0, 100], atol=8)
    laid = pictures["Map of Score-CAM on one.png"]
    # The picture alone where the map is 0, and 65 % of turbo's (122, 4, 3) where it is 1.
    np.testing.assert_allclose(laid[50, 20], [220, 30, 20], atol=8)
    np.testing.assert_allclose(laid[50, 140], [79, 3, 37], atol=8)


def _decoded(address):
    encoded = np.frombuffer(base64.b64decode(address.removeprefix("data:image/jpeg;base64,")), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_differences_between_baselines_are_left_out_and_those_to_them_are_folded(report):
    page = report(names(6), wanted=("average-drop",))
    open_part, folded = page.source.split("<summary>Against baselines: 6 pairs</summary>")
    titles = ["Random weights", "Mean activation", "Centred Gaussian"]
    between = open_part[open_part.index('<table class="differences"') :]
    against = folded[: folded.index("</table>")]
    assert between.count('<tr role="row">\n<th scope="row"') == 1
    assert not any(title in between for title in titles)
    assert against.count('<tr role="row">\n<th scope="row"') == 6
    assert all(against.count(title) == 2 for title in titles)


def test_one_image_one_method_and_nothing_measured_of_some_are_enough_for_a_page(report):
    page = report(["one.png"], methods=METHODS[:1], wanted=("win", "pointing", "box-area", "complexity"))
    assert "Pointing game" not in "".join(page.text)
    assert "Complexity" in "".join(page.text)
    assert not page.of("figure", **{"class": "curves"})
    assert "nan" not in page.source.lower().replace("dominant", "")


def test_the_check_of_weights_is_shown_where_it_was_made(report):
    found = {"mean": 0.25, "low": -0.125, "high": 0.5, "n": 4}
    randomized = {
        "scorecam": [{"depth": 0.0, **found}, {"depth": 0.5, **found}],
        "iscam:samples=4": [{"depth": 0.5, **found, "mean": 0.75}],
    }
    text = " ".join("".join(report(names(3), more={"randomized": randomized}).text).split())
    assert "Randomised weights" in text
    assert "0.25−0.12 to 0.50" in text
    assert "IS-CAM (samples 4) – 0.75" in text


@pytest.mark.slow
def test_it_is_no_larger_than_it_must(report):
    assert report(names(30)).path.stat().st_size < 1_000_000
