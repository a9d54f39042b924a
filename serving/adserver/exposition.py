"""/metrics of all processes behind one port: each asks the others, and adds up what they say.

Counters and histograms are summed; of a gauge the greatest is shown, since each process speaks of the same thing.
Source: Prometheus text format 0.0.4.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from pathlib import Path

_WAIT_S = 1.0


def merged(texts: Iterable[str]) -> str:
    r"""One exposition of many.

    Example:
    >>> text = "# TYPE n_total counter\nn_total 2\n# TYPE g gauge\ng 1\n"
    >>> print(merged([text, text.replace(" 2", " 5")]), end="")
    # TYPE n_total counter
    n_total 7
    # TYPE g gauge
    g 1
    """
    lines: dict[str, float | None] = {}  # in the order of their first appearance; None: a comment
    gauges: set[str] = set()
    for text in texts:
        gauge = False
        for line in text.splitlines():
            if line.startswith("#"):
                if line.startswith("# TYPE "):
                    gauge = line.endswith(" gauge")
                lines.setdefault(line, None)
                continue
            name, _, number = line.rpartition(" ")
            value, before = float(number), lines.get(name)
            if gauge:
                gauges.add(name)
            lines[name] = value if before is None else max(before, value) if name in gauges else before + value
    return "".join(f"{name}\n" if value is None else f"{name} {_text(value)}\n" for name, value in lines.items())


def _text(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(value)


class Siblings:
    """The other processes behind the port: each shows its own metrics on a Unix socket in a folder."""

    def __init__(self, folder: Path, number: int, count: int, own: Callable[[], str]) -> None:
        self._folder = folder
        self._number = number
        self._count = count
        self._own = own
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Shows this process's metrics to the others. Errors: OSError."""
        path = self._path(self._number)
        path.unlink(missing_ok=True)  # of a process that died
        self._server = await asyncio.start_unix_server(self._show, path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def merged(self) -> str:
        """Everybody's metrics. A process that does not answer within a second is left out."""
        others = [n for n in range(self._count) if n != self._number]
        texts = await asyncio.gather(*(self._ask(n) for n in others))
        return merged([self._own(), *(text for text in texts if text)])

    async def _show(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._own().encode())
        writer.close()

    async def _ask(self, number: int) -> str:
        try:
            async with asyncio.timeout(_WAIT_S):
                reader, writer = await asyncio.open_unix_connection(self._path(number))
                text = await reader.read(-1)
                writer.close()
                return text.decode()
        except OSError:  # TimeoutError is one
            return ""

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.sock"
