"""Money is integer micros of a currency (1 unit = 1,000,000 micros). No floats."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache


def impression_cost_micros(cpm_micros: int, quantity: float = 1.0) -> int:
    """What one impression costs at a CPM (price of a thousand), rounded down to a whole micro. `quantity` is how many
    people see it at once, on a screen in public (OpenRTB 2.6 §7.9.4).

    Example:
    >>> impression_cost_micros(2_500_000), impression_cost_micros(2_500_000, 30.3)  # 2.50 CPM
    (2500, 75750)
    """
    return cpm_micros // 1000 if quantity == 1 else times(cpm_micros, quantity) // 1000


def times(micros: int, quantity: float) -> int:
    """An amount so many times, rounded down.

    Example:
    >>> times(2_500_000, 30.3)
    75750000
    """
    return int(micros * Decimal(repr(quantity)))


@lru_cache(maxsize=4_096)
def to_micros(text: str) -> int:
    """Micros of a decimal price such as '12.5'. Errors: ValueError when it is no finite decimal number.

    Example:
    >>> to_micros("0.000001")
    1
    """
    try:
        value = Decimal(text)
    except InvalidOperation as e:
        raise ValueError(f"not a decimal number: {text!r}") from e
    if not value.is_finite():
        raise ValueError(f"not a finite number: {text!r}")
    return int(value * 1_000_000)


def to_decimal(micros: int) -> str:
    """The decimal price that `to_micros` reads back, without trailing zeros.

    Example:
    >>> to_decimal(2_500_000), to_decimal(1), to_decimal(0)
    ('2.5', '0.000001', '0')
    """
    sign, units, rest = "-" if micros < 0 else "", abs(micros) // 1_000_000, abs(micros) % 1_000_000
    return f"{sign}{units}.{rest:06d}".rstrip("0").rstrip(".")
