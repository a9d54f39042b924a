"""The schema registry connector against a real registry."""

from __future__ import annotations

import json
import uuid

import pytest
from fastavro import parse_schema

from connectors.endpoints import Endpoints
from connectors.registry import NotRegistered, SchemaRegistry
from infra.contracts import register_subjects
from schemas.codec import parsed_schema
from schemas.errors import IncompatibleSchema, Refused, Unavailable
from schemas.topics import TOPICS

BASE = {"type": "record", "name": "Ad", "fields": [{"name": "id", "type": "string"}]}
WITH_DEFAULT = {**BASE, "fields": [*BASE["fields"], {"name": "n", "type": "long", "default": 0}]}
WITHOUT_DEFAULT = {**BASE, "fields": [*BASE["fields"], {"name": "n", "type": "long"}]}


@pytest.fixture(scope="module")
def registry(local_services: Endpoints) -> SchemaRegistry:
    return SchemaRegistry()


@pytest.fixture
def subject(registry: SchemaRegistry) -> str:
    name = f"test-{uuid.uuid4().hex}-value"
    registry.set_compatibility(name, "FULL_TRANSITIVE")
    registry.register(name, json.dumps(BASE))
    return name


def test_declared_subjects_are_registered_under_their_rule(registry: SchemaRegistry) -> None:
    for topic in TOPICS:
        if topic.schema:
            schema_id, text = registry.latest(topic.subject)
            # parsed, since the registry spells names its own way (no namespace where it is inherited)
            assert parse_schema(json.loads(text)) == parsed_schema(topic.schema)
            assert registry.schema(schema_id) == json.loads(text)
            assert registry.compatibility(topic.subject) == topic.compatibility


def test_registering_again_gives_the_same_ids(registry: SchemaRegistry) -> None:
    assert register_subjects(registry) == register_subjects(registry)


def test_a_field_with_default_is_a_new_version(registry: SchemaRegistry, subject: str) -> None:
    assert registry.is_compatible(subject, json.dumps(WITH_DEFAULT))[0]
    registry.register(subject, json.dumps(WITH_DEFAULT))
    assert registry.versions(subject) == [1, 2]
    assert json.loads(registry.version(subject, 1)) == BASE


def test_a_field_without_default_is_refused(registry: SchemaRegistry, subject: str) -> None:
    assert not registry.is_compatible(subject, json.dumps(WITHOUT_DEFAULT))[0]
    with pytest.raises(IncompatibleSchema):
        registry.register(subject, json.dumps(WITHOUT_DEFAULT))
    assert registry.versions(subject) == [1]


def test_what_is_unknown_says_so(registry: SchemaRegistry) -> None:
    with pytest.raises(NotRegistered):
        registry.schema(2_000_000_000)
    with pytest.raises(NotRegistered):
        registry.latest("no-such-subject")
    assert registry.compatibility("no-such-subject") is None
    assert registry.is_compatible("no-such-subject", json.dumps(BASE)) == (True, [])


def test_what_is_no_schema_is_refused(registry: SchemaRegistry, subject: str) -> None:
    with pytest.raises(Refused):
        registry.register(subject, '{"type": "nonsense"}')


def test_no_registry_is_unavailable(local_services: Endpoints) -> None:
    with pytest.raises(Unavailable):
        SchemaRegistry("http://127.0.0.1:1").subjects()


def test_a_known_id_is_served_without_the_registry(registry: SchemaRegistry, subject: str) -> None:
    own = SchemaRegistry()
    schema_id, _ = own.latest(subject)
    first = own.schema(schema_id)
    own.close()  # every request from here on would fail
    assert own.schema(schema_id) is first
