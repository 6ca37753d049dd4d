"""Tests of the files that an installed package needs and a checkout has at other places."""

from __future__ import annotations

import configparser

import pytest

from mes.cli.package_files import write_default_catalog
from tests.support.process import ROOT

CATALOGS = ["models.json", "models.embedded.json"]


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELS_CONFIG_PATH", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", CATALOGS)
def test_a_missing_catalog_is_written_as_the_checkout_has_it(empty_folder, name, capsys):
    write_default_catalog(f"config/{name}")
    written = (empty_folder / "config" / name).read_bytes()
    assert written == (ROOT / "config" / name).read_bytes()
    assert f"wrote config/{name}" in capsys.readouterr().err


def test_a_catalog_that_exists_is_kept(empty_folder):
    (empty_folder / "config").mkdir()
    (empty_folder / "config" / "models.json").write_text("{}")
    write_default_catalog("config/models.json")
    assert (empty_folder / "config" / "models.json").read_text() == "{}"


def test_no_catalog_is_written_beside_a_configured_one(empty_folder):
    (empty_folder / ".env").write_text("MODELS_CONFIG_PATH=/etc/mes/models.json\n")
    write_default_catalog("config/models.json")
    assert not (empty_folder / "config").exists()


def test_a_wheel_has_every_file_that_the_program_reads():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packaged = {
        path
        for package, globs in setup["options.package_data"].items()
        for glob in globs.split()
        for path in (ROOT / package.replace(".", "/")).glob(glob)
    }
    others = {path for path in (ROOT / "mes").rglob("*") if path.is_file()} - packaged
    assert {path.suffix for path in others} <= {".py", ".pyc", ".md"}
