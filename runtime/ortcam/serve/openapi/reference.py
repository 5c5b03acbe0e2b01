"""The page of `/docs`: an OpenAPI document as HTML. It has no script, and asks no other site for anything."""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final

from ortcam.serve.openapi.examples import SERVER
from ortcam.serve.openapi.parameters import Schema

__all__ = ["POLICY", "page", "with_address"]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d5dae1; --soft: #f4f6f8; --text: #1c2430; --quiet: #5b6675; --link: #0b57b8;
  --get: #14713d; --post: #0b57b8; --delete: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --line: #39424e; --soft: #1d232b; --text: #e4e9ef; --quiet: #9aa6b4;
  --link: #7db4ff; --get: #5fce8e; --post: #7db4ff; --delete: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.75rem; } h2 { margin: 2.5rem 0 .25rem; font-size: 1.3rem; }
h3 { margin: 1.25rem 0 .25rem; font-size: 1rem; }
a { color: var(--link); } p { margin: .25rem 0 .75rem; max-width: 46rem; } .quiet { color: var(--quiet); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; } code { overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .25rem 0 .75rem; padding: .75rem;
  border: 1px solid var(--line); border-radius: .375rem;
  background: var(--soft); }
details { border: 1px solid var(--line); border-radius: .375rem; margin: .5rem 0; }
summary { display: flex; flex-wrap: wrap; gap: 0 .75rem; align-items: baseline; padding: .5rem .75rem;
  cursor: pointer; }
summary:focus-visible { outline: 2px solid var(--link); }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .25rem .75rem .75rem; }
.verb { min-width: 4rem; font-weight: 700; } .get { color: var(--get); } .post { color: var(--post); }
.delete { color: var(--delete); }
.wide { overflow-x: auto; } table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .3rem .75rem .3rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { white-space: nowrap; font-weight: 600; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_METHOD: Final = "Parameters."
_VERBS: Final = ("get", "post", "delete")


def page(document: dict[str, Any]) -> str:
    """The page, with `SERVER` in the examples where the address of the server belongs.

    Args:
        document: of `openapi.document`.
    """
    info, schemas = document["info"], document["components"]["schemas"]
    body = [
        f"<h1>{escape(info['title'])} <span class='quiet'>{escape(info['version'])}</span></h1>",
        f"<p>{escape(info['description'])}</p>",
        "<nav>",
        *(f"<a href='#{_anchor(tag['name'])}'>{escape(tag['name'])}</a>" for tag in document["tags"]),
        "<a href='#methods'>Methods and parameters</a><a href='#schemas'>Schemas</a><a href='openapi.json'>OpenAPI</a>",
        "</nav>",
    ]
    for tag in document["tags"]:
        body.append(f"<h2 id='{_anchor(tag['name'])}'>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>")
        body += [part for operation in _operations(document, tag["name"]) for part in _operation(*operation, document)]
    body.append("<h2 id='methods'>Methods and parameters</h2>")
    body.append(f"<p>{escape(schemas['Parameters']['description'])}</p>")
    body += [_method(schema) for name, schema in schemas.items() if name.startswith(_METHOD)]
    body.append("<h2 id='schemas'>Schemas</h2>")
    body += [_schema(name, schema) for name, schema in schemas.items() if not name.startswith(_METHOD)]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )


def with_address(text: str, server: str) -> str:
    """The page with the address of the server, as its client knows it."""
    return text.replace(SERVER, escape(server))


def _operations(document: dict[str, Any], tag: str) -> Iterator[tuple[str, str, dict[str, Any], list[Any]]]:
    for path, item in document["paths"].items():
        for verb in _VERBS:
            if verb in item and tag in item[verb]["tags"]:
                yield path, verb, item[verb], [*item.get("parameters", ()), *item[verb].get("parameters", ())]


def _operation(path: str, verb: str, operation: dict[str, Any], parameters: list[Any], document: Any) -> Iterator[str]:
    yield f"<details><summary><span class='verb {verb}'>{verb.upper()}</span><code>{escape(path)}</code>"
    yield f"<span class='quiet'>{escape(operation['summary'])}</span></summary><div>"
    for example in operation.get("x-codeSamples", ()):
        yield f"<h3>{escape(example['label'])}</h3><pre>{escape(example['source'])}</pre>"
    if parameters:
        yield "<h3>Parameters</h3>"
        yield _table(
            (item["name"], item["in"], f"{escape(item['description'])} {_type(item['schema'])}") for item in parameters
        )
    if body := operation.get("requestBody"):
        yield f"<h3>Body</h3><p>{escape(body.get('description', ''))}</p>"
        yield _table((kind, "", _type(entry["schema"])) for kind, entry in body["content"].items())
    yield "<h3>Answers</h3>"
    yield _table(_answer(status, entry, document) for status, entry in operation["responses"].items())
    yield "</div></details>"


def _answer(status: str, entry: dict[str, Any], document: dict[str, Any]) -> tuple[str, str, str]:
    if "$ref" in entry:
        entry = document["components"]["responses"][entry["$ref"].rpartition("/")[2]]
    kinds = "<br>".join(
        f"<code>{escape(kind)}</code> {_type(item['schema']) if kind == 'application/json' else ''}"
        for kind, item in entry.get("content", {}).items()
    )
    return status, "", f"{escape(entry['description'])}<br>{kinds}"


def _method(schema: Schema) -> str:
    names = schema["properties"]["method"]["enum"]
    rows = (
        (name, "", f"{escape(item.get('description', ''))} {_type(item)}{_default(item)}")
        for name, item in schema["properties"].items()
        if name != "method"
    )
    aliases = f", or {', '.join(names[1:])}" if names[1:] else ""
    return (
        f"<details id='method-{_anchor(names[0])}'><summary><code>{escape(names[0])}</code>"
        f"<span class='quiet'>{escape(schema['title'])}</span></summary><div><p>{escape(schema['description'])}</p>"
        f"<p class='quiet'>{escape(f'method={names[0]}{aliases}')}</p>{_table(rows)}</div></details>"
    )


def _schema(name: str, schema: Schema) -> str:
    shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    head = f"<details id='{_anchor(name)}'><summary><code>{escape(name)}</code></summary>"
    return f"{head}<div><pre>{shown}</pre></div></details>"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = (
        f"<tr><th><code>{escape(name)}</code></th>{f'<td>{escape(where)}</td>' if where else ''}<td>{text}</td></tr>"
        for name, where, text in rows
    )
    return f"<div class='wide'><table>{''.join(lines)}</table></div>"


def _type(schema: Schema) -> str:
    """A schema in a few words of HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href='#{'methods' if name == 'Parameters' else _anchor(name)}'>{escape(name)}</a>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_type, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [
        f"{words} {schema[key]}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return f"<span class='quiet'>{escape(' '.join([str(schema.get('type', '')), *bounds]).strip())}</span>"


def _default(schema: Schema) -> str:
    return f"; default <code>{escape(json.dumps(schema['default']))}</code>" if "default" in schema else ""


def _anchor(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text).lower()
