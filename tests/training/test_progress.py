"""What is shown of an epoch while it lasts: on terminals of any width, and in pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import History, Network, Trainer, plots
from xpdl.layers import Affine
from xpdl.losses import IdentityWithLoss
from xpdl.training import progress
from xpdl.training.progress import Progress

pytestmark = pytest.mark.usefixtures("on_numpy")


def trainer(**options: Any) -> Trainer:
    rng = np.random.default_rng(0)
    x = rng.random((40, 3), dtype=np.float32)
    data = xpdl.asarray(x), xpdl.asarray((x[:, 0] > 0.5).astype(np.int64))
    return Trainer(Network([Affine(2)], 3), data, data, epochs=2, batch_size=10, **options)


def frames(columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return all that a bar looked like on a terminal of so many columns."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # the other side has been closed
                return
            if not part:
                return
            seen.extend(part)

    thread = threading.Thread(target=read)
    thread.start()
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        trainer(progress=Progress(every=0.0)).fit()
    thread.join()
    os.close(reader)
    drawn = re.sub(r"\x1b\[\w", "", seen.decode())
    return [frame.rstrip() for frame in re.split(r"[\r\n]", drawn) if "loss" in frame]


# Of a width: what stands in the bar, and what does not.
KEPT: dict[int, tuple[list[str], list[str]]] = {
    120: (["epoch 1/2 |", "%, loss", "accuracy", "images/s", "left"], []),
    80: (["epoch 1/2 |", "%, loss", "accuracy", "left"], []),
    60: (["epoch 1/2 |", "%, loss", "left"], ["images/s", "accuracy"]),
    32: (["%, loss", "left"], ["images/s", "accuracy", "epoch"]),
}


@pytest.mark.parametrize("columns", KEPT)
def test_a_bar_fits_its_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = frames(columns, monkeypatch)
    kept, dropped = KEPT[columns]
    assert max(map(len, shown)) < columns
    for word in kept:
        assert word in shown[1]
    assert re.search(r"\d\d:\d\d left$", shown[1])
    for word in dropped:
        assert not any(word in frame for frame in shown)


def test_a_pipe_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(progress.time, "perf_counter", clock)
    shown = Progress(every=0.0)
    shown.begin(0, 2, 100, 1000)
    for step in range(1, 41):  # a second each
        shown.show(step, 0.5, {"accuracy": 0.9})
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 4
    assert re.fullmatch(
        r"epoch 1/2  \d+%  loss 0.5000  accuracy 90.00%  10 images/s  0\d:\d\d left", lines[0]
    )
    monkeypatch.undo()
    trainer(progress=Progress(every=0.0)).fit()
    assert len(capsys.readouterr().out.splitlines()) == 2  # a short training: its epochs alone


def test_nothing_is_shown_where_nothing_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINES_EVERY", 0.0)
    quiet = trainer(progress=False)
    quiet.progress.every = 0.0
    quiet.fit()
    assert capsys.readouterr() == ("", "")
    loud = trainer()
    loud.progress.every = 0.0
    loud.fit()
    assert len(capsys.readouterr().out.splitlines()) == 10


# ---- the history --------------------------------------------------------------------------------


def test_a_history_is_shown_as_a_table() -> None:
    history = trainer(progress=False).fit()
    first, heading, *rows = repr(history).splitlines()
    assert first == "History of 8 steps, 2 epochs"
    assert heading.split("  ")[0] == "epoch"
    for word in ("loss", "train accuracy", "test loss", "test accuracy", "seconds"):
        assert word in heading
    assert len(rows) == 2
    last = history.epochs[-1]
    assert f"{last.loss:.4f}" in rows[1]
    assert last.test is not None
    assert f"{last.test['accuracy']:.2%}" in rows[1]
    assert {len(row) for row in rows} == {len(heading)}
    assert repr(History()).splitlines()[0] == "History of 0 steps, 0 epochs"
    assert "<td>" not in History()._repr_html_()


def test_learning_curves_take_the_history() -> None:
    history = trainer(progress=False).fit()
    history.epochs[1].validation = {"loss": 0.6, "accuracy": 0.25}
    loss, accuracy = plots.learning_curves(history, title="title").axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), history.losses)
    lines = {line.get_label(): line for line in accuracy.lines}
    assert list(lines) == ["training (mean over the epoch)", "validation", "test"]
    np.testing.assert_allclose(
        lines["test"].get_ydata(), [100 * (epoch.test_accuracy or 0) for epoch in history.epochs]
    )
    np.testing.assert_allclose(lines["validation"].get_xydata(), [[2, 25]])
    with pytest.raises(xpdl.errors.ArgumentError, match="leave them out"):
        plots.learning_curves(history, [0.5])


def test_learning_curves_of_a_regression(rng: np.random.Generator) -> None:
    x = rng.random((20, 3)).astype(np.float32)
    network = Network([Affine(1)], 3, loss=IdentityWithLoss())
    history = Trainer(network, (x, x[:, :1]), epochs=2, batch_size=10, progress=False).fit()
    name = network.loss_layer.measure.names[0]
    axes = plots.learning_curves(history).axes[1]
    assert axes.get_ylabel() == name
    np.testing.assert_allclose(
        axes.lines[0].get_ydata(), [(epoch.train or {})[name] for epoch in history.epochs]
    )
