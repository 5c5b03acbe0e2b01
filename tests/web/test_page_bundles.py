"""Bundles of one's own on the page: damaged ones are refused, and none is asked for elsewhere."""

import json

import pytest
from tests.web.conftest import SHIPPED

more = pytest.mark.slow


def truncate(bundle):
    path = bundle / "weights.bin"
    path.write_bytes(path.read_bytes()[:1000])


def alter(bundle):
    path = bundle / "features.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose(bundle):
    (bundle / "features.onnx").unlink()


def rewrite(**entries):
    def change(bundle):
        path = bundle / "bundle.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("altered", alter, "altered/features.onnx: altered, its SHA-256 is not the one in bundle.json"),
        ("lost", lose, "lost/features.onnx: missing, the server answers 404"),
        *(
            pytest.param(*case, marks=more)
            for case in (
                ("truncated", truncate, "truncated/weights.bin: truncated, 1000 bytes instead of 1470720; copy or"),
                ("newer", rewrite(schema=99), "newer/bundle.json: schema 99 is newer than this page reads (5)"),
                ("wrong", rewrite(labels=[]), "wrong/bundle.json.labels is []: accepted is a list of texts"),
                (
                    "strange",
                    rewrite(activation="relu"),
                    'activation is "relu": accepted is softmax or sigmoid or identity',
                ),
            )
        ),
    ],
)
def test_a_damaged_bundle_is_refused(fresh, name, damage, message):
    visit = fresh
    damage(visit.site.add_bundle(name, SHIPPED))
    visit.open(f"?bundle={name}", state="broken")
    assert message in visit.error
    assert visit.tab.is_disabled("#file")
    if name == "lost":
        visit.complaints.clear()  # the browser says it, too, if it comes to that


@pytest.mark.slow
@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/x",
        *(pytest.param(other, marks=more) for other in ("//example.org/x", "data:text/plain,x", "\\\\example.org")),
    ],
)
def test_a_bundle_from_elsewhere_is_refused_without_asking_for_it(fresh, address):
    visit = fresh
    visit.open(f"?bundle={address}", state="broken")
    assert "accepted is a relative path on this site" in visit.error
    assert not [asked for asked in visit.requests if not asked.startswith(visit.site.address)]
