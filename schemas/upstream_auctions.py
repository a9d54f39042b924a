"""Logs of other ad systems, which bring their own ads: iPinYou's exchange log and TalkingData's clicks.

Not kept: user agents (only device type and platform), URLs (a page can name a person).
Source: Liao et al., "iPinYou Global RTB Bidding Algorithm Competition Dataset", ADKDD 2014, table 2; TalkingData
AdTracking Fraud Detection Challenge, data description, 2018.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from schemas.upstream import FORMAT, Parser, UpstreamEvent

_CHINA = timezone(timedelta(hours=8))
_IPINYOU_COLUMNS = 24
_TALKINGDATA_HEADER = "ip,app,device,os,channel,click_time,attributed_time,is_attributed"
_ABSENT = ("", "null", "Na")


def ipinyou(event_type: str) -> Parser:
    def parse(line: str, _origin: str) -> list[UpstreamEvent]:
        columns = line.split("\t")
        if len(columns) != _IPINYOU_COLUMNS:
            raise ValueError(f"{len(columns)} columns, not {_IPINYOU_COLUMNS}")
        bid_id = _required(columns, 0, "bid id")
        # fen per thousand impressions: 1 fen = 10,000 micros, so one impression costs 10 micros per fen
        cost_micros = _whole(columns, 20, "paying price") * 10
        attributes = {
            FORMAT: "ipinyou",
            "advertiser_id": f"ipinyou-{_required(columns, 22, 'advertiser id')}",
            "campaign_id": f"ipinyou-{columns[22]}",
            "creative_id": f"ipinyou-{_required(columns, 18, 'creative id')}",
            "placement_id": _required(columns, 12, "slot id"),
            "publisher_id": _known(columns[9]),
            "site_id": _known(columns[9]),
            "pricing": "rtb",
            "currency": "CNY",
            "impression_cost_micros": str(cost_micros),
            "creative_format": "banner",
            "country": "CN",
            "region": f"ipinyou-{_whole(columns, 6, 'region')}",
            "city": columns[7],
            "exchange": columns[8],
            "slot_size": f"{_whole(columns, 13, 'slot width')}x{_whole(columns, 14, 'slot height')}",
            "slot_visibility": _known(columns[15]),
            "floor_cpm_micros": str(_whole(columns, 17, "floor price") * 10_000),
            "bid_cpm_micros": str(_whole(columns, 19, "bidding price") * 10_000),
            "user_tags": _known(columns[23]),
            **_device(columns[4]),
        }
        return [
            UpstreamEvent(
                event_type=event_type,
                source_format="ipinyou",
                upstream_id=bid_id,
                original_time_ms=_ipinyou_time_ms(columns[1]),
                user=_known(columns[3]) or None,
                ip=_known(columns[5]) or None,
                attributes={name: value for name, value in attributes.items() if value},
            )
        ]

    return parse


def talkingdata(line: str, origin: str) -> list[UpstreamEvent]:
    if line.replace(" ", "") == _TALKINGDATA_HEADER:
        return []
    columns = line.split(",")
    if len(columns) != 8:
        raise ValueError(f"{len(columns)} columns, not 8")
    ip, app, device, system, channel = (str(_whole(columns, i, _TALKINGDATA_HEADER.split(",")[i])) for i in range(5))
    if columns[7] not in ("0", "1"):
        raise ValueError("is_attributed is neither 0 nor 1")
    user = f"{ip}|{device}|{system}"
    attributes = {
        FORMAT: "talkingdata",
        "advertiser_id": f"talkingdata-{app}",
        "campaign_id": f"talkingdata-{app}",
        "creative_id": f"talkingdata-{app}-{channel}",
        "placement_id": f"talkingdata-{channel}",
        "publisher_id": f"talkingdata-{channel}",
        "pricing": "cpc",
        "currency": "CNY",
        "country": "CN",
        "device_type": "other",
        "platform": f"talkingdata-{system}",
    }
    click = UpstreamEvent(
        "click", "talkingdata", origin, _minute_or_second_ms(columns[5], "click_time"), user, ip, attributes
    )
    if columns[7] == "0":
        return [click]
    conversion = UpstreamEvent(
        "conversion",
        "talkingdata",
        origin,
        _minute_or_second_ms(columns[6], "attributed_time"),
        user,
        ip,
        attributes,
        order_id=f"talkingdata-{origin}",
    )
    return [click, conversion]


def _required(columns: list[str], index: int, name: str) -> str:
    if columns[index] in _ABSENT:
        raise ValueError(f"column {index + 1} ({name}) is empty")
    return columns[index]


def _whole(columns: list[str], index: int, name: str) -> int:
    if not (columns[index].isascii() and columns[index].isdigit()):
        raise ValueError(f"column {index + 1} ({name}) is not a whole number")
    return int(columns[index])


def _known(text: str) -> str:
    return "" if text in _ABSENT else text


def _ipinyou_time_ms(text: str) -> int:
    """Epoch ms of yyyyMMddHHmmssSSS in China's time."""
    if len(text) != 17 or not (text.isascii() and text.isdigit()):
        raise ValueError("column 2 (time) is not yyyyMMddHHmmssSSS")
    year, month, day, hour, minute, second = int(text[:4]), *(int(text[i : i + 2]) for i in range(4, 14, 2))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=_CHINA)
    except ValueError as e:
        raise ValueError(f"column 2 (time): {e}") from e
    return int(moment.timestamp()) * 1000 + int(text[14:])


def _minute_or_second_ms(text: str, name: str) -> int:
    """Epoch ms of `2017-11-07 9:30` or `2017-11-07 09:30:38` (UTC, as the data description says)."""
    form = "%Y-%m-%d %H:%M:%S" if text.count(":") == 2 else "%Y-%m-%d %H:%M"
    try:
        moment = datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError as e:
        raise ValueError(f"{name} is not yyyy-mm-dd hh:mm[:ss]") from e
    return int(moment.timestamp()) * 1000


def _device(user_agent: str) -> dict[str, str]:
    """Device type and platform of a user agent: two coarse words in place of a text that can tell people apart."""
    agent = user_agent.lower()
    if "ipad" in agent:
        return {"device_type": "tablet", "platform": "ios"}
    if "iphone" in agent or "ipod" in agent:
        return {"device_type": "phone", "platform": "ios"}
    if "android" in agent:
        return {"device_type": "phone" if "mobile" in agent else "tablet", "platform": "android"}
    for word, platform in (("windows", "windows"), ("mac os", "macos"), ("linux", "linux")):
        if word in agent:
            return {"device_type": "desktop", "platform": platform}
    return {"device_type": "other", "platform": "other"}
