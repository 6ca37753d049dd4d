"""Tests of docker-compose.yml: what each container may do, and whom it can reach."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from mes.config.catalog import CatalogFile
from mes.config.settings import load
from tests.support.compose import GPU, composed, environment_of_mes
from tests.support.process import ROOT

SERVICES = composed()
NGINX = ROOT / "deploy" / "nginx.conf"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DIGEST = "@sha256:[0-9a-f]{64}"
# The first nginx without CVE-2026-123007 and the vulnerabilities before it.
OLDEST_NGINX = (1, 30, 7)


@pytest.mark.parametrize(
    "name", ["README.md", "docs/operations.md", "docs/settings.md", ".env.example"]
)
def test_env_is_created_for_its_owner_alone(name):
    text = (ROOT / name).read_text()
    assert "install -m 600 .env.example .env" in text
    assert not re.search(r"(cp \S+|>) +\.env\b(?!')", text), "others could read the file"


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_change_nothing_and_has_no_privileges(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert "mem_limit" in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES.keys() - {"mes", "ollama-volume"})
def test_a_service_does_not_run_as_root(name):
    user, group = SERVICES[name]["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_mes_does_not_run_as_root():
    # The last USER of the Dockerfile is that of its last stage.
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.M)[-1:] == ["10001"]
    assert "user" not in SERVICES["mes"]


def test_only_the_owner_of_ollamas_volume_is_changed_by_root():
    once, ollama = SERVICES["ollama-volume"], SERVICES["ollama"]
    assert once["entrypoint"] == ["chown", "-hR", ollama["user"], "/models"]
    assert once["cap_add"] == ["CHOWN", "DAC_OVERRIDE"]
    assert once["network_mode"] == "none"
    assert once["restart"] == "no"
    assert once["image"] == ollama["image"]
    [volume] = ollama["volumes"]
    assert once["volumes"] == [f"{volume.partition(':')[0]}:/models"]
    done = ollama["depends_on"]["ollama-volume"]["condition"]
    assert done == "service_completed_successfully"
    assert not any("cap_add" in service for name, service in SERVICES.items() if service != once)


def test_only_mes_can_reach_ollama():
    assert "ports" not in SERVICES["ollama"]
    assert SERVICES["mes"]["ports"][0].startswith("127.0.0.1:")
    networks = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert [name for name in networks if networks[name] & networks["ollama"]] == ["mes", "ollama"]
    assert networks["nginx"] & networks["mes"]


def test_mes_is_allowed_the_threads_of_all_its_workers():
    settings = load(environment_of_mes(MES_API_KEY="own"), dotenv=None)
    catalog = CatalogFile(ROOT / "config/models.json", settings.default_timeout_seconds).current()
    threads = settings.workers * settings.threads_for(catalog.capacity)
    assert SERVICES["mes"]["pids_limit"] > 1.2 * threads


def test_the_image_of_mes_is_built_and_never_pulled():
    assert SERVICES["mes"]["pull_policy"] == "build"


def test_every_image_has_an_exact_version():
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(images) == 5
    for image in images:
        assert re.fullmatch(rf"[\w/]+:\d+\.\d+\.\d+[\w.-]*({DIGEST})?", image), image


def test_the_images_of_mes_and_ollama_are_pinned_by_digest():
    assert re.search(rf"{DIGEST}\Z", SERVICES["ollama"]["image"])
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(set(bases)) == 1, "both stages have the same base"
    assert re.search(rf"{DIGEST}\Z", bases[0])


def test_nginx_has_no_known_vulnerabilities():
    version = re.match(r"nginx:(\d+)\.(\d+)\.(\d+)", SERVICES["nginx"]["image"])
    assert tuple(map(int, version.groups())) >= OLDEST_NGINX


def test_nginx_has_the_shipped_configuration_with_the_host_name_of_mes(tmp_path):
    [shell, option, command] = SERVICES["nginx"]["command"]
    command = command.replace("/tmp/", f"{tmp_path}/").replace("/mes/nginx.conf", str(NGINX))
    started = subprocess.run(
        [shell, option, command.replace("exec nginx", "exec echo")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    expected = ["-c", f"{tmp_path}/nginx.conf", "-g", f"daemon off; pid {tmp_path}/nginx.pid;"]
    assert started.stdout == " ".join(expected) + "\n"
    configuration = (tmp_path / "nginx.conf").read_text()
    assert configuration == NGINX.read_text().replace("127.0.0.1:8001", "mes:8001")
    assert "server mes:8001 " in configuration


def test_a_gpu_needs_no_edit_of_a_file():
    override = composed(GPU)
    assert override.keys() < SERVICES.keys()
    [device] = override["ollama"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_volumes_and_networks_are_declared():
    text = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    used = {name for service in SERVICES.values() for name in service.get("networks", ())}
    assert used == text["networks"].keys()
    mounts = [each for service in SERVICES.values() for each in service["volumes"]]
    named = {each.partition(":")[0] for each in mounts if not each.startswith(".")}
    assert named == text["volumes"].keys()
