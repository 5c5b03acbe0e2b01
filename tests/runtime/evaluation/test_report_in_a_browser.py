"""The page of an evaluation in a browser: nothing is refused, and tables, curves and gallery do as they are told."""

import re
import subprocess
from urllib.parse import urlencode

import pytest
from tests.runtime.evaluation.pages import HOSTILE, METHODS, QUOTED, names, policy_name

from ortcam.evaluation.entries import Entry

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


def cards_in(document):
    return re.findall(r'alt="The photograph (.*?), cropped as', document)


def methods_in(document):
    return re.findall(r'<th scope="row" data-value="([^"]+)"', document)


@pytest.mark.slow
def test_a_browser_loads_it_without_complaint(report, browse):
    document, complaints = browse(report([HOSTILE, QUOTED, *names(3)], more={"failures": []}).path)
    assert complaints == []
    assert 'data-ready="true"' in document
    assert '<div class="sorting">' in document
    assert 'button type="button" disabled' not in document


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_the_browsers_complaints_are_seen(report, browse, changed):
    page = report(names(2))
    assert any("lost" in line for line in browse(changed(page, "null.lost"))[1])
    outside = changed(page, "document.body.append(Object.assign(new Image(), {src: 'http://localhost:9/x.png'}))")
    assert any("Content Security Policy" in line for line in browse(outside)[1])


@pytest.mark.slow
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


@pytest.mark.long
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


@pytest.mark.long
def test_nonsense_in_the_address_changes_nothing(report, browse):
    page = report(names(5))
    document, complaints = browse(page.path, sort="x", order="y", column="<b>", direction="z")
    assert complaints == []
    assert cards_in(document) == cards_in(page.source)
    assert methods_in(document) == methods_in(page.source)


@pytest.mark.long
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


@pytest.mark.long
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
