"""What lies in the repositories, and which versions of it are served."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.model_config_pb2 import ModelVersionPolicy
from shoal.errors import InvalidArgumentError, NotFoundError
from shoal.repository.storage import scan, scan_model, select_versions


def make(repository, *folders):
    for folder in folders:
        (repository / folder).mkdir(parents=True, exist_ok=True)
    return repository


def test_models_and_versions_are_found_in_order(tmp_path):
    make(tmp_path, "b/1", "a/10", "a/9", "a/2", "c")
    (tmp_path / "README.md").touch()
    (tmp_path / "a" / "3").touch()
    index = scan([tmp_path])
    assert [(name, folder.versions) for name, folder in index.models.items()] == [
        ("a", (2, 9, 10)),
        ("b", (1,)),
        ("c", ()),
    ]
    assert index.models["a"].path == tmp_path / "a"
    assert index.models["a"].repository == tmp_path
    assert index.problems == {}


def test_what_is_no_version_is_ignored_with_a_warning(tmp_path):
    make(tmp_path / "m", "1", "0", "01", "-1", "v2", "1.5", "\u0661", "9" * 30)
    folder = scan_model(tmp_path, "m")
    assert folder.versions == (0, 1)
    assert [warning.split(": ", 1)[1] for warning in folder.warnings] == [
        "ignored, for its name is not made of digits; a version is a whole number such as 1",
        "ignored, for its name starts with a zero; a version is a whole number such as 1",
        "ignored, for its name is not made of digits; a version is a whole number such as 1",
        "ignored, for its number is too large; a version is a whole number such as 1",
        "ignored, for its name is not made of digits; a version is a whole number such as 1",
        "ignored, for its name is not made of digits; a version is a whole number such as 1",
    ]


def test_known_folders_are_passed_over_silently(tmp_path):
    make(tmp_path / "m", "1", "configs", "warmup", "initial_state", "__pycache__", ".ipynb_checkpoints")
    assert scan_model(tmp_path, "m").warnings == ()


def test_folders_with_a_dot_are_no_models(tmp_path):
    make(tmp_path, ".git/1", "m/1")
    assert list(scan([tmp_path]).models) == ["m"]


def test_a_model_in_two_repositories_is_served_from_neither(tmp_path):
    """Triton's words for the reason come first."""
    one, two = make(tmp_path / "one", "m/1", "x/1"), make(tmp_path / "two", "m/1")
    index = scan([one, two])
    assert list(index.models) == ["x"]
    reason = f"model appears in two or more repositories: {one}/m, {two}/m; rename or remove all but one"
    assert index.problems == {"m": reason}


def test_a_repository_given_twice_is_one(tmp_path):
    make(tmp_path, "m/1")
    index = scan([tmp_path, tmp_path / "m" / ".."])
    assert (list(index.models), index.problems) == (["m"], {})
    assert index.models["m"].repository == tmp_path


def test_a_linked_folder_is_a_model(tmp_path):
    make(tmp_path, "elsewhere/1", "models")
    (tmp_path / "models" / "m").symlink_to(tmp_path / "elsewhere")
    assert scan([tmp_path / "models"]).models["m"].versions == (1,)


def test_a_missing_repository_is_an_error(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere: the model repository does not exist"):
        scan([tmp_path, tmp_path / "nowhere"])


def test_a_repository_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="file: the model repository must be a folder, and this is a file"):
        scan([tmp_path / "file"])


def test_an_unreadable_model_is_a_problem_of_that_model(tmp_path, monkeypatch):
    """Simulated, for root may read everything."""
    make(tmp_path, "good/1", "bad/1")
    real = os.scandir if hasattr(os, "scandir") else None
    listdir = os.listdir

    def refuse(original):
        def guarded(path="."):
            if str(path).endswith("bad"):
                raise PermissionError(13, "Permission denied")
            return original(path)

        return guarded

    monkeypatch.setattr(os, "listdir", refuse(listdir))
    monkeypatch.setattr(os, "scandir", refuse(real))
    index = scan([tmp_path])
    assert list(index.models) == ["good"]
    assert index.problems == {"bad": f"{tmp_path}/bad: the folder of model 'bad' cannot be read: Permission denied"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ModelVersionPolicy(), [10]),
        (ModelVersionPolicy(latest={"num_versions": 2}), [9, 10]),
        (ModelVersionPolicy(latest={"num_versions": 9}), [1, 9, 10]),
        (ModelVersionPolicy(latest={}), []),
        (ModelVersionPolicy(all={}), [1, 9, 10]),
        (ModelVersionPolicy(specific={"versions": [10, 1, 7]}), [1, 10]),
        (ModelVersionPolicy(specific={}), []),
    ],
)
def test_the_policy_selects(policy, expected):
    assert select_versions(policy, [9, 1, 10]) == expected


@given(st.sets(st.integers(0, 50)), st.integers(0, 60))
def test_latest_selects_the_highest(available, count):
    selected = select_versions(ModelVersionPolicy(latest={"num_versions": count}), available)
    assert selected == sorted(selected)
    assert len(selected) == min(count, len(available))
    assert all(left not in available or left < selected[0] for left in available.difference(selected) if selected)
