"""Tests that the settings of nginx, Compose, systemd and Ollama agree with those of MES."""

from __future__ import annotations

import re

import pytest

from mes.config.catalog import CatalogFile
from mes.config.settings import load
from mes.config.settings_schema import NAMES
from tests.support.compose import composed, environment_of_mes
from tests.support.process import ROOT

DEFAULTS = load({}, dotenv=None)
CONFIGURATION = (ROOT / "mes/serve/gunicorn_conf.py").read_text()
CATALOG = CatalogFile(ROOT / "config/models.json", DEFAULTS.default_timeout_seconds).current()
NGINX = (ROOT / "deploy/nginx.conf").read_text()
UNIT = (ROOT / "deploy/mes.service").read_text()


def of_nginx(directive: str) -> int:
    """Return the number of a directive in nginx.conf."""
    [number] = re.findall(rf"^ *{directive} (\d+)s?;", NGINX, re.MULTILINE)
    return int(number)


def of_unit(name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return value


@pytest.fixture
def services():
    return composed()


def test_nginx_waits_as_long_as_a_request_may_take():
    longest = (
        DEFAULTS.queue_timeout_seconds
        + DEFAULTS.unload_timeout_seconds
        + 2 * DEFAULTS.load_timeout_seconds
        + DEFAULTS.load_retry_pause_seconds
        + DEFAULTS.max_timeout_seconds
    )
    assert longest < of_nginx("proxy_read_timeout") <= longest + 60


def test_nginx_accepts_as_large_a_body_as_mes():
    assert of_nginx("client_max_body_size") == DEFAULTS.max_body_bytes
    assert f"the limit of {DEFAULTS.max_body_bytes} bytes" in NGINX


def test_nginx_closes_idle_connections_before_gunicorn_does():
    upstream = NGINX.partition("upstream mes {")[2].partition("}")[0]
    [nginx] = re.findall(r"keepalive_timeout (\d+)s;", upstream)
    [gunicorn] = re.findall(r"^keepalive = (\d+)", CONFIGURATION, re.M)
    assert int(nginx) < int(gunicorn)


def test_nginx_connects_to_the_port_of_mes():
    assert f"server 127.0.0.1:{DEFAULTS.port} " in NGINX


def test_compose_sets_valid_settings_of_mes(services):
    environ = environment_of_mes(MES_API_KEY="own")
    assert set(environ) <= set(NAMES)
    settings = load(environ, dotenv=None)
    assert (settings.host, settings.api_key) == ("0.0.0.0", "own")
    assert f":{settings.port}" in services["mes"]["ports"][0]
    assert f"mes:{settings.port}" in services["nginx"]["command"][-1]


def test_compose_gives_ollama_the_limits_of_mes():
    services = composed(MAX_LOADED_MODELS="5", LOAD_TIMEOUT="77")
    ollama, mes = services["ollama"]["environment"], services["mes"]["environment"]
    assert ollama["OLLAMA_MAX_LOADED_MODELS"] == mes["MAX_LOADED_MODELS"] == 5
    assert ollama["OLLAMA_LOAD_TIMEOUT"] == f"{mes['LOAD_TIMEOUT']}s" == "77s"
    assert ollama["OLLAMA_KEEP_ALIVE"] == "10m"


def test_compose_has_the_defaults_of_mes():
    settings = load(environment_of_mes(MES_API_KEY="own"), dotenv=None)
    for name in ("max_loaded_models", "load_timeout_seconds", "graceful_timeout_seconds"):
        assert getattr(settings, name) == getattr(DEFAULTS, name)


def test_ollama_runs_as_many_requests_in_parallel_as_the_catalog_allows(services):
    ollama = services["ollama"]["environment"]
    busiest = max(spec.max_concurrent for spec in CATALOG.enabled)
    assert int(ollama["OLLAMA_NUM_PARALLEL"]) >= busiest
    # Requests wait in MES; Ollama gets those with a permit.
    assert int(ollama["OLLAMA_MAX_QUEUE"]) > sum(spec.max_concurrent for spec in CATALOG.enabled)


def test_running_requests_can_finish_before_the_service_is_killed(services):
    compose = [services[name]["stop_grace_period"].rstrip("s") for name in ("mes", "nginx")]
    assert (
        min(map(int, [*compose, of_unit("TimeoutStopSec")]))
        >= DEFAULTS.graceful_timeout_seconds + 5
    )


def test_the_unit_keeps_its_state_in_its_own_folder_in_memory():
    assert of_unit("Environment") == f"STATE_DIR=%t/{of_unit('RuntimeDirectory')}"
