"""What a benchmark writes: NAME.md for people, NAME.json with figures for `benchmarks.compare.changes`, and raw data.

NAME.json begins with the machine, the versions, the command and the date; `figures` has a line per figure. It is
committed. NAME-raw.json has every number in the benchmark's own form. It is not: it is long, and the command makes it
again. `--keep` and runs that go on where they were read it.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.common.figures import Figure

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "results"


def raw_path(stem: Path) -> Path:
    """The file of the raw data that belongs to STEM.md and STEM.json."""
    return stem.with_name(f"{stem.name}-raw.json")


def figure_files() -> list[Path]:
    """The results with figures, which are committed, by name."""
    return sorted(path for path in RESULTS.glob("*.json") if not path.stem.endswith("-raw"))


def write_results(stem: Path, *, run: Mapping[str, Any], raw: Mapping[str, Any], figures: Iterable[Figure]) -> None:
    """Write STEM.json, the run with the figures, and STEM-raw.json, the run with the raw data.

    Args:
        stem: of the files.
        run: from `describe_run`.
        raw: in the benchmark's own form; its `settings` are in both files.
        figures: of the raw data.
    """
    settings = {"settings": raw["settings"]} if raw.get("settings") else {}
    head = {**run, **settings}
    write_text(stem.with_suffix(".json"), figures_document(head, [figure.summary.as_json() for figure in figures]))
    write_text(raw_path(stem), json.dumps({**run, **raw}, indent=1, default=_plain) + "\n")


def figures_document(head: Mapping[str, Any], figures: Iterable[Mapping[str, Any]]) -> str:
    """JSON with a line per entry of the head and a line per figure."""
    entries = [f" {json.dumps(key)}: {json.dumps(value, default=_plain)},\n" for key, value in head.items()]
    lines = ",\n".join(f"  {json.dumps(item, default=_plain)}" for item in figures)
    return "{\n" + "".join(entries) + ' "figures": [\n' + lines + "\n ]\n}\n"


def read_raw(stem: Path) -> dict[str, Any]:
    """The raw data of an earlier run; empty where this machine has none, which is told."""
    path = raw_path(stem)
    if not path.is_file():
        print(f"{path}: not there, so nothing of an earlier run is kept", file=sys.stderr, flush=True)
        return {}
    raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return raw


def earlier_models(stem: Path, run: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The models in an earlier result of the same machine, versions and settings, for `--keep`.

    Args:
        stem: of the files; nothing is kept where there is no raw data.
        run: from `describe_run`.
        settings: of this run.
    """
    raw = read_raw(stem)
    if not raw:
        return {}
    now = {"cpu": run["machine"]["cpu"], "versions": run["versions"], "settings": json.loads(json.dumps(settings))}
    then = {"cpu": raw["machine"]["cpu"], "versions": raw["versions"], "settings": raw.get("settings")}
    if changed := [key for key in now if now[key] != then[key]]:
        raise SystemExit(f"--keep: {raw_path(stem)} has other {', '.join(changed)}")
    models: dict[str, Any] = raw["models"]
    return models


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that a run that is stopped leaves no half of one."""
    # Here, so that no peer is measured with what ortcam imports.
    from ortcam.support.files import make_folder, write_whole
    from ortcam.support.unfinished import clear

    make_folder(path.parent)
    clear(path.parent)
    write_whole(path, text.encode(), durable=True)


def _plain(value: object) -> object:
    """NumPy's numbers and paths for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
