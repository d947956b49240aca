"""docker-compose.yml and what it names fit together: run as far as it can be without Docker."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from reactor.server.settings import Settings
from tests.support.ports import reserve_port
from tests.support.server import ROOT, Server

CADDYFILE = (ROOT / "Caddyfile").read_text()
DOCKERFILE = [shlex.split(line) for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
IGNORED = (ROOT / ".dockerignore").read_text().split()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text()
    composed = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    assert composed.keys() == {"services", "volumes"}
    found: dict[str, Any] = composed["services"]
    return found


@pytest.fixture(scope="module")
def nodes(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if service.get("build") == "."}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What the image has, and nothing else, run as its command says."""
    folder = tmp_path_factory.mktemp("image")
    for instruction, *words in DOCKERFILE:
        if instruction != "COPY":
            continue
        *sources, target = words
        for source in sources:
            assert not any(Path(source).match(pattern) for pattern in IGNORED), f"{source} is ignored"
            into = folder / target / source if (ROOT / source).is_file() else folder / target
            into.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copy if (ROOT / source).is_file() else shutil.copytree)(ROOT / source, into)
    [command] = [words for instruction, *words in DOCKERFILE if instruction == "CMD"]
    assert [word.strip("[],") for word in command] == ["reactor", "start"]
    with Server(folder, app=folder, command="start") as server:
        yield server


def test_each_node_is_one_more_of_the_same_and_waits_for_its_database(services: dict[str, Any], nodes: dict[str, Any]) -> None:
    assert len(nodes) >= 2
    for node in nodes.values():
        assert node == next(iter(nodes.values()))
        for name, condition in node["depends_on"].items():
            assert condition == {"condition": "service_healthy"} and "healthcheck" in services[name]


def test_the_nodes_settings_are_reactors_and_name_the_database_that_is_started(services: dict[str, Any], nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        settings = Settings(**{name.removeprefix("REACTOR_").lower(): value for name, value in node["environment"].items()})
        assert all(name.removeprefix("REACTOR_").lower() in Settings.model_fields for name in node["environment"])
        assert settings.host == "0.0.0.0"
        address = urlsplit(settings.postgres or "")
        database = services[address.hostname or ""]["environment"]
        assert (address.username, address.password) == (database["POSTGRES_USER"], database["POSTGRES_PASSWORD"])
        assert (address.path, address.port) == (f"/{database['POSTGRES_DB']}", 5432)
        assert float(node["stop_grace_period"].removesuffix("s")) > settings.stop_timeout_s


def test_the_image_has_what_a_node_needs(server: Server) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [installed] = [words[-1] for _, *words in DOCKERFILE if words[:2] == ["pip", "install"]]
    assert installed.removeprefix(".[").removesuffix("]") in extras
    assert server.answers()


def test_the_nodes_health_check_tells_a_node_that_lives_from_one_that_does_not(nodes: dict[str, Any], server: Server) -> None:
    for node in nodes.values():
        kind, python, *arguments = node["healthcheck"]["test"]
        assert (kind, python) == ("CMD", "python")
        for port, status in ((server.port, 0), (reserve_port(), 1)):
            command = [argument.replace(str(Settings.model_fields["port"].default), str(port)) for argument in arguments]
            assert command != arguments
            assert subprocess.run([sys.executable, *command], capture_output=True, timeout=60).returncode == status


def test_the_proxy_asks_every_node_whether_it_is_ready(services: dict[str, Any], nodes: dict[str, Any], server: Server) -> None:
    proxy = services["proxy"]
    assert "./Caddyfile:/etc/caddy/Caddyfile:ro" in proxy["volumes"] and set(proxy["depends_on"]) == set(nodes)
    port = Settings.model_fields["port"].default
    [upstreams] = re.findall(r"^\s*reverse_proxy (.*) \{$", CADDYFILE, re.MULTILINE)
    assert upstreams.split() == [f"{name}:{port}" for name in nodes]
    [listening] = re.findall(r"^(:\d+) \{$", CADDYFILE, re.MULTILINE)
    assert [published.partition(":")[2] for published in proxy["ports"]] == [listening.removeprefix(":")]
    [path] = re.findall(r"^\s*health_uri (\S+)$", CADDYFILE, re.MULTILINE)
    answer = httpx.get(f"{server.url}{path}", trust_env=False)
    assert answer.is_success and json.loads(answer.content)["ready"] is True
    assert CADDYFILE.count("{") == CADDYFILE.count("}")


def test_the_databases_volume_is_declared(services: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert {volume.partition(":")[0] for volume in services["postgres"]["volumes"]} == set(yaml.safe_load(text)["volumes"])
