"""Numbers as the page shows them."""

import math

__all__ = ["number", "p_value", "seconds", "signed"]


def number(value: float | None, unit: str = "percent") -> str:
    """Two decimals, and a typographic minus; of a unit that is no percent four digits."""
    if value is None or math.isnan(value):
        return "–"
    if unit != "percent":
        return f"{value + 0.0:.4g}".replace("-", "−")
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def signed(value: float, form: str = ".2f") -> str:
    """With its sign, unless it is zero."""
    text = f"{value:{form}}"
    return f"{value:+{form}}".replace("-", "−") if float(text) else text.lstrip("-")


def seconds(value: float | None) -> str:
    """Three digits or so; the unit stands in the head of the column."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def p_value(value: float) -> str:
    """Three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
