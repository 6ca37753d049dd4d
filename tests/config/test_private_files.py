"""Private files: nothing that another user can change is used, and no link is followed."""

from __future__ import annotations

import os
import pwd

import pytest

from mes.config.catalog import CatalogFile
from mes.config.private_files import (
    NotPrivate,
    make_private_folder,
    open_private,
    read_private,
    replace_private,
)


@pytest.fixture
def folder(tmp_path):
    make_private_folder(tmp_path / "state")
    return tmp_path / "state"


def test_a_new_folder_is_for_its_owner_alone(folder):
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused_with_the_remedy(folder, mode):
    folder.chmod(mode)
    with pytest.raises(NotPrivate, match=f"mode {mode:o}.*chmod 700 {folder}.*set STATE_DIR"):
        make_private_folder(folder)


def test_a_folder_that_others_can_read_is_used(folder):
    folder.chmod(0o755)
    make_private_folder(folder)


@pytest.mark.parametrize("target", ["state", "absent"])
def test_a_link_to_a_folder_is_refused(folder, tmp_path, target):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    with pytest.raises(NotPrivate, match="link is a symbolic link; remove it"):
        make_private_folder(link)
    assert not (tmp_path / "absent").exists()


def test_a_folder_of_another_user_is_refused_with_both_names(folder, monkeypatch):
    owner = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "geteuid", lambda: 60_001)
    reason = f"belongs to the user {owner}, and MES runs as 60001; remove it as {owner}.*STATE_DIR"
    with pytest.raises(NotPrivate, match=reason):
        make_private_folder(folder)


def test_a_link_in_place_of_a_file_is_not_followed(folder, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    (folder / "file").symlink_to(precious)
    for use in (open_private, read_private):
        with pytest.raises(NotPrivate, match="file is a symbolic link"):
            use(folder / "file")
    with pytest.raises(NotPrivate, match="file is a symbolic link"):
        replace_private(folder / "new", b"", draft=folder / "file")
    assert precious.read_text() == "keep me"


def test_a_link_that_leads_nowhere_creates_no_file(folder, tmp_path):
    (folder / "file").symlink_to(tmp_path / "absent")
    with pytest.raises(NotPrivate):
        open_private(folder / "file")
    assert not (tmp_path / "absent").exists()


def test_a_file_is_replaced_and_is_for_its_owner_alone(folder):
    for content in (b"a longer text", b"b"):
        replace_private(folder / "file", content, draft=folder / "draft")
        assert read_private(folder / "file") == content
    assert (folder / "file").stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder) == ["file"]


def test_a_catalog_that_another_user_may_have_planted_is_not_restored(folder, tmp_path):
    (tmp_path / "models.json").write_text("{")
    (folder / "catalog.json").write_text('{"models": {"planted": {}}}')
    folder.chmod(0o777)
    file = CatalogFile(tmp_path / "models.json", 30, last_good_path=folder / "catalog.json")
    with pytest.raises(ValueError, match="is not JSON"):
        file.current()
