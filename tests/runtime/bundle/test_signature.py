"""A signature of bundle.json is that of the bundle that was read, by the key that was given, or an error."""

import base64
import dataclasses
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import ortcam
from ortcam.bundle import MANIFEST_NAME, read_bundle
from ortcam.bundle.shipped import bundle_path
from ortcam.bundle.signature import SIGNATURE_NAME, verify_signature
from ortcam.cli import main
from ortcam.errors import BundleError, OptionError
from ortcam.support.extras import install

# By minisign itself, of the four bytes "test": from the documentation of minisign-verify, a reader of the format.
MINISIGN_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
MINISIGN_SIGNATURE = """untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1556193335\tfile:test
y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==
"""

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = b"ortcam-1"


def public_text(key: Ed25519PrivateKey = KEY, key_id: bytes = KEY_ID) -> str:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(b"Ed" + key_id + public).decode()


def signature_text(
    signed: bytes, *, key: Ed25519PrivateKey = KEY, kind: bytes = b"ED", comment: str = "timestamp:1", end: str = "\n"
) -> str:
    signature = key.sign(hashlib.blake2b(signed).digest() if kind == b"ED" else signed)
    lines = [
        "untrusted comment: whatever",
        base64.b64encode(kind + KEY_ID + signature).decode(),
        f"trusted comment: {comment}",
        base64.b64encode(key.sign(signature + comment.encode())).decode(),
    ]
    return end.join(lines) + end


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A signed bundle, and the key in a file beside it."""
    bundle = Path(shutil.copytree(bundle_path(), tmp_path / "signed.ortcam"))
    (bundle / SIGNATURE_NAME).write_text(signature_text((bundle / MANIFEST_NAME).read_bytes()))
    (tmp_path / "minisign.pub").write_text(f"untrusted comment: minisign public key\n{public_text()}\n")
    return bundle


def test_what_minisign_itself_has_signed_is_valid(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(b"test")
    (tmp_path / SIGNATURE_NAME).write_text(MINISIGN_SIGNATURE)
    sha256 = hashlib.sha256(b"test").hexdigest()
    bundle = dataclasses.replace(read_bundle(bundle_path()), path=tmp_path, sha256=sha256)
    assert verify_signature(bundle, MINISIGN_KEY) == "timestamp:1556193335\tfile:test"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_signed_bundle_is_valid_with_the_key_or_its_file(signed: Path, end: str) -> None:
    text = signature_text((signed / MANIFEST_NAME).read_bytes(), comment="prüfung", end=end)
    (signed / SIGNATURE_NAME).write_bytes(text.encode())
    bundle = ortcam.read_bundle(signed)
    for key in (signed.parent / "minisign.pub", str(signed.parent / "minisign.pub"), public_text()):
        assert verify_signature(bundle, key) == "prüfung"
    assert ortcam.load(bundle).labels


def test_one_altered_character_of_anything_is_refused(signed: Path) -> None:
    text = (signed / SIGNATURE_NAME).read_text()
    bundle = read_bundle(signed)
    first = text.index("\n") + 1  # nobody signs the comment before it
    for place in range(first, len(text) - 1, 3):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        (signed / SIGNATURE_NAME).write_text(changed)
        with pytest.raises(BundleError):
            verify_signature(bundle, public_text())
    manifest = (signed / MANIFEST_NAME).read_text()
    (signed / SIGNATURE_NAME).write_text(text)
    (signed / MANIFEST_NAME).write_text(manifest.replace('"mug"', '"jug"') + " ")
    with pytest.raises(BundleError, match="has changed since it was read"):
        verify_signature(bundle, public_text())
    with pytest.raises(BundleError, match="not the signature of this bundle"):
        verify_signature(read_bundle(signed), public_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (signature_text(b"another"), "not the signature of this bundle"),
        ("", "not a signature"),
        ("\n\n\n\n", "not a signature"),
        ("x" * 100_000, "not a signature"),
        (signature_text(b"", kind=b"Ed"), "a signature of the file and not of its hash"),
        (signature_text(b"").replace("trusted comment: ", "", 1), "not a signature|not the signature"),
    ],
)
def test_what_is_no_signature_of_this_bundle_is_refused(signed: Path, text: str, message: str) -> None:
    (signed / SIGNATURE_NAME).write_text(text)
    with pytest.raises(BundleError, match=message) as caught:
        verify_signature(read_bundle(signed), public_text())
    assert len(str(caught.value)) < 500


def test_a_signature_by_another_key_names_both(signed: Path) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(BundleError, match="signed with the key 312D6D616374726F; accepted is 3837363534333231"):
        verify_signature(read_bundle(signed), public_text(other, b"12345678"))
    with pytest.raises(BundleError, match="not the signature"):  # of the same number
        verify_signature(read_bundle(signed), public_text(other))


def test_an_unsigned_bundle_is_refused(signed: Path) -> None:
    (signed / SIGNATURE_NAME).unlink()
    with pytest.raises(BundleError, match="no signature of this bundle"):
        verify_signature(read_bundle(signed), public_text())


@pytest.mark.parametrize("key", ["", "nowhere.pub", "RW" + "x" * 54, "/dev/null", "\0", "RW" + "A" * 53 + "é"])
def test_what_is_no_key_is_refused(signed: Path, key: str) -> None:
    with pytest.raises(OptionError, match="accepted is minisign's"):
        verify_signature(read_bundle(signed), key)


def test_inspect_says_who_has_signed(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = str(signed.parent / "minisign.pub")
    assert main(["inspect", str(signed), "--verify-signature", "--public-key", key]) == 0
    assert "signature      of bundle.json, valid" in capsys.readouterr().out
    (signed / SIGNATURE_NAME).write_text(signature_text(b"another"))
    assert main(["inspect", str(signed), "--verify-signature", "--public-key", key]) == 2
    output = capsys.readouterr()
    assert output.out == ""  # nothing is said of a bundle that is not what it should be
    assert "not the signature" in output.err
    for arguments in (["--verify-signature"], ["--public-key", key]):
        assert main(["inspect", str(signed), *arguments]) == 2
        assert "give both or neither" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_package_the_command_that_installs_it_is_said(signed: Path) -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from ortcam.cli import main\n"
        f"sys.exit(main(['inspect', {str(signed)!r}, '--verify-signature', '--public-key', {public_text()!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert install("sign") in done.stderr
