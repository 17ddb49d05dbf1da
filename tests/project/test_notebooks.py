"""The committed notebooks are fit to be read: run from top to bottom, quiet, small, of no particular machine."""

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
ABSOLUTE = re.compile(r"(/home|/root|/tmp|/work|/Users|/usr|/opt|[A-Z]:\\)[/\\]?\w")


def test_there_are_notebooks():
    assert "quickstart" in {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_fit_to_be_read(path):
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "make notebooks"
    outputs = [output for cell in cells for output in cell["outputs"]]
    noise = [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert outputs and not noise
    texts = [str({kind: v for kind, v in o.get("data", o).items() if kind != "image/png"}) for o in outputs]
    assert [found[0] for text in texts if (found := ABSOLUTE.search(text))] == []
    assert path.stat().st_size < 300_000
