"""The schema registry, through the Confluent-compatible API that Apicurio, Confluent and Karapace all answer.

Schema ids never change their meaning, so what was read once is kept for the life of the process.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from typing import Any, Literal

import httpx

from connectors.endpoints import endpoints
from schemas.errors import IncompatibleSchema, Refused, TimedOut, Unavailable

Compatibility = Literal[
    "NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"
]
TIMEOUT_S = 5.0
_NOT_FOUND = 404
_CONFLICT = 409


class NotRegistered(Refused):
    """No such schema id, subject or version."""


class SchemaRegistry:
    """A client of one registry. Thread-safe; every call may block up to `timeout_s`.

    Errors of every call: Unavailable when it can't be reached or answers 5xx; TimedOut; Refused for another no.
    """

    def __init__(self, url: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._http = httpx.Client(base_url=url or endpoints().registry_url, timeout=timeout_s)
        self._schemas: dict[int, Any] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self._http.close()

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        return sorted(self._ask("GET", "/subjects"))

    def versions(self, subject: str) -> list[int]:
        """Versions of a subject, oldest first. Errors: NotRegistered."""
        return sorted(self._ask("GET", f"/subjects/{_quoted(subject)}/versions"))

    def latest(self, subject: str) -> tuple[int, str]:
        """(schema id, schema text) of a subject's newest version. Errors: NotRegistered."""
        answer = self._ask("GET", f"/subjects/{_quoted(subject)}/versions/latest")
        return int(answer["id"]), answer["schema"]

    def version(self, subject: str, number: int) -> str:
        """Schema text of one version. Errors: NotRegistered."""
        return self._ask("GET", f"/subjects/{_quoted(subject)}/versions/{number}")["schema"]

    def schema(self, schema_id: int) -> Any:
        """The schema with an id, as parsed JSON; asked once, then remembered. Errors: NotRegistered."""
        with self._lock:
            known = self._schemas.get(schema_id)
        if known is None:
            known = json.loads(self._ask("GET", f"/schemas/ids/{schema_id}")["schema"])
            with self._lock:
                self._schemas[schema_id] = known
        return known

    def register(self, subject: str, schema: str) -> int:
        """Registers a schema text under a subject and gives back its id; the same text again gives the same id.

        Errors: IncompatibleSchema when the subject's rule forbids it, with the registry's reasons.
        """
        return int(self._ask("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": schema})["id"])

    def set_compatibility(self, subject: str, level: Compatibility) -> None:
        """Sets the rule that new versions of a subject must keep."""
        self._ask("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})

    def compatibility(self, subject: str) -> str | None:
        """The subject's own rule, None when it has none."""
        try:
            return self._ask("GET", f"/config/{_quoted(subject)}")["compatibilityLevel"]
        except NotRegistered:
            return None

    def is_compatible(self, subject: str, schema: str) -> tuple[bool, list[str]]:
        """(may it be registered, the registry's reasons if not); a new subject takes anything."""
        path = f"/compatibility/subjects/{_quoted(subject)}/versions"
        try:
            answer = self._ask("POST", path, {"schema": schema}, verbose="true")
        except NotRegistered:
            return True, []
        return bool(answer["is_compatible"]), [str(m) for m in answer.get("messages") or []]

    def _ask(self, method: str, path: str, body: object | None = None, **query: str) -> Any:
        try:
            answer = self._http.request(method, path, json=body, params=query)
        except httpx.TimeoutException as error:
            raise TimedOut(f"schema registry: no answer to {method} {path}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"schema registry: {error}") from error
        if answer.is_success:
            return answer.json()
        text = f"schema registry: {answer.status_code} to {method} {path}: {_message(answer)}"
        if answer.status_code == _NOT_FOUND:
            raise NotRegistered(text)
        if answer.status_code == _CONFLICT:
            raise IncompatibleSchema(text)
        raise (Unavailable if answer.is_server_error else Refused)(text)


def _quoted(subject: str) -> str:
    return urllib.parse.quote(subject, safe="")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("message", ""))[:2000]
    except ValueError:
        return answer.text[:500]
