"""The settings of the local Druid: complete, on this stack's ports, under this stack's home, on loopback."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.endpoints import Endpoints
from infra.local.druid.host import prepare
from infra.local.druid.properties import FOLDERS, ROLES, data_folder, role_properties


def settings(home: Path) -> Endpoints:
    return Endpoints(home=home, port_base=21000)


def test_each_role_listens_on_its_own_port(tmp_path):
    ports = {role: own["druid.plaintextPort"] for role, own in role_properties(settings(tmp_path)).items()}
    assert ports == {"coordinator": "21010", "broker": "21011", "historical": "21012", "indexer": "21013"}
    assert set(ports) == set(ROLES)


def test_nothing_listens_beyond_this_machine(tmp_path):
    for role in role_properties(settings(tmp_path)).values():
        assert role["druid.host"] == "127.0.0.1"
        assert role["druid.bindOnHost"] == "true"
        assert role["druid.metadata.storage.connector.host"] == "127.0.0.1"


def test_all_data_lies_under_the_stacks_home(tmp_path):
    given = settings(tmp_path)
    for role in role_properties(given).values():
        for key, value in role.items():
            for path in re.findall(r"(?<![\w/.:])/[\w./-]+", value):
                at_home = path.startswith(str(data_folder(given)))
                assert at_home or key == "druid.zk.paths.base", f"{key}={value}"
            assert "$" not in value


def test_a_role_does_not_see_the_others_settings(tmp_path):
    properties = role_properties(settings(tmp_path))
    assert "druid.worker.capacity" in properties["indexer"]
    assert "druid.worker.capacity" not in properties["broker"]
    assert int(properties["indexer"]["druid.worker.capacity"]) >= 3, "each supervisor holds a slot, corrections two"


def test_a_start_keeps_segments_and_metadata_and_forgets_discovery(tmp_path):
    given = settings(tmp_path)
    data = prepare(given)
    for name in FOLDERS:
        (data / name / "file").touch()
    (data / "metadata.db").mkdir()
    prepare(given)
    assert (data / "segments" / "file").exists()
    assert (data / "metadata.db").exists()
    assert not (data / "zookeeper" / "file").exists()
    assert (data / "zookeeper").is_dir()
