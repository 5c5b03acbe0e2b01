"""PBMs, PGMs and PPMs that cost far more than their bytes."""

from collections.abc import Iterator

from tests.hostile.images.bomb import BROKEN, LIMIT, MB, NOT_ACCEPTED, SIDE, TOO_LARGE, Bomb, many, square


def pnm_bombs() -> Iterator[Bomb]:
    """PBM, PGM, PPM."""
    for kind in "123456":
        maximum = b"" if kind in "14" else b" 255"
        for name, width, height in (("30000sq", 30_000, 30_000), ("999999999sq", 999_999_999, 999_999_999)):
            yield Bomb(
                name=f"pnm-p{kind}-{name}.pnm",
                kind="size above the limit, pixels missing",
                refused=f"{TOO_LARGE}|{BROKEN}",
                make=lambda k=kind, w=width, h=height, m=maximum: f"P{k} {w} {h}".encode() + m + b"\n" + bytes(1000),
            )
    yield from pnm_header_bombs()
    yield from pnm_text_bombs()
    yield from pnm_large_bombs()


def pnm_header_bombs() -> Iterator[Bomb]:
    """Headers without end."""
    for name, head in (
        ("zero", lambda: b"P6 0 0 255\n"),
        ("negative", lambda: b"P6 -1 -1 255\n"),
        ("many-digits", lambda: b"P6 " + b"9" * 4_000_000 + b" 1 255\n"),
        ("many-zeros", lambda: b"P6 " + b"0" * 4_000_000 + b"1 1 255\n"),
        ("white-0", lambda: b"P6 1 1 0\n"),
        ("white-many-digits", lambda: b"P6 1 1 " + b"9" * 4_000_000 + b"\n"),
        ("endless-space", lambda: b"P6" + b" " * 4_000_000),
        ("endless-comment", lambda: b"P6 #" + b"a" * 4_000_000),
        ("endless-comments", lambda: b"P6 " + b"#\n" * 2_000_000),
        ("comment-without-end", lambda: b"P6 1 1#" + b"#" * 4_000_000),
        ("space-and-comments", lambda: b"P6 " + b" #\n \n" * 800_000),
    ):
        yield Bomb(
            name=f"pnm-header-{name}.pnm",
            kind="endless header",
            make=lambda head=head: head() + b"abc",
            refused=BROKEN,
            memory=30 * MB,
        )
    yield Bomb(
        name="pnm-header-4-mb-of-comments.pnm",
        kind="endless header",
        make=lambda: b"P6 " + b"#\n" * 2_000_000 + b"1 1 255\nabc",
        shape=(1, 1, 3),
        refused="",
        cpu=2,
        memory=30 * MB,
    )


def pnm_text_bombs() -> Iterator[Bomb]:
    """Pixels as text without end."""
    for kind in "123":
        maximum = b"" if kind == "1" else b" 255"
        head = f"P{kind} 1000 1000".encode() + maximum + b"\n"
        for name, body in (
            ("space", many(b" ", 6_000_000)),
            ("digits", many(b"1", 6_000_000)),
            ("zeros", many(b"0", 6_000_000)),
            ("comments", many(b"#\n", 3_000_000)),
            ("comments-and-digits", many(b"1#\n", 2_000_000)),
            ("minus", many(b"- ", 3_000_000)),
            ("points", many(b"1. ", 2_000_000)),
            ("nan", many(b"nan ", 1_500_000)),
        ):
            fits = (kind == "1" and name in {"digits", "zeros", "comments-and-digits"}) or (
                kind == "2" and "comments-and" in name
            )
            yield Bomb(
                name=f"pnm-p{kind}-{name}.pnm",
                kind="endless text",
                make=lambda head=head, body=body: head + body(),
                limit=2_000_000,
                refused="" if fits else f"{BROKEN}|{NOT_ACCEPTED}",
                shape=(1000, 1000, 3) if fits else None,
                cpu=2,
                memory=60 * MB,
            )


def pnm_large_bombs() -> Iterator[Bomb]:
    """As many pixels as the limit admits."""
    for name, head, body in (
        ("p1", b"P1 5000 5000\n", many(b"1", LIMIT)),
        ("p2-of-1-digit", b"P2 5000 5000 9\n", many(b"1 ", LIMIT)),
        ("p2-of-16-bits", b"P2 5000 5000 65535\n", many(b"9 ", LIMIT)),
        ("p3-of-1-digit", b"P3 5000 5000 9\n", many(b"1 ", 3 * LIMIT)),
        ("p4", b"P4 5000 5000\n", many(b"\0", 625 * SIDE)),
        ("p5-of-16-bits", b"P5 5000 5000 4095\n", many(b"\0", 2 * LIMIT)),
        ("p6-of-16-bits", b"P6 5000 5000 65535\n", many(b"\0", 6 * LIMIT)),
    ):
        yield Bomb(
            name=f"pnm-5000sq-{name}.pnm",
            kind="just below the limit",
            make=lambda head=head, body=body: head + body(),
            shape=square(),
            refused="",
            warns="",
            slow=name != "p4",
            cpu=20,
        )
    for name, head in (("p5", b"P5 5000 5000 255\n"), ("p6", b"P6 4000 4000 65535\n")):
        # The samples are zeros that take no room on the disk.
        yield Bomb(
            name=f"pnm-sparse-{name}.pnm",
            kind="just below the limit, sparse",
            make=lambda head=head: head,
            tail=LIMIT if name == "p5" else 6 * 16_000_000,
            shape=square(SIDE if name == "p5" else 4000),
            refused="",
            warns="",
        )
    yield Bomb(
        name="pnm-sparse-100gb.pnm",
        kind="sparse file",
        make=lambda: b"P6 8 8 255\n",
        tail=10**11,
        refused="",
        memory=6 * MB,
    )
