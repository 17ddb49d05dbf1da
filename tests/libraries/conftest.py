"""Published modules, each skipped where its package is not installed; nothing is downloaded."""

import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.libraries)


@pytest.fixture(autouse=True)
def files_of_libraries(tmp_path, monkeypatch):
    """Let what the libraries write fall into pytest's own folder."""
    monkeypatch.chdir(tmp_path)
