"""The signature of a bundle: minisign signs bundle.json, which has the hashes of all other files.

The publisher of a bundle signs it with minisign 0.6 or later, or with any tool that writes its format:

    minisign -G                                  # once: minisign.pub and a secret key
    minisign -S -m BUNDLE/bundle.json            # writes BUNDLE/bundle.json.minisig

The format is that of https://jedisct1.github.io/minisign: Ed25519 of the BLAKE2b-512 of the file, and Ed25519 of that
signature with its trusted comment.
"""

import base64
import binascii
import dataclasses
import errno
import hashlib
import os
from pathlib import Path
from typing import Final

from ortcam.bundle.folder import Bundle
from ortcam.bundle.manifest import LARGEST_MANIFEST, MANIFEST_NAME
from ortcam.errors import BundleError, OptionError, OrtcamError
from ortcam.support.extras import missing

__all__ = ["SIGNATURE_NAME", "verify_signature"]

SIGNATURE_NAME: Final = f"{MANIFEST_NAME}.minisig"

_COMMENT: Final = "trusted comment: "
_MOST_BYTES: Final = 65_536  # of a signature or a key; minisign's have some hundred


@dataclasses.dataclass(frozen=True)
class _Signature:
    """The content of a signature file: the key, the two signatures, and the comment that the second one signs."""

    key_id: bytes
    signature: bytes
    comment: str
    comment_signature: bytes


def verify_signature(bundle: Bundle, public_key: str | os.PathLike[str]) -> str:
    """Verify that the holder of a key has signed this bundle, as it was read and not as the folder may be now.

    ```python
    bundle = ortcam.read_bundle("resnet18.ortcam")
    verify_signature(bundle, "minisign.pub")
    explainer = ortcam.load(bundle)
    ```

    Args:
        bundle: read, so its files have been checked against its bundle.json. `load` uses no others.
        public_key: of minisign: the path of its file, or the key itself, 56 characters that begin with "RW".

    Returns:
        The trusted comment of the signature.

    Raises:
        BundleError: no signature, a broken one, or one by another key or of another bundle.json.
        OptionError: not a public key.
        OrtcamError: the package cryptography is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - of an extra
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError as error:
        raise OrtcamError(missing("a signature", "sign", error)) from None
    key_id, key = _read_key(public_key)
    path = bundle.path / SIGNATURE_NAME
    try:
        signed = _read(bundle.path / MANIFEST_NAME, LARGEST_MANIFEST)
        signature = _parse_signature(_read(path, _MOST_BYTES).decode("utf-8", "replace"), path)
    except OSError as error:
        raise BundleError(f"{path}: no signature of this bundle can be read: {error.strerror}") from None
    if hashlib.sha256(signed).hexdigest() != bundle.sha256:
        raise BundleError(f"{bundle.path}: the bundle has changed since it was read")
    if signature.key_id != key_id:
        raise BundleError(
            f"{path}: signed with the key {_key_name(signature.key_id)}; accepted is {_key_name(key_id)}, that of "
            "--public-key"
        )
    verifier = Ed25519PublicKey.from_public_bytes(key)
    try:
        verifier.verify(signature.signature, hashlib.blake2b(signed).digest())
        verifier.verify(signature.comment_signature, signature.signature + signature.comment.encode())
    except InvalidSignature:
        raise BundleError(
            f"{path}: not the signature of this bundle.json: one of the two was altered, or another bundle was signed"
        ) from None
    return signature.comment


def _read_key(public_key: str | os.PathLike[str]) -> tuple[bytes, bytes]:
    """Read the number [8] and the key [32]."""
    text = os.fspath(public_key)
    accepted = "accepted is minisign's: the file minisign.pub, or the 56 characters in it that begin with RW"
    if not (len(text) == 56 and text.startswith("RW")):
        try:
            text = [*_read(Path(text), _MOST_BYTES).decode("ascii", "replace").split("\n"), ""][1].strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OptionError(f"public key {os.fspath(public_key)!r}: cannot be read: {reason}; {accepted}") from None
    data = _decode(text)
    if len(data) != 42 or data[:2] != b"Ed":
        raise OptionError(f"public key {os.fspath(public_key)!r}: {accepted}")
    return data[2:10], data[10:]


def _parse_signature(text: str, path: Path) -> _Signature:
    lines = text.split("\n")
    if len(lines) >= 4 and lines[2].startswith(_COMMENT):
        data, comment = _decode(lines[1]), _decode(lines[3])
        if len(data) == 74 and data[:2] == b"Ed":
            raise BundleError(f"{path}: a signature of the file and not of its hash; accepted is that of minisign 0.6")
        if len(data) == 74 and data[:2] == b"ED" and len(comment) == 64:
            return _Signature(data[2:10], data[10:], lines[2].removeprefix(_COMMENT).rstrip("\r"), comment)
    raise BundleError(f"{path}: not a signature; accepted is what `minisign -S -m bundle.json` writes")


def _read(path: Path, most: int) -> bytes:
    """Read a regular file, or its beginning."""
    if not path.is_file():  # a pipe would wait for a writer
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        return file.read(most)


def _decode(text: str) -> bytes:
    """Decode a text in Base64; no bytes if it is something else."""
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _key_name(key_id: bytes) -> str:
    """Name a key as minisign shows it."""
    return key_id[::-1].hex().upper()
