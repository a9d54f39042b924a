"""Druid's settings for each role, from `druid.properties` and the endpoints of this stack."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from connectors.endpoints import PORT_OFFSETS, Endpoints

ROLES = ("coordinator", "historical", "indexer", "broker")

#: Folders under the data folder that must exist before Druid starts.
FOLDERS = ("zookeeper", "segments", "segment-cache", "indexing-logs", "processing", "task", "tmp")


def data_folder(settings: Endpoints) -> Path:
    """Where this stack's Druid keeps everything."""
    return settings.home / "druid"


def role_properties(settings: Endpoints) -> dict[str, dict[str, str]]:
    """The properties of each role: the shared ones, overlaid with its own.

    Errors: KeyError when the file names a port that `PORT_OFFSETS` does not have.
    """
    text = resources.files(__package__).joinpath("druid.properties").read_text()
    names = {name: str(settings.port(name)) for name in PORT_OFFSETS}
    filled = Template(text).substitute(names, host=settings.host, data=str(data_folder(settings)))
    shared: dict[str, str] = {}
    own: dict[str, dict[str, str]] = {role: {} for role in ROLES}
    for line in filled.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, _, value = line.partition("=")
        role, at, name = key.partition("@")
        if at:
            own[role][name] = value
        else:
            shared[key] = value
    return {role: shared | own[role] for role in ROLES}
