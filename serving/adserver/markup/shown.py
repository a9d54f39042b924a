"""A winner's markup, whatever it is and whoever made it: banner, native, video or audio, with our trackers in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from html import escape

from schemas.decisions import Outcome
from serving.adserver import metrics
from serving.adserver.auction.macros import substitute
from serving.adserver.auction.rules import Candidate
from serving.adserver.markup import banner, native, vast
from serving.adserver.markup.trackers import Trackers
from serving.adserver.markup.unwrap import Broken
from serving.adserver.openrtb.impressions import Imp

logger = logging.getLogger(__name__)

#: What a DSP's wrapped markup of a creative leads to, if that is known (unwrap.py).
Look = Callable[[str, str], bytes | None]


class Unshowable(Exception):
    """Markup of a DSP that can't be shown; the message says why, the outcome as what it is logged."""

    def __init__(self, reason: str, outcome: Outcome = Outcome.INVALID_RESPONSE) -> None:
        super().__init__(reason)
        self.outcome = outcome


def shown(
    winner: Candidate,
    ad_format: str,
    imp: Imp,
    identity: vast.AdIdentity,
    trackers: Trackers,
    limit_bytes: int,
    macros: Mapping[str, str],
    look: Look = lambda _creative_id, _markup: None,
) -> str:
    """What the player or page gets. `macros` are values of a bid's own. Errors: Unshowable, whatever went wrong: markup
    is a stranger's, and what nobody foresaw of it costs that winner its turn, and nobody else's.
    """
    try:
        return _made(winner, ad_format, imp, identity, trackers, limit_bytes, macros, look)
    except Unshowable:
        raise
    except Exception as e:
        logger.exception("markup failed")
        metrics.MARKUP_FAILED.labels(winner.kind).inc()
        raise Unshowable(type(e).__name__, Outcome.INTERNAL_ERROR) from e


def _made(
    winner: Candidate,
    ad_format: str,
    imp: Imp,
    identity: vast.AdIdentity,
    trackers: Trackers,
    limit_bytes: int,
    macros: Mapping[str, str],
    look: Look,
) -> str:
    if winner.row is not None:
        creative = winner.row.creative
        if ad_format == "banner":
            return banner.own(creative, trackers)
        if ad_format == "native":
            request = imp.native.request if imp.native is not None else ""
            return native.own(creative, request, identity, winner.row.campaign.name, trackers)
        return vast.inline(identity, creative, winner.row.campaign.name, trackers, _player(imp))
    bid = winner.bid
    if bid is None:
        raise Unshowable("no bid")
    markup = substitute(bid.adm or bid.nurl, macros)
    if len(markup) > limit_bytes:
        raise Unshowable(f"longer than {limit_bytes} bytes")
    if ad_format == "banner":
        return banner.with_trackers(markup if bid.adm else _frame(markup, bid.w, bid.h), trackers)
    try:
        if ad_format == "native":
            return native.with_trackers(markup, imp.native.request if imp.native is not None else "", trackers)
        inner = look(winner.creative_id, markup)
        if inner is not None and imp.secure == 1 and b"http://" in inner:
            inner = None  # the chain was judged as it was sold; what is behind it may load what this page may not
        return vast.with_trackers(markup, identity, trackers, limit_bytes, _player(imp), inner)
    except Broken as e:
        raise Unshowable(str(e), Outcome.CREATIVE_BROKEN) from e
    except (vast.NotVast, native.NotNative) as e:
        raise Unshowable(str(e)) from e


def tracked_as(winner: Candidate, ad_format: str, imp: Imp) -> str:
    """The format whose events a winner's markup reports: a native ad of ours may have a video in it."""
    if ad_format == "native" and winner.row is not None and imp.native is not None:
        return "video" if native.plays_video(winner.row.creative, imp.native.request) else ad_format
    return ad_format


def _player(imp: Imp) -> vast.Player:
    """The imp's player. Errors: Unshowable for one that knows no version of VAST that we answer in."""
    player = vast.player_of(imp)
    if player is None:
        raise Unshowable("no version of VAST that the player knows", Outcome.FORMAT)
    return player


def _frame(url: str, w: int | None, h: int | None) -> str:
    """A banner that the win notice's answer holds (OpenRTB 2.6 §4.3, markup served on the win notice): the page loads
    it, and with that gives the notice.
    """
    return (
        f'<iframe src="{escape(url)}" width="{w or 0}" height="{h or 0}" frameborder="0" scrolling="no" '
        'style="border:0"></iframe>'
    )
