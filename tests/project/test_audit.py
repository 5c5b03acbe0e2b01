"""`make audit`: what it says of advisories, by a service of advisories on this machine that speaks as OSV's does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.project.audit import Report, ask, verdict

pytestmark = pytest.mark.slow

ADVISORIES = {
    ("tqdm", "4.66.0"): [("GHSA-g7vv-2v7x-gj9p", ["CVE-2024-34062"], "4.66.3")],
    ("jinja2", "3.1.0"): [("GHSA-h5c8-rqwp-cp95", ["CVE-2024-22195"], None)],
}


class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = query["package"]["name"], query["version"]
        found = [self.record(package[0], *each) for each in ADVISORIES.get(package, ())]
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def record(self, package, name, aliases, fixed):
        events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
        affected = [
            {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
        ]
        dates = {"published": "2024-01-01T00:00:00Z", "modified": "2024-01-01T00:00:00Z"}
        return {"id": name, "aliases": aliases, "summary": "wrong", "affected": affected, **dates}

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def report() -> Report:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        found = ask([*FOUR], f"http://127.0.0.1:{server.server_address[1]}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found is not None
    return found


FOUR = ("jinja2==3.1.0", "numpy==2.0.0", "tqdm==4.66.0", "tqdm==4.66.3")


def test_every_version_of_a_package_is_audited(report: Report) -> None:
    assert report.audited == len(FOUR)
    assert len(report.advisories) == 2


def test_an_advisory_is_named_with_its_package_and_the_version_that_mends_it(report: Report) -> None:
    (line,) = [line for line in verdict(report, {}) if line.startswith("tqdm 4.66.0: ")]
    assert "CVE-2024-34062" in line
    assert "mended in 4.66.3" in line


def test_an_advisory_without_a_mended_version_is_named_too(report: Report) -> None:
    (line,) = [line for line in verdict(report, {}) if line.startswith("jinja2 3.1.0: ")]
    assert "not mended yet" in line


@pytest.mark.parametrize("name", ["CVE-2024-34062", "GHSA-g7vv-2v7x-gj9p"])
def test_an_advisory_with_a_reason_is_accepted_by_any_of_its_names(report: Report, name: str) -> None:
    assert not [line for line in verdict(report, {name: "of its command line"}) if "tqdm" in line]


def test_an_accepted_advisory_that_applies_to_nothing_is_to_be_removed() -> None:
    (line,) = verdict(Report((), (), 1), {"CVE-2024-34062": "of its command line"})
    assert "CVE-2024-34062" in line
    assert "remove it" in line


def test_a_package_that_nobody_knows_is_not_called_audited() -> None:
    assert verdict(Report((), ("torch is not found",), 1), {}) == ["not audited: torch is not found"]


def test_a_source_that_cannot_be_reached_is_no_report() -> None:
    assert ask(["tqdm==4.66.0"], "http://127.0.0.1:9/") is None  # nothing listens on the port of discard
