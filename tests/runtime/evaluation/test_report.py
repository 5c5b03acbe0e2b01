"""The page: what it shows and of whom, that no text breaks it, and that a browser loads and sorts it."""

import base64
import dataclasses
import hashlib
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest

from ortcam.evaluation.dataset import Example
from ortcam.evaluation.entries import Entry, baselines
from ortcam.evaluation.journal import Journal
from ortcam.evaluation.measuring import THUMBNAIL, Measurement
from ortcam.evaluation.protocols import resolve_protocol
from ortcam.evaluation.report.gallery import Photographs
from ortcam.evaluation.report.page import write_report
from ortcam.evaluation.report.verdict import reach_verdict
from ortcam.evaluation.results import collect, summarise
from ortcam.images.encoding import write_png
from ortcam.images.photograph import read_photograph
from ortcam.images.preprocessing import Preprocessing

HOSTILE = "</script><!--<script>alert(1)</script>\u2028.png"
QUOTED = "a\" onerror='alert(2)' {{ 7 * 7 }}.png"
METHODS = [Entry("scorecam", "Score-CAM"), Entry("iscam:samples=4", "IS-CAM (samples 4)")]
PREPROCESSING = Preprocessing(
    height=32, width=48, resize=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), channel_order="bgr", scale=255.0
)
MORE = {
    "settings": {"bundle": "c981" * 16, "images": "photographs", "annotations": None, "seed": 0, "metrics": ["adcc"]},
    "protocol": dataclasses.asdict(resolve_protocol("soft-map")),
    "model": {"name": "tiny", "source": "onnx", "weights": None, "weights_sha256": None},
    "providers": ["CPUExecutionProvider"],
    "versions": {"ortcam": "1.2.3", "onnxruntime": "1.20"},
    "failures": [],
    "notes": [],
}
METRICS = ("average-drop", "increase", "win", "insertion-zero", "deletion-zero", "coherency", "complexity", "adcc")
ADCC = ("average-drop", "coherency", "complexity", "adcc")  # and what it is made of


@pytest.fixture
def report(tmp_path):
    """A function that measures nothing, writes a report of what it is told, and returns the page and its path."""

    def read(path):
        return read_photograph(path, PREPROCESSING, max_pixels=10_000)

    def write(names, scores=None, *, methods=METHODS, wanted=METRICS, more=None, gone=(), labels=()):
        """`scores(image, method)`, numbered from 0, gives scores by metric; baselines are the last three methods."""
        entries = [*methods, *baselines(0)]
        examples = [Example(name, tmp_path / "photographs" / name) for name in names]
        share = np.linspace(0, 1, 11)
        with Journal(tmp_path / "out", {}, resume=False) as journal:
            for image, example in enumerate(examples):
                if example.name not in gone:
                    example.path.parent.mkdir(parents=True, exist_ok=True)
                    example.path.write_bytes(_png(tmp_path, image))
                for method, entry in enumerate(entries):
                    values = _scores(image, method) | (scores(image, method) if scores else {})
                    journal.add(_measurement(example.name, entry.name, values, wanted))
            results = collect(journal, set(names), entries, wanted, share)
            summary = summarise(results, resolve_protocol("soft-map"), seed=0)
            path = tmp_path / "out" / "report.html"
            write_report(
                path,
                results,
                summary,
                reach_verdict(results, summary),
                journal,
                Photographs(examples, read, PREPROCESSING, labels),
                MORE | (more or {}),
            )
        return Page(path)

    return write


def _png(folder, image):
    """Blue, with a red left half."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[..., 2] = 100 + image
    pixels[:, :24] = 220, 30, 20
    write_png(folder / "picture.png", pixels)
    return (folder / "picture.png").read_bytes()


def _scores(image, method):
    rng = np.random.default_rng((image, method))
    return dict.fromkeys(METRICS, 0.0) | {"adcc": rng.uniform(40, 60), "average-drop": rng.uniform(0, 30)}


def _measurement(name, entry, values, wanted):
    curves = {key: np.linspace(0.1, 0.9, 11).tolist() for key in wanted if key.startswith(("insertion", "deletion"))}
    thumbnail = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    thumbnail[:, THUMBNAIL // 2 :] = 255
    return Measurement(
        image=name,
        variant=entry,
        label=1,
        target=1,
        probability=0.75,
        clean=0.75,
        masked=values["adcc"] / 100,
        flat=False,
        seconds=0.5,
        passes=64,
        scores={key: values[key] for key in wanted if key in values and key != "win"},
        curves=curves,
        thumbnail=thumbnail,
    )


class Page(HTMLParser):
    """The page's elements in order, and its text."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.source = path.read_text("utf-8")
        self.elements, self.text = [], []
        self._silent = False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        if not self._silent:
            self.text.append(data)

    def of(self, tag, **wanted):
        return [has for name, has in self.elements if name == tag and wanted.items() <= has.items()]

    def cards(self):
        """Names of the photographs, in their order."""
        return re.findall(r"The photograph (.*?), cropped as", "\n".join(has["alt"] for has in self.of("img")))


