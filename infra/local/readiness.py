"""Readiness checks that ask for real work: each returns when the system answers, and raises `NotReady` until then."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable

from connectors.endpoints import Endpoints
from infra.local.component import NotReady

TIMEOUT_S = 3.0


def _get(url: str, body: object | None = None) -> object:
    """The JSON (or text) of an answer with status 200. Errors: NotReady for anything else."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise NotReady(f"{url}: {error}") from None
    try:
        return json.loads(text)
    except ValueError:
        return text


def kafka(endpoints: Endpoints) -> None:
    """A metadata request is answered with a broker and its controller."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    with socket.create_connection((endpoints.host, endpoints.port("kafka")), TIMEOUT_S):
        pass  # librdkafka would log each refused connection: ask it only when someone listens
    client = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap, "log_level": 0})
    try:
        metadata = client.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise NotReady(str(error)) from None
    if not metadata.brokers:
        raise NotReady("no broker is registered")


def registry(endpoints: Endpoints) -> None:
    """The subjects are listed through the Confluent-compatible API."""
    if not isinstance(_get(f"{endpoints.registry_url}/subjects"), list):
        raise NotReady("subjects are not a list")


def valkey(endpoints: Endpoints) -> None:
    """PING is answered with PONG: data is loaded."""
    with socket.create_connection((endpoints.host, endpoints.port("valkey")), TIMEOUT_S) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(b"PING\r\n")
        answer = connection.recv(64)
    if answer != b"+PONG\r\n":
        raise NotReady(answer.decode(errors="replace").strip())


def flink_jobmanager(endpoints: Endpoints) -> None:
    """The REST door answers with the cluster's overview."""
    _get(f"{endpoints.flink_rest_url}/overview")


def flink_taskmanager(endpoints: Endpoints) -> None:
    """A TaskManager has registered its slots."""
    overview = _get(f"{endpoints.flink_rest_url}/overview")
    if not isinstance(overview, dict) or overview.get("slots-total", 0) < 1:
        raise NotReady("no TaskManager has registered")


def druid(endpoints: Endpoints) -> None:
    """The broker answers SQL, and the overlord leads (it can take supervisors)."""
    if _get(f"{endpoints.druid_broker_url}/druid/v2/sql", {"query": "SELECT 1 AS answer"}) != [{"answer": 1}]:
        raise NotReady("SELECT 1 has another answer")
    leader = _get(f"{endpoints.druid_coordinator_url}/druid/indexer/v1/isLeader")
    if leader != {"leader": True}:
        raise NotReady("no overlord leads yet")


def mlflow(endpoints: Endpoints) -> None:
    """The tracking store answers a search."""
    _get(f"{endpoints.mlflow_url}/api/2.0/mlflow/experiments/search", {"max_results": 1})


def status_of(port: str) -> Callable[[Endpoints], None]:
    """A check that `GET /status` on a named port answers 200."""

    def check(endpoints: Endpoints) -> None:
        _get(f"http://{endpoints.host}:{endpoints.port(port)}/status")

    return check
