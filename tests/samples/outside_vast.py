"""An outside ad server's answer with many trackers, for tests of the Ads Manager door."""

from __future__ import annotations

LINEAR_EVENTS = ("start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "mute", "unmute", "creativeView")

_NOT_EXECUTED = '<Tracking event="verificationNotExecuted">{}</Tracking>'


def document(host: str, trackers_per_event: int = 4, version: str = "4.2", sequences: tuple[int, ...] = ()) -> str:
    """VAST whose every event tells `trackers_per_event` addresses below `host`; one Ad, or a pod."""
    ads = "".join(_ad(host, trackers_per_event, n) for n in sequences or (0,))
    return f'<VAST version="{version}" xmlns="http://www.iab.com/VAST">{ads}</VAST>'


def _ad(host: str, count: int, sequence: int) -> str:
    def urls(event: str) -> list[str]:
        return [f"{host}/{event}?n={n}&amp;ad={sequence}" for n in range(count)]

    def each(event: str, form: str) -> str:
        return "".join(form.format(url) for url in urls(event))

    tracking = "".join(each(e, f'<Tracking event="{e}">{{}}</Tracking>') for e in LINEAR_EVENTS)
    tracking += each("p25", '<Tracking event="progress" offset="25%">{}</Tracking>')
    tracking += each("s7", '<Tracking event="progress" offset="00:00:07">{}</Tracking>')
    place = f' sequence="{sequence}"' if sequence else ""
    return (
        f'<Ad id="out-{sequence}"{place}><InLine><AdSystem>Other</AdSystem>'
        f"{each('error', '<Error>{}&amp;e=[ERRORCODE]</Error>')}{each('impression', '<Impression>{}</Impression>')}"
        '<Pricing model="CPM" currency="USD">4.5</Pricing>'
        f"<ViewableImpression>{each('viewable', '<Viewable>{}</Viewable>')}"
        f"{each('not', '<NotViewable>{}</NotViewable>')}</ViewableImpression>"
        "<AdServingId>s</AdServingId><AdTitle>t</AdTitle>"
        '<AdVerifications><Verification vendor="v"><JavaScriptResource apiFramework="omid">https://v.test/omid.js'
        f"</JavaScriptResource><TrackingEvents>{each('omid', _NOT_EXECUTED)}"
        "</TrackingEvents></Verification></AdVerifications><Advertiser>Brand</Advertiser><Creatives>"
        f'<Creative id="c1"><Linear><TrackingEvents>{tracking}</TrackingEvents><Duration>00:00:30</Duration>'
        '<MediaFiles><MediaFile delivery="progressive" type="video/mp4" width="1" height="1">https://m.test/a.mp4'
        f"</MediaFile></MediaFiles><VideoClicks>{each('click', '<ClickTracking>{}</ClickTracking>')}"
        "<ClickThrough>https://brand.test/</ClickThrough></VideoClicks></Linear>"
        '<UniversalAdId idRegistry="ad-id.org">CNPA0484000H</UniversalAdId></Creative>'
        '<Creative><CompanionAds><Companion width="300" height="250"><StaticResource creativeType="image/png">'
        "https://m.test/c.png</StaticResource>"
        f"{each('cclick', '<CompanionClickTracking>{}</CompanionClickTracking>')}</Companion></CompanionAds></Creative>"
        "</Creatives></InLine></Ad>"
    )
