"""`ortcam web` without a browser: what it answers, to whom, and how it begins and ends."""

import gzip
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from tests.web.conftest import SHIPPED

from ortcam.bundle import read_bundle
from ortcam.cli import main
from ortcam.web.server import PageServer
from ortcam.web.site import page_folder, site_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle in a folder with a file that is none of its own."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(SHIPPED, folder / "my model.ortcam")
    (folder / "my model.ortcam" / "secret.txt").write_text("not yours", "utf-8")
    (folder / "secret.txt").write_text("not yours", "utf-8")
    return folder / "my model.ortcam"


@pytest.fixture(scope="module")
def server(bundle):
    with PageServer(site_of([("shapes", read_bundle(SHIPPED)), ("mine", read_bundle(bundle))])) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    """Status, headers and body of an answer; the path is sent as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(server.url).port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), body


def test_the_page_comes_isolated_and_under_its_policy(server):
    status, headers, body = ask(server, "/")
    assert status == 200
    assert body == (page_folder() / "index.html").read_bytes()
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"


@pytest.mark.slow
def test_onnx_runtime_is_sent_compressed_to_whoever_takes_it_and_asked_for_once(server):
    (packed,) = page_folder().glob("assets/*.wasm.gz")
    path = f"/assets/{packed.name.removesuffix('.gz')}"
    status, headers, body = ask(server, path, Accept_Encoding="gzip, br")
    assert (status, headers["Content-Encoding"], headers["Content-Type"]) == (200, "gzip", "application/wasm")
    assert "immutable" in headers["Cache-Control"]
    assert body == packed.read_bytes()
    status, headers, plain = ask(server, path, Accept_Encoding="identity")
    assert "Content-Encoding" not in headers
    assert plain == gzip.decompress(body)


def test_the_bundles_are_offered_and_served_with_nothing_beside_them(server, bundle):
    site = json.loads(ask(server, "/site.json")[2])
    shapes, mine = site["bundles"]
    assert [shapes["name"], mine["name"]] == ["shapes", "mine"]
    assert all(ask(server, f"/{sample}")[1]["Content-Type"] == "image/png" for sample in shapes["samples"])
    assert all(ask(server, f"/{sample}")[1]["Content-Type"] == "image/jpeg" for sample in mine["samples"])
    assert ask(server, f"/{mine['address']}bundle.json")[2] == (bundle / "bundle.json").read_bytes()
    for path in (
        f"/{mine['address']}secret.txt",
        f"/{mine['address']}../secret.txt",
        f"/{mine['address']}%2e%2e/secret.txt",
        f"/{mine['address']}..%2fsecret.txt",
        f"/{mine['address']}",
        "/../page_server.py",
        "/..%5cpage_server.py",
        "//etc/passwd",
        "/_headers",
        "/%00",
        "*",
    ):
        status, headers, body = ask(server, path)
        assert status == 404, path
        assert b"yours" not in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_what_did_not_change_is_not_sent_again(server):
    status, headers, body = ask(server, "/site.json")
    assert ask(server, "/site.json", If_None_Match=headers["ETag"])[::2] == (304, b"")
    status, only, empty = ask(server, "/site.json", method="HEAD")
    assert (status, only["Content-Length"], empty) == (200, str(len(body)), b"")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]:80", ""])
def test_a_name_that_only_points_here_is_refused(server, host):
    assert ask(server, "/", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.0.0.1:1"])
def test_this_machine_may_call_itself_as_it_likes_and_forward_a_port(server, host):
    assert ask(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_accepted(server, method):
    assert ask(server, "/", method=method)[0] == 501


def test_it_listens_on_this_machine_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.slow
def test_a_port_in_use_is_one_clear_error(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["web", "--no-browser", "--port", str(port)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip() == (
        f"ortcam: port={port} is in use by another program: accepted is another port, or 0 for any free one"
    )


# Of a job in the background SIGINT is ignored, and Python then keeps it so.
INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ortcam.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_it_prints_the_address_and_ends_by_ctrl_c(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, "web", str(SHIPPED), "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        line = running.stdout.readline()
        address = line.split()[0]
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(address).port, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200  # and the connection stays open
        running.send_signal(signal.SIGINT)
        try:
            rest, complaints = running.communicate(timeout=30)
        finally:
            running.kill()  # nothing where it has ended
        connection.close()
    assert running.returncode == 0
    assert line == f"{address} (Ctrl-C ends it)\n"
    assert (rest, complaints) == ("", "")
