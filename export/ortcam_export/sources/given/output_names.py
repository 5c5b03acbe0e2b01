"""Names of several outputs, as `--model-output A,B` gives them."""

from ortcam_export.errors import ExportError

__all__ = ["several_names"]

_QUOTES = "\"'"


def several_names(text: str | None, *, raw: bool) -> tuple[str, ...]:
    """The names in a list with commas; none where it names one output. A name with a comma stands in quotes.

    Args:
        text: as the user wrote it.
        raw: whether the outputs are values; several logits have no meaning.

    Raises:
        ExportError: a name that is empty or comes twice, or several names of what are no values.

    Example:
        >>> several_names("boxes, 'a,b'", raw=True), several_names("boxes", raw=True)
        (('boxes', 'a,b'), ())
    """
    names = [_unquoted(part.strip()) for part in _cut(text or "")]
    if len(names) < 2:
        return ()
    if not all(names) or len(set(names)) < len(names):
        raise ExportError(f"--model-output {text}: accepted are names with commas between, each once")
    if not raw:
        raise ExportError(
            f"--model-output {text}: several outputs go with --activation identity, which takes their values; accepted "
            "otherwise is one"
        )
    return tuple(names)


def _cut(text: str) -> list[str]:
    """The parts between commas that lie in no quotes."""
    parts, quote = [""], ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and not parts[-1].strip() and letter in text[place + 1 :]:
            quote = letter
        elif letter == ",":
            parts.append("")
            continue
        parts[-1] += letter
    return parts


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in _QUOTES else name
