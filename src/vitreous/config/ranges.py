"""Numbers of settings inside their intervals."""

from __future__ import annotations

from vitreous.errors import UsageError


def check_ranges(settings: object, stage: str, ranges: dict[str, str]) -> None:
    """Raise UsageError for the first number outside its interval; one left open (None) is in range."""
    for name, interval in ranges.items():
        value = getattr(settings, name)
        if value is None:
            continue
        low, high = (float(end) for end in interval[1:-1].split(","))
        above = value > low or (interval[0] == "[" and value == low)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below):  # also true of NaN
            raise UsageError(f"--{stage}.{name.replace('_', '-')} must lie in {interval}, got {value}.")
