"""Numbers and times as people read them: 4.31 M, 1 h 2 min."""

import math


def compact(number: float) -> str:
    """Returns `number` with three significant digits and k, M, B or T: 4312064 gives 4.31 M."""
    if not math.isfinite(number):
        return str(number)
    for unit, symbol in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * unit:
            return f"{_three_digits(number / unit)} {symbol}"
    return _three_digits(number)


def _three_digits(number: float) -> str:
    size = abs(number)
    places = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{number:.{places}f}" if number else "0"


def duration(seconds: float) -> str:
    """Returns a time as its two largest units: 3725 seconds give 1 h 2 min."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
