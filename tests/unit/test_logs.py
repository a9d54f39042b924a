"""Log lines: one JSON object each, whatever is in them."""

from __future__ import annotations

import json
import logging

from connectors.logs import JsonFormatter


def line(**fields: object) -> dict[str, object]:
    text = JsonFormatter("publisher").format(logging.makeLogRecord({"levelname": "INFO", "msg": "event", **fields}))
    assert "\n" not in text
    return json.loads(text)


def test_extra_fields_are_fields() -> None:
    record = line(msg="batch of %s", args=(3,), lag_ms=12)
    assert (record["service"], record["level"], record["event"], record["lag_ms"]) == (
        "publisher",
        "info",
        "batch of 3",
        12,
    )


def test_time_is_utc_with_milliseconds() -> None:
    assert line(created=0.0417)["time"] == "1970-01-01T00:00:00.041Z"


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        found = line(exc_info=(ValueError, error, error.__traceback__))
    assert "two\nlines" in str(found["exception"])


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert line(reason=ValueError("x"))["reason"] == "x"
