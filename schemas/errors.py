"""The exception tree, and the reasons a record can be refused for.

HeadwaterError
├── ConfigError            settings are wrong; exit code 2
├── ContractError          data does not fit its schema
│   └── IncompatibleSchema a schema change that would break a reader or a writer
├── TokenError             a token can't be used; carries its `RejectReason`
└── ConnectorError         something outside
    ├── Unavailable        can't be reached or not ready; trying again may help
    ├── TimedOut           no answer in time; the work may or may not be done
    ├── Refused            answered no; trying again will not help
    └── Fenced             another instance took over this identity; the process must end

A bad *record* is not an exception: it is a `Reject`, and goes to the dead-letter topic of its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HeadwaterError(Exception):
    """Base of everything raised on purpose."""


class ConfigError(HeadwaterError):
    """Settings are wrong. All problems are reported together; the process ends with code 2."""


class ContractError(HeadwaterError):
    """Data does not fit its schema."""


class IncompatibleSchema(ContractError):
    """A schema change that would break a reader or a writer; the message says which side must roll out first."""


class ConnectorError(HeadwaterError):
    """Something outside failed."""


class Unavailable(ConnectorError):
    """Can't be reached or not ready; trying again may help."""


class TimedOut(ConnectorError):
    """No answer in time; the work may or may not have been done."""


class Refused(ConnectorError):
    """Answered no; trying again will not help."""


class Fenced(ConnectorError):
    """Another instance took over this identity (Kafka's producer fencing); this process must end."""


class RejectReason(StrEnum):
    """Why a record was refused. The string is what dead letters, metrics and reports show."""

    UNDECODABLE = "undecodable"  # not the Confluent wire format, or Avro bytes that do not decode
    UNKNOWN_SCHEMA = "unknown_schema"  # a schema id that the registry does not know
    MISSING_FIELD = "missing_field"
    BAD_VALUE = "bad_value"
    ABSURD_TIME = "absurd_time"  # client time too far from the received time to be a clock error
    UNKNOWN_EVENT = "unknown_event"  # an event type outside the contract
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_FORGED = "token_forged"  # authentication tag does not match
    TOKEN_UNKNOWN_KEY = "token_unknown_key"
    REGISTRY_MISS = "registry_miss"  # a genuine token whose ad is not in the Ads Metadata Registry
    MALFORMED_LINE = "malformed_line"  # a line of an upstream log that does not parse
    TOO_LARGE = "too_large"
    UNSAFE_URL = "unsafe_url"  # a tracker that is not http(s), or leads into a private network
    PARTNER_REFUSED = "partner_refused"  # a third party answered a tracker's call with a 4xx
    PARTNER_EXHAUSTED = "partner_exhausted"  # a third party did not take a call before it was too old


@dataclass(frozen=True, slots=True)
class Reject:
    """A refused record: its reason and a detail for people. Never holds personal data or plaintext tokens."""

    reason: RejectReason
    detail: str = ""


class TokenError(HeadwaterError):
    """A token can't be used."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
