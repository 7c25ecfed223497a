"""What makes two loaded models the same to a cache that servers share."""

from __future__ import annotations

import logging

import pytest

from shoal.caching.content import ModelContent, identity_of


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "config.pbtxt": "c",
        "labels.txt": "l",
        "1/model.py": "one",
        "1/deep/weights.bin": "w",
        "2/model.py": "two",
        "shared/helper.py": "h",
    }.items():
        path = tmp_path / "fish" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "fish"


def made(folder, version=1, config=b"config", **options):
    content = ModelContent(folder, version, config, options)
    content.fingerprint()
    return content.identity


def test_two_loads_are_two_models_until_their_content_is_looked_at(folder):
    """The local cache: a model that is loaded again begins with no answers, whatever is in its folder."""
    one, other = ModelContent(folder, 1, b""), ModelContent(folder, 1, b"")
    assert one.identity != other.identity
    one.fingerprint()
    other.fingerprint()
    assert one.identity == other.identity


@pytest.mark.parametrize("name", ["config.pbtxt", "1/model.py", "1/deep/weights.bin", "shared/helper.py", "1/new.py"])
def test_every_file_of_the_version_counts(folder, name):
    before = made(folder)
    (folder / name).write_text("changed")
    assert made(folder) != before


def test_a_moved_file_counts(folder):
    before = made(folder)
    (folder / "1/deep/weights.bin").rename(folder / "1/deep/other.bin")
    assert made(folder) != before


def test_other_versions_and_bytecode_do_not_count(folder):
    before = made(folder)
    (folder / "2/model.py").write_text("changed")
    (folder / "1/__pycache__").mkdir()
    (folder / "1/__pycache__/model.pyc").write_text("x")
    assert made(folder) == before


def test_version_configuration_and_backend_settings_count(folder):
    identities = {made(folder), made(folder, 2), made(folder, 1, b"other"), made(folder, threads="2")}
    assert len(identities) == 4


def test_a_folder_that_cannot_be_read_shares_nothing(folder, caplog):
    content = ModelContent(folder / "gone", 1, b"")
    before = content.identity
    with caplog.at_level(logging.WARNING):
        content.fingerprint()
    assert content.identity == before
    assert "shares no cached responses" in caplog.text


def test_an_ensemble_is_another_when_a_member_is(folder):
    members = [ModelContent(folder, 1, b""), ModelContent(folder, 2, b"")]
    identity = identity_of(ModelContent(folder, 1, b"ensemble"), lambda: members)
    before = identity()
    assert identity() == before
    members[1] = ModelContent(folder, 2, b"")  # loaded again
    assert identity() != before
