"""`ortcam serve`: explanations over HTTP."""

import argparse
from typing import TYPE_CHECKING, Any, Final

from ortcam.cli.common import PRECISION_WORDS, add_memory_limit, pairs_of, providers_of
from ortcam.cli.parsers import Rare, add_command
from ortcam.errors import OptionError
from ortcam.support.extras import missing
from ortcam.support.ranges import PORT, THREADS, Range
from ortcam.support.terminal import complain, printable

if TYPE_CHECKING:
    from ortcam.serve import Settings

__all__ = ["add_serve"]

_ALL_INTERFACES: Final = "0.0.0.0"  # noqa: S104 - only where KServe's flags ask for it


def add_serve(commands: Any) -> None:
    """Add the command to the subparsers of `ortcam`."""
    parser = add_command(
        commands,
        "serve",
        _serve,
        help="serve predictions and explanations over HTTP",
        description="Serve predictions and explanations over HTTP: KServe's protocol v1, the Open Inference Protocol "
        "v2, and a page at /ui. SIGTERM drains the server, SIGHUP loads changed bundles again.",
        examples=(
            "ortcam serve shapes",
            "ortcam serve resnet18.ortcam --host 0.0.0.0 --token-file token.txt",
            "ortcam serve old.ortcam new.ortcam --workers 2 --config serve.toml",
        ),
    )
    parser.add_argument(
        "bundle",
        nargs="*",
        metavar="BUNDLE",
        help="folders that `ortcam export` wrote, folders of such folders, or shapes (shipped); without one: "
        "what STORAGE_URI put into /mnt/models",
    )
    parser.add_argument("--name", action="append", metavar="NAME", help="of a bundle, for clients; once per BUNDLE")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=PORT, metavar="N", help="port to listen on; 0: a free one (default: 8080)")
    parser.add_argument("--token-file", metavar="FILE", help="bearer token that requests need (or $ORTCAM_TOKEN)")
    parser.add_argument("--cors", action="append", metavar="ORIGIN", help="let pages of this origin ask; * for all")
    parser.add_argument("--no-ui", action="store_true", help="no page at /ui")
    parser.add_argument("--watch", action="store_true", help="load a bundle again when it changes")
    parser.add_argument("--config", metavar="FILE", help="settings in a TOML file; flags win over it")
    parser.add_argument("--log-file", metavar="FILE", help="append the log there (default: standard error)")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=N",
        help="what one request may cost, such as pixels=4000000; `--limit help` lists all",
    )
    _add_execution(parser)
    _add_container(parser)


def _add_execution(parser: argparse.ArgumentParser) -> None:
    work = parser.add_argument_group("execution")
    work.add_argument(
        "--workers",
        type=Range("workers", 1, 256),
        metavar="N",
        help="masked explanations at the same time (default: 1)",
    )
    work.add_argument("--threads", type=THREADS, metavar="N", help="CPU threads of each (default: cores / workers)")
    work.add_argument("--provider", metavar="NAMES", help="execution providers, such as cuda,cpu (default: the best)")
    work.add_argument(
        "--provider-option", action="append", default=[], metavar="KEY=VALUE", help=Rare("option of the first provider")
    )
    work.add_argument(
        "--precision", metavar="NAME", help=Rare(f"of the masked passes: {PRECISION_WORDS} (default: the bundle's own)")
    )
    add_memory_limit(work, of="the server's process")
    work.add_argument(
        "--decoders",
        type=Range("decoders", 1, 256),
        metavar="N",
        help=Rare("processes that decode images (default: 1)"),
    )
    work.add_argument(
        "--drain-seconds",
        type=Range("drain_seconds", 0, 86_400, whole=False),
        metavar="S",
        help="from SIGTERM to the last answer (default: 25)",
    )


def _add_container(parser: argparse.ArgumentParser) -> None:
    kserve = parser.add_argument_group("flags that KServe gives a container").add_argument
    kserve("--model_name", metavar="NAME", help=Rare("--name"))
    kserve("--http_port", type=PORT, metavar="N", help=Rare("--port, and --host 0.0.0.0 unless --host is given"))
    kserve("--predictor_host", metavar="HOST", help=Rare("taken and not used: a bundle holds its classifier"))


def _serve(options: argparse.Namespace) -> int:
    if options.limit == ["help"]:
        return _list_limits()
    try:
        from ortcam.serve.running import run  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OptionError(missing("`ortcam serve`", "serve", error)) from None
    settings = _settings(options)

    def listening(address: str) -> None:
        names = ", ".join(item.name for item in settings.bundles)
        print(printable(f"{address} serves {names} (Ctrl-C ends it)"), flush=True)
        if settings.token is None and settings.host not in ("127.0.0.1", "::1", "localhost"):
            complain(
                f"warning: everybody who reaches {printable(settings.host)} may ask: --token-file FILE asks for a token"
            )

    run(settings, listening=listening)
    return 0


def _settings(options: argparse.Namespace) -> "Settings":
    """Settings of flags, configuration and environment, in this order of rank.

    Raises:
        OrtcamError: a value that is not accepted, or no bundle.
    """
    from ortcam.serve import configuration  # noqa: PLC0415 - as above
    from ortcam.serve.models import found  # noqa: PLC0415
    from ortcam.serve.settings import Settings  # noqa: PLC0415

    given = {} if options.config is None else configuration.read_config(options.config)
    bundles, limits = given.pop("bundles", ()), given.pop("limits", {})
    in_container = options.http_port is not None or options.predictor_host is not None
    flags = {
        "host": options.host or (_ALL_INTERFACES if in_container and "host" not in given else None),
        "port": options.http_port if options.port is None else options.port,
        "workers": options.workers,
        "threads": options.threads,
        "providers": providers_of(options),
        "precision": options.precision,
        "memory_limit": options.memory_limit,
        "decoders": options.decoders,
        "drain_seconds": options.drain_seconds,
        "cors": options.cors,
        "log_file": options.log_file,
        "watch": True if options.watch else None,
        "ui": False if options.no_ui else None,
        "token": configuration.read_token(options.token_file) if options.token_file or "token" not in given else None,
    }
    given |= {name: value for name, value in flags.items() if value is not None}
    if options.bundle and options.bundle != [str(found.MOUNTED)]:
        bundles = found.find_bundles(options.bundle)
    bundles = bundles or found.mounted_bundles()
    names = options.name or ([options.model_name] if options.model_name else [])
    return Settings.of(found.named_bundles(bundles, names), limits=limits | pairs_of("--limit", options.limit), **given)


def _list_limits() -> int:
    """Print the limits of a request, with their defaults and what each accepts."""
    from ortcam.serve.settings import LIMIT_RANGES, RequestLimits  # noqa: PLC0415 - as above

    defaults = RequestLimits()
    for name, accepted in LIMIT_RANGES.items():
        print(f"{name:<15} {getattr(defaults, name)!s:>10}  {accepted.bounds}")
    return 0
