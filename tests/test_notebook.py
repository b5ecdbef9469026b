"""A notebook as a user runs it: what its cells show."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

CELLS = {
    "make": """
import threading
import numpy as np
import xpdl
from xpdl.datasets.progress import progress_bar
from xpdl.layers import Affine

xpdl.use_backend("numpy")
rng = np.random.default_rng(0)
x = rng.random((3000, 5), dtype="float32")
data = x, (x[:, 0] > 0.5).astype(int)
trainer = xpdl.Trainer(xpdl.Network([Affine(2)], 5), data, data, epochs=12, batch_size=300)
trainer.progress.every = 0.0
shown = []
update = type(trainer.progress._cell).show
type(trainer.progress._cell).show = lambda *given: (shown.append(given[1:]), update(*given))
""",
    "train": "trainer.fit()",
    "shown": "print(len(shown), *shown[15], sep='|')",
    "draw": "xpdl.plots.learning_curves(trainer.history)",
    "again": "trainer.epochs = 13\nhistory = trainer.fit()",
    "read": """
with progress_bar("decoding", 200, "pictures") as advance:
    thread = threading.Thread(target=advance, args=(150,))
    thread.start()
    thread.join()
""",
    "fail": """
with progress_bar("decoding", 200, "pictures") as advance:
    raise SystemError("in the midst of it")
""",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return what each cell shows, once all have run."""
    home = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    )
    notebook.cells[-1].metadata["tags"] = ["raises-exception"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(home))
        NotebookClient(
            notebook, timeout=60, resources={"metadata": {"path": str(Path.cwd())}}
        ).execute()
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))


def text(shown: list[Any]) -> str:
    return "".join(output.text for output in shown if output.output_type == "stream")


def bars(shown: list[Any]) -> list[dict[str, str]]:
    return [output.data for output in shown if output.output_type == "display_data"]


def test_a_history_is_a_short_table(outputs: dict[str, list[Any]]) -> None:
    data = outputs["train"][-1].data
    assert data["text/html"].count("<tr>") == 12  # a heading, ten epochs, and "..." between them
    assert "<td>12</td>" in data["text/html"]
    assert data["text/plain"].startswith("History of 120 steps, 12 epochs\n")
    assert len(data["text/plain"]) < 1500


def test_a_bar_lives_in_the_cell(outputs: dict[str, list[Any]]) -> None:
    assert bars(outputs["train"]) == [{"text/html": "", "text/plain": ""}]  # one, gone at the end
    assert text(outputs["train"]).count("\n") == 12  # and a line an epoch
    number, share, told = text(outputs["shown"]).strip().split("|")
    assert int(number) > 60
    assert 0 < float(share) < 1
    assert told.startswith("epoch 2/12, loss ")
    assert told.endswith(" left")
    assert bars(outputs["again"]) == bars(outputs["train"])  # in its own cell


def test_figures_show_without_a_magic_word(outputs: dict[str, list[Any]]) -> None:
    (output,) = outputs["draw"]
    image = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    assert image.size == (900, 360)


def test_reading_shows_a_bar(outputs: dict[str, list[Any]]) -> None:
    for name in ("read", "fail"):
        assert bars(outputs[name]) == [{"text/html": "", "text/plain": ""}]
