"""`ortcam cache`: the bundles that other commands have exported and kept."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from ortcam.cli.common import add_json
from ortcam.cli.parsers import add_command
from ortcam.models.cache import CacheEntry, clear_cache, entries, most_bytes
from ortcam.support.cache_folder import bundles_folder
from ortcam.support.terminal import json_text, say
from ortcam.support.words import counted

__all__ = ["add_cache"]

_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def add_cache(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "cache",
        _cache,
        help="list or clear the bundles that other commands have exported",
        description="List the bundles that were exported for a MODEL and kept, or remove them. ORTCAM_CACHE names "
        "another folder, or off; ORTCAM_CACHE_SIZE the most gigabytes that are kept (default: 10).",
        examples=("ortcam cache", "ortcam cache clear"),
    )
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", choices=("list", "clear"), default="list", help="list or clear"
    )
    add_json(parser)


def _cache(options: argparse.Namespace) -> int:
    folder = bundles_folder()
    if options.action == "clear":
        removed, kept = clear_cache()
        if options.json:
            print(json_text({"removed": _records(removed), "in_use": _records(kept)}))
            return 0
        say(f"removed {_counted(removed)}")
        for entry in kept:
            say(f"kept {entry.model}, which another process uses")
        return 0
    found = entries()
    if options.json:
        print(
            json_text(
                {
                    "folder": None if folder is None else str(folder),
                    "most_bytes": most_bytes(),
                    "bundles": _records(found),
                }
            )
        )
        return 0
    if folder is None:
        say("nothing is kept: ORTCAM_CACHE is off, or there is no home folder")
        return 0
    say(f"{folder}: {_counted(found)}, at most {most_bytes() / 1e9:g} GB")
    rows = [(entry.model, _size(entry.size), _ago(entry.last_used), entry.options) for entry in found]
    if rows:
        rows.insert(0, ("model", "size", "last used", "options"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[3]]).rstrip())
    return 0


def _records(found: Sequence[CacheEntry]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(entry) | {"folder": str(entry.folder)} for entry in found]


def _counted(found: Sequence[CacheEntry]) -> str:
    return f"{counted(len(found), 'bundle')}, {_size(sum(entry.size for entry in found))}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _ago(when: float) -> str:
    seconds = max(0.0, time.time() - when)
    length, unit = next(((length, unit) for length, unit in _UNITS if seconds >= length), _UNITS[-1])
    count = int(seconds / length)
    return f"{counted(count, unit)} ago"