def names(count):
    return [f"photo-{number:02}.png" for number in range(count)]


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


@pytest.mark.parametrize(("count", "intervals"), [(9, False), (10, True)])
def test_bands_and_what_is_said_of_intervals_begin_at_ten_images(report, count, intervals):
    page = report(names(count), wanted=("insertion-zero", "deletion-zero"))
    assert page.source.count("<polygon") == (2 * len(METHODS + baselines(0)) if intervals else 0)
    assert ("the 95&nbsp;% interval of the mean" in page.source) == intervals
    assert ("9 images: too few to call anything better" in page.source) != intervals


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


def test_a_single_method_is_not_bold(report):
    assert 'class="best"' not in report(names(5), methods=METHODS[:1]).source


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


def test_baselines_do_not_choose_the_gallery(report):
    page = report(names(40), lambda image, method: {"adcc": float(image if method < 2 else 1000 * (image == 20))})
    assert "photo-20.png" not in page.cards()
    assert page.cards()[0] == "photo-39.png"


def test_a_photograph_that_is_gone_or_broken_is_left_out(report):
    page = report(names(4), gone=["photo-01.png"])
    assert sorted(page.cards()) == ["photo-00.png", "photo-02.png", "photo-03.png"]
    assert "photo-01.png" not in page.source


@pytest.mark.slow
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


def test_it_is_no_larger_than_it_must(report):
    assert report(names(30)).path.stat().st_size < 1_000_000


# In a browser.

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=5000",
    "--dump-dom",
)


@pytest.fixture(scope="module")
def browse(chromium, tmp_path_factory):
    """A function from an address to the document that a browser makes of it, and what it complains of."""
    profile = tmp_path_factory.mktemp("profile")

    def load(path, **fragment):
        address = path.as_uri() + (f"#{urlencode(fragment)}" if fragment else "")
        command = [chromium, *SWITCHES, f"--user-data-dir={profile}", address]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return load


@pytest.fixture
def changed(tmp_path):
    """A function that writes a page with a script added to its end."""

    def write(page, script):
        path = tmp_path / "changed.html"
        source = page.source.replace("</body>", f"<script>{script}</script></body>")
        path.write_text(source.replace("script-src ", f"script-src '{policy_name(script)}' "), "utf-8")
        return path

    return write


def policy_name(script):
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def cards_in(document):
    return re.findall(r'alt="The photograph (.*?), cropped as', document)


def methods_in(document):
    return re.findall(r'<th scope="row" data-value="([^"]+)"', document)


def test_a_browser_loads_it_without_complaint(report, browse):
    document, complaints = browse(report([HOSTILE, QUOTED, *names(3)], more={"failures": []}).path)
    assert complaints == []
    assert 'data-ready="true"' in document
    assert '<div class="sorting">' in document
    assert 'button type="button" disabled' not in document


def test_a_table_that_goes_on_to_the_right_says_so_and_no_column_is_lost(report, browse, changed):
    script = """
      const table = document.querySelector(".means .scrolled");
      addEventListener("load", () => setTimeout(() => {
        table.querySelector(".scroll").dispatchEvent(new Event("scroll"));  // a busy headless browser draws no frames
        document.title = [table.dataset.more, table.querySelector(".hint").hidden,
          document.documentElement.scrollWidth <= innerWidth].join();
      }));
    """
    page = report(names(12))
    wide = browse(changed(page, script + "document.querySelector('.means').style.width = '3000px';"))
    assert "<title>,true," in wide[0]
    narrow = browse(changed(page, script + "document.body.style.width = '25rem';"))
    assert "<title>right,false,true</title>" in narrow[0]


