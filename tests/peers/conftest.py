"""Where the peer tests find the shipped model, and the larger data that may be absent."""

import os
import pathlib
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Where transformers copies a folder's own code before it runs it; read when it is imported.
MODULES = tempfile.TemporaryDirectory(prefix="gqa-peers-")
os.environ["HF_MODULES_CACHE"] = MODULES.name


@pytest.fixture(scope="session")
def tales():
    return ROOT / "models/tales-mha"


@pytest.fixture(scope="session")
def heldout(tales):
    return tales / "heldout.txt"


@pytest.fixture(scope="session")
def excerpt(heldout, tmp_path_factory):
    """Enough text for several windows and a short last one."""
    path = tmp_path_factory.mktemp("text") / "excerpt.txt"
    path.write_text(heldout.read_text(encoding="utf-8")[:9000], encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def shared():
    """Models and texts that do not ship; $GQA_SHARED, or a folder beside the tree."""
    folder = pathlib.Path(os.environ.get("GQA_SHARED") or ROOT.parent / "shared")
    if not (folder / "models/stories260K").is_dir():
        pytest.skip(f"no {folder}/models/stories260K (GQA_SHARED)")
    return folder
