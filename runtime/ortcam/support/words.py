"""Numbers in words: counts with their noun, and times in the precision that each place needs."""

__all__ = ["brief_time", "counted", "duration", "measured_time", "passes_in_words", "sheet_time"]


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "image"), counted(3, "metric")
        ('1 image', '3 metrics')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def passes_in_words(masked: int, head: int, backward: int) -> str:
    """What was run for a map: masked forward passes, or passes of the head, or backward passes of the head.

    Example:
        >>> passes_in_words(512, 0, 0), passes_in_words(0, 49, 0), passes_in_words(0, 0, 1)
        ('512 forward passes', '49 passes of the head', '1 backward pass')
    """
    if backward:
        return f"{backward} backward pass{'' if backward == 1 else 'es'}"
    return f"{head} passes of the head" if head else f"{masked} forward passes"


def duration(seconds: float) -> str:
    """A time as people say it, for what somebody waits for.

    Example:
        >>> [duration(value) for value in (0.42, 8, 95, 7000)]
        ['0.42 s', '8.0 s', '1 min 35 s', '1 h 57 min']
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def measured_time(seconds: float) -> str:
    """A time in three digits or so, for what was measured.

    Example:
        >>> [measured_time(value) for value in (0.0042, 0.42, 4.2, 42, 420)]
        ['4.2 ms', '420 ms', '4.20 s', '42.0 s', '420 s']
    """
    if seconds < 1:
        return f"{1e3 * seconds:.1f} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def sheet_time(seconds: float) -> str:
    """A time in two digits or so, for the narrow head of a column.

    Example:
        >>> sheet_time(0.0123), sheet_time(1.234), sheet_time(83.0)
        ('12 ms', '1.2 s', '83 s')
    """
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def brief_time(seconds: float) -> str:
    """A time in a sentence that compares two of them.

    Example:
        >>> brief_time(0.42), brief_time(42)
        ('420 ms', '42.0 s')
    """
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