def test_bands_of_many_methods_are_shown_one_by_one(report, browse, changed):
    methods = [*METHODS, Entry("cam", "CAM")]
    script = """
      const shown = () => [...document.querySelectorAll(".panels .band")].map((band) => getComputedStyle(band).display);
      const before = shown();
      document.querySelector("#key-1 button").click();
      document.title = [before.every((display) => display === "none"), shown().indexOf("inline") >= 0,
        shown().filter((display) => display === "inline").length, getComputedStyle(document.querySelector(
        ".panels .s0")).opacity < 0.5, document.querySelector("#key-1 button").getAttribute("aria-pressed")].join();
    """
    page = report(names(12), methods=methods, wanted=("insertion-zero", "deletion-zero"))
    assert "<title>true,true,2,true,true</title>" in browse(changed(page, script))[0]


@pytest.mark.slow
def test_the_browsers_complaints_are_seen(report, browse, changed):
    page = report(names(2))
    assert any("lost" in line for line in browse(changed(page, "null.lost"))[1])
    outside = changed(page, "document.body.append(Object.assign(new Image(), {src: 'http://localhost:9/x.png'}))")
    assert any("Content Security Policy" in line for line in browse(outside)[1])


def test_a_browser_runs_no_script_but_the_pages_own(report, browse, tmp_path):
    page = report(names(2))
    evils = ["<script>document.title = 'PWNED'</script>", "<img src=x onerror=\"document.title = 'PWNED'\">"]
    for number, evil in enumerate(evils):
        path = tmp_path / f"evil-{number}.html"
        path.write_text(page.source.replace("</body>", f"{evil}</body>"), "utf-8")
        document, complaints = browse(path)
        assert "<title>PWNED" not in document
        assert any("Content Security Policy" in line for line in complaints)
        assert 'data-ready="true"' in document


@pytest.mark.slow
def test_the_address_sorts_gallery_and_table(report, browse):
    adcc = 50.0, 90.0, 10.0, 70.0, 30.0
    page = report(names(5), lambda image, method: {"adcc": adcc[image] + method, "complexity": 10.0 + method})
    assert cards_in(page.source)[0] == "photo-01.png"
    document, complaints = browse(
        page.path, sort="adcc/iscam:samples=4", order="ascending", column="complexity", direction="descending"
    )
    assert complaints == []
    assert cards_in(document) == [f"photo-{number:02}.png" for number in (2, 4, 0, 3, 1)]
    assert "ADCC: IS-CAM (samples 4): 11.00" in document
    assert re.findall(r'aria-sort="(\w+)" data-column="complexity"', document) == ["descending"]
    # Within methods and within baselines, which stay below.
    assert methods_in(page.source)[:2] == ["Score-CAM", "IS-CAM (samples 4)"]
    assert methods_in(document) == [
        "IS-CAM (samples 4)",
        "Score-CAM",
        "Centred Gaussian",
        "Mean activation",
        "Random weights",
    ]


@pytest.mark.slow
def test_nonsense_in_the_address_changes_nothing(report, browse):
    page = report(names(5))
    document, complaints = browse(page.path, sort="x", order="y", column="<b>", direction="z")
    assert complaints == []
    assert cards_in(document) == cards_in(page.source)
    assert methods_in(document) == methods_in(page.source)


def test_clicks_sort_and_a_second_one_turns_round(report, browse, changed):
    page = report(names(3), lambda image, method: {"average-drop": 10.0 + image + method, "adcc": 50.0 + image})
    script = """
      const button = document.querySelector("[data-column=average-drop] button");
      const first = () => document.querySelector("#table tbody th").dataset.value;
      const seen = [];
      for (let click = 0; click < 2; click++) { button.click(); seen.push(first()); }
      const select = document.getElementById("sort");
      select.value = "name";
      select.dispatchEvent(new Event("change"));
      document.documentElement.dataset.seen = seen.join();
      document.documentElement.dataset.address = location.hash;
    """
    document, complaints = browse(changed(page, script))
    assert complaints == []
    assert 'data-seen="Score-CAM,IS-CAM (samples 4)"' in document
    assert 'data-address="#column=average-drop&amp;direction=descending&amp;sort=name&amp;order=ascending"' in document
    assert cards_in(document) == names(3)


@pytest.mark.slow
def test_it_fits_a_phone(report, browse, changed, tmp_path):
    page = report([HOSTILE, "a-name-without-a-single-space-" * 5 + ".png"])
    changed(page, "parent.postMessage([document.documentElement.scrollWidth, innerWidth].join('/'), '*')")
    # Chromium's windows are no narrower than 500 pixels, but frames are.
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<!DOCTYPE html><script>addEventListener('message', (event) => document.body.append(event.data))</script>"
        "<iframe src='changed.html' style='width: 390px; height: 844px; border: 0'></iframe>"
    )
    assert "390/390" in browse(frame)[0]
