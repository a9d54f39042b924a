"""Banner markup with trackers: an image behind a link, our pixel, and a script that reports viewability.

Source: MRC Viewable Ad Impression Guidelines: half of the pixels for one continuous second; HTML `ping` (a click is
reported without a redirect, so that no click waits for us). AdCOM 1.0 list "Creative Subtypes - Banner/Display".
"""

from __future__ import annotations

import re
from html import escape

from schemas.catalog import Creative
from serving.adserver.markup.trackers import Trackers

_VIEWABLE = """<script>(function(s){{var a=s.previousElementSibling,t=0,o=new IntersectionObserver(function(e){{
clearTimeout(t);if(e[0].intersectionRatio>=0.5)t=setTimeout(function(){{o.disconnect();new Image().src={url}}},1000)
}},{{threshold:[0,0.5]}});o.observe(a)}})(document.currentScript)</script>"""


#: AdCOM's types of a banner: text, an image behind a link (which ours are), a script, a frame.
TEXT, IMAGE, SCRIPT, FRAME = 1, 2, 3, 4
_TYPES = {"script": SCRIPT, "iframe": FRAME, "img": IMAGE}
_TELLING = re.compile(r"<(script|iframe|img)\b", re.IGNORECASE)


def type_of(markup: str) -> int:
    """AdCOM's type of a banner's HTML. A script makes it one wherever it stands, as it may write anything.

    Example:
    >>> [type_of(m) for m in ("<a>ad</a>", "<a><img src='x'></a>", "<img><script></script>", "<iframe></iframe>")]
    [1, 2, 3, 4]
    """
    found = {_TYPES[tag.lower()] for tag in _TELLING.findall(markup)}
    return SCRIPT if SCRIPT in found else max(found, default=TEXT)


def own(creative: Creative, trackers: Trackers) -> str:
    """Our own banner."""
    image = (
        f'<img src="{escape(creative.media_url)}" width="{creative.width}" height="{creative.height}" alt="" '
        'style="border:0">'
    )
    click = trackers.urls.get("click")
    ping = f' ping="{escape(click)}" data-click="{escape(click)}"' if click else ""
    link = f'<a href="{escape(creative.landing_url)}" target="_blank" rel="noopener"{ping}>{image}</a>'
    return with_trackers(link, trackers, with_click=False)


def with_trackers(markup: str, trackers: Trackers, with_click: bool = True) -> str:
    """Any banner's markup, in a box that reports for us; a DSP's own clicks are caught on their way up."""
    if not trackers.urls:
        return markup
    on_click = ""
    if with_click:
        url = trackers.urls["click"]
        on_click = f' data-click="{escape(url)}" onclick="navigator.sendBeacon(this.dataset.click)"'
    viewable = trackers.urls["viewable"]
    return (
        f"<div{on_click}>{markup}</div>{_VIEWABLE.format(url=_script_text(viewable))}"
        f'<img data-event="impression" src="{escape(trackers.urls["impression"])}" width="1" height="1" alt="" '
        'style="position:absolute">'
    )


def _script_text(url: str) -> str:
    """A URL as a JavaScript string inside HTML."""
    safe = url.replace("\\", "\\\\").replace('"', '\\"').replace("<", "\\u003c")
    return f'"{safe}"'
