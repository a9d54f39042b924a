"""What a user agent says of itself: whether it is a declared robot, and which operating system it names.

A file of patterns has one on each line: text that is looked for anywhere in the user agent, without regard to case;
`#` begins a comment, `!` exempts. The patterns below are our own and hold words by which robots declare themselves.
HTTP libraries are not among them: a server that inserts ads asks for its viewers with one. The IAB Tech Lab's licensed
list can be given as such a file.
Source: MRC Invalid Traffic Detection and Filtration Standards Addendum (2020), declared bots.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

OWN_PATTERNS = (
    *("bot/", "bot;", "bot)", "bot ", "+http", "crawler", "spider", "slurp", "archiver", "fetcher", "scrap"),
    *("headless", "phantomjs", "selenium", "webdriver", "puppeteer", "playwright", "lighthouse", "pagespeed"),
    *("validator", "monitor", "uptime", "preview", "externalhit", "!cubot"),
)
_REMEMBERED = 8_192
#: Characters that are looked at, and remembered, of a user agent and of an operating system's name.
_LONGEST, _LONGEST_OS = 1_024, 64
#: Text in a user agent -> family of its operating system; the first that is found counts.
_FAMILIES = (
    ("windows", "windows"),
    ("appletv", "apple"),
    ("iphone", "apple"),
    ("ipad", "apple"),
    ("mac os", "apple"),
    ("roku", "roku"),
    ("tizen", "tizen"),
    ("web0s", "webos"),
    ("webos", "webos"),
    ("android", "android"),
)
#: Beginning of `device.os` -> the same families.
_OF_OS = (
    *(("windows", "windows"), ("ios", "apple"), ("ipados", "apple"), ("tvos", "apple"), ("mac", "apple")),
    *(("osx", "apple"), ("os x", "apple"), ("roku", "roku"), ("tizen", "tizen"), ("webos", "webos")),
    *(("android", "android"), ("fire", "android")),
)
_TV = 3
_TV_CODES = (_TV, 7)


class UserAgents:
    """Listed patterns.

    Example:
    >>> agents = UserAgents(["examplebot", "!nice examplebot"])
    >>> agents.is_bot("ExampleBot/1"), agents.is_bot("a nice ExampleBot"), agents.is_bot("Mozilla/5.0")
    (True, False, False)
    """

    def __init__(self, patterns: Iterable[str] = OWN_PATTERNS) -> None:
        cleaned = [p.partition("#")[0].rstrip("\n").lower() for p in patterns]
        self._listed = [p for p in cleaned if p.strip() and not p.startswith("!")]
        self._exempt = [p[1:] for p in cleaned if p.startswith("!") and p[1:].strip()]
        self._known = lru_cache(_REMEMBERED)(self._is_bot)

    def is_bot(self, user_agent: str) -> bool:
        """Whether a user agent is a declared robot's, as far as its beginning tells."""
        return self._known(user_agent[:_LONGEST])

    def _is_bot(self, user_agent: str) -> bool:
        text = user_agent.lower()
        return any(p in text for p in self._listed) and not any(p in text for p in self._exempt)


def contradicts(user_agent: str, os: str, device_type: int | None) -> bool:
    """Whether a user agent can't be of the device that the request says it is of. Unknown words say nothing.

    Example:
    >>> contradicts("Mozilla/5.0 (Windows NT 10.0)", "iOS", 4), contradicts("AppleTV11,1/11.1", "tvOS", 3)
    (True, False)
    """
    return _contradicts(user_agent[:_LONGEST], os[:_LONGEST_OS], device_type)


@lru_cache(_REMEMBERED)
def _contradicts(user_agent: str, os: str, device_type: int | None) -> bool:
    text, said = user_agent.lower(), os.strip().lower()
    family = next((name for word, name in _FAMILIES if word in text), None)
    if family is None:
        return False
    claimed = next((name for word, name in _OF_OS if said.startswith(word)), None)
    if claimed is not None and claimed != family:
        return True
    return device_type in _TV_CODES and "iphone" in text
