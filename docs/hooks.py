"""What the site is made of beside the pages in docs/: the reference from the code, and files of the repository.

A line `<!-- generate: NAME -->` in a page is replaced by what a function of this module makes from the code, so that
the reference cannot fall behind. CHANGELOG.md, SECURITY.md, CONTRIBUTING.md and the tables of the benchmarks stand in
the repository and become pages, too. A link from one of the pages to a file of the repository leads to its page here,
or, where there is none (code), becomes plain text. Notebooks become pages with what they printed.
"""

import argparse
import dataclasses
import inspect
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]

# Pages that stand elsewhere in the repository.
MIRRORED: Final = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "llms.txt": "llms.txt",
    "README.md": "index.md",
} | {
    path.relative_to(ROOT).as_posix(): f"results/{path.name}"
    for path in sorted((ROOT / "benchmarks" / "results").iterdir())
    if path.suffix in (".md", ".png")
}

_LINK: Final = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<target>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)")
_FENCE: Final = re.compile(r"^( *)(```+|~~~+).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_MARKER: Final = re.compile(r"^<!-- generate: ([a-z-]+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that are pages here."""
    for source, place in MIRRORED.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        for file in notebook_files(path, config):
            files.append(file)
        if (raw := files.get_file_from_path(f"notebooks/{path.name}")) is not None:
            files.remove(raw)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in what is generated, and lead links into the repository to where they lead here."""
    markdown = _MARKER.sub(lambda found: GENERATORS[found[1]](), markdown)
    return with_links(markdown, page.file.src_uri, {file.src_uri for file in files})


def with_links(markdown: str, place: str, known: set[str]) -> str:
    """The text with links that hold on the site.

    Args:
        markdown: of a page.
        place: of the page, on the site.
        known: every file of the site.
    """
    source = next(
        (name for name, mirror in MIRRORED.items() if mirror == place and mirror != "index.md"), f"docs/{place}"
    )

    def moved(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        here = MIRRORED.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        here = here.removesuffix(".ipynb") + ".md" if here.endswith(".ipynb") else here
        if here not in known and source.startswith("docs/") and path.startswith("docs/"):
            return found[0]  # a link inside the pages that leads nowhere: mkdocs says so
        if here not in known:
            return found["text"].lstrip("!")[1:-1]
        new = posixpath.relpath(here, posixpath.dirname(place) or ".")
        return f"{found['text']}({new}{'#' + anchor if anchor else ''}{found['title'] or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[end:])])


def notebook_files(path: Path, config: MkDocsConfig) -> Iterator[File]:
    """A notebook as a page, and the images that it shows."""
    notebook = json.loads(path.read_text("utf-8"))
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            for output in cell.get("outputs", ()):
                parts += _output(output)
    yield File.generated(config, f"notebooks/{path.stem}.md", content="\n\n".join(parts) + "\n")


def _output(output: Mapping[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    kind = next((kind for kind in ("image/png", "image/jpeg") if kind in data), None)
    if kind is not None:
        encoded = "".join("".join(data[kind]).split())
        yield f'<img alt="what the cell shows" src="data:{kind};base64,{encoded}">'
    elif "text/html" in data:
        yield "".join(data["text/html"])
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield f"```text\n{text}\n```"


def command_line() -> str:
    """Every command with all its flags, from the parser."""
    from ortcam.cli.main import make_parser

    parser: Any = make_parser()
    parts = []
    for name, command in parser.commands.items():
        description = (command.description or "").replace("%%", "%").partition("\nexample")[0]
        usage = command.format_usage().removeprefix("usage: ").strip()
        parts.append(f"## ortcam {name}\n\n{_escaped(description)}\n\n```text\n{usage}\n```\n")
        parts.append("```text\n" + "\n".join(getattr(command, "examples", ())) + "\n```\n")
        for group in command._action_groups:
            actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
            if actions:
                title = (group.title or "").capitalize() if not (group.title or "").startswith("MODEL") else group.title
                rows = "\n".join(map(_row, actions))
                parts.append(f"**{_escaped(title or '')}**\n\n| flag | meaning |\n|---|---|\n{rows}\n")
        if command.epilog:
            parts.append(f"```text\n{command.epilog.strip()}\n```\n")
    return "\n".join(parts)


def _name_of(action: argparse.Action) -> str:
    metavar = action.metavar if action.metavar is not None else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    words = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if isinstance(action.nargs, int) and not isinstance(metavar, tuple):
        words = " ".join([words] * action.nargs)
    return f"{words}..." if action.nargs in ("+", "*") else words


def _row(action: argparse.Action) -> str:
    takes = "" if action.nargs == 0 else " " + _name_of(action)
    names = ", ".join(f"`{flag}{takes if flag == action.option_strings[-1] else ''}`" for flag in action.option_strings)
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    text = text.replace("%(methods)s", str(getattr(action, "methods", "")))
    bounds = getattr(action.type, "bounds", "")
    default = action.default
    told = default in (None, False, argparse.SUPPRESS) or default == [] or "default" in text or action.nargs == 0
    text += "" if told else f" (default: {default})"
    text += f"; accepted: {bounds}" if bounds and bounds not in text else ""
    return f"| {names or f'`{_name_of(action)}`'} | {_escaped(text)} |"


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_\[\]])", r"\\\1", " ".join(text.split()))


def methods() -> str:
    """Every method with its names and options, from the tables in `ortcam.methods`."""
    from ortcam.methods import METHODS

    parts = []
    for method in METHODS:
        also = f" Also called {', '.join(f'`{alias}`' for alias in method.aliases)}." if method.aliases else ""
        parts.append(f"### {method.name}\n\n{method.title}.{also}\n")
        parts.append(_options(method.options) if method.options else "No options.\n")
    return "\n".join(parts)


def auto() -> str:
    """What `auto` takes for each kind of bundle, and why, from its table."""
    from ortcam.methods.auto import AUTO, KINDS

    rows = []
    for row in AUTO:
        given = "".join(f", `{name}={value}`" for name, value in row.arguments.items())
        rows.append(f"| {_escaped(KINDS[row.kind])} | `{row.method}`{given} | {_escaped(row.reason)} |")
    return "| the bundle has | taken | because |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def common_options() -> str:
    """The options that every method has."""
    from ortcam.methods import COMMON_OPTIONS

    return _options(COMMON_OPTIONS)


def _options(options: Iterable[Any]) -> str:
    rows = [
        f"| `{o.name}` | `{str(o.default).lower() if isinstance(o.default, bool) else o.default}` "
        f"| {_escaped(o.accepted)} | {_escaped(o.help)} |"
        for o in options
    ]
    return "| option | default | accepted | what it does |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def measures() -> str:
    """The metrics of the server."""
    from ortcam.serve.monitoring import MEASURES

    rows = [
        f"| `{item.name}{'_total' if item.kind == 'counter' else ''}` | {item.kind} "
        f"| {', '.join(f'`{label}`' for label in item.labels)} | {_escaped(item.help)} |"
        for item in MEASURES
    ]
    return "| name | type | labels | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def presets() -> str:
    """The presets of the preprocessing, and the calls that each stands for."""
    from ortcam.images.presets import PRESETS

    rows = [
        f"| `{name}` | {preset.channel_order.upper()} | {preset.scale:g} "
        f"| {_numbers(preset.mean)} | {_numbers(preset.std)} | {_escaped(preset.calls)} |"
        for name, preset in PRESETS.items()
    ]
    return "| preset | channels | scale | mean | std | stands for |\n|---|---|---|---|---|---|\n" + "\n".join(rows)


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else ", ".join(f"{value:.4g}" for value in values)


def bundle_schema() -> str:
    """The entries of bundle.json, from its JSON Schema."""
    schema = json.loads((ROOT / "runtime" / "ortcam" / "bundle" / "bundle.schema.json").read_text("utf-8"))
    parts = []
    for name, part in schema["$defs"].items():
        if "properties" not in part:
            continue
        rows = [
            f"| `{key}` | {_kind(value)} | {_escaped(value.get('description', ''))} |"
            for key, value in part["properties"].items()
        ]
        parts.append(f"### {name}\n\n{_escaped(part.get('description', ''))}\n")
        parts.append("| entry | type | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _kind(value: Mapping[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name != "FileName" else "file name"
    if "anyOf" in value:
        return " or ".join(_kind(item) for item in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{json.dumps(item)}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kinds = value.get("type", "any")
    if isinstance(kinds, list):
        return " or ".join(kinds)
    if kinds == "array" and isinstance(value.get("items"), Mapping):
        return f"list of {_kind(value['items'])}"
    if kinds == "object" and isinstance(value.get("additionalProperties"), Mapping):
        return f"object of {_kind(value['additionalProperties'])}"
    return str(kinds)


def manifest() -> str:
    """The manifest of a real explanation: the shipped model, its image, a budget."""
    import contextlib
    import tempfile

    import ortcam
    from ortcam.bundle.shipped import bundle_path, demo_image

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        ortcam.load(bundle_path()).explain(demo_image(), budget=0.05).save(folder)
        written = json.loads((Path(folder) / "manifest.json").read_text("utf-8"))
    return f"```json\n{json.dumps(_shortened(written), indent=1, ensure_ascii=False)}\n```"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, str):
        value = value.replace(str(ROOT), "...")
    return value[:12] + "..." if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value


def server_settings() -> str:
    """What the server can be told, from the class that holds it."""
    from ortcam.serve.settings import Settings

    told = _attributes(Settings)
    rows = []
    for field in dataclasses.fields(Settings):
        if field.name not in ("bundles", "limits"):
            default = "" if field.default is dataclasses.MISSING else _in_toml(field.default)
            name = "token_file" if field.name == "token" else field.name
            rows.append(f"| `{name}` | {default} | {_escaped(told[field.name])} |")
    return "| setting | default | meaning |\n|---|---|---|\n" + "\n".join(rows)


def _in_toml(value: Any) -> str:
    return "" if value is None or value == () else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def server_limits() -> str:
    """What one request may cost, from the class that holds it."""
    from ortcam.serve.settings import LIMIT_RANGES, RequestLimits

    told, defaults = _attributes(RequestLimits), RequestLimits()
    rows = [f"| `{name}` | {getattr(defaults, name)} | {_escaped(told[name])} |" for name in LIMIT_RANGES]
    return "| limit | default | meaning |\n|---|---|---|\n" + "\n".join(rows)


def server_parameters() -> str:
    """What every request may ask for."""
    from ortcam.serve.protocols.asked import PARAMETERS

    rows = "\n".join(f"| `{name}` | {_escaped(text)} |" for name, text in PARAMETERS.items())
    return f"| parameter | meaning |\n|---|---|\n{rows}"


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute."""
    lines = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if not line.strip():
            break
        if not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            found[name] = text
        else:
            found[name] += f" {line.strip()}"
    return found


GENERATORS: Final[Mapping[str, Callable[[], str]]] = {
    "command-line": command_line,
    "methods": methods,
    "auto": auto,
    "common-options": common_options,
    "bundle-schema": bundle_schema,
    "manifest": manifest,
    "measures": measures,
    "presets": presets,
    "server-limits": server_limits,
    "server-parameters": server_parameters,
    "server-settings": server_settings,
}
