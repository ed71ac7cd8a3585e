"""The notebook: its cells run one after the other, and it is stored without outputs."""

import contextlib
import io
import json
from pathlib import Path

from PIL import Image

NOTEBOOK = Path(__file__).parent.parent / "docs" / "examples" / "why_this_plan.ipynb"


def test_the_notebook_runs_from_top_to_bottom():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in code:
            source = "".join(cell["source"])
            before, _, last = source.rpartition("\n")
            if last.startswith("Image."):  # what a notebook shows of a cell
                exec(before, names)
                assert isinstance(eval(last, names), Image.Image)
            else:
                exec(source, names)
    assert "round 1:" in printed.getvalue() and "+ 1:" in printed.getvalue()
    assert len(names["decisions"]) == 8 and len(names["pictures"]) == 8
