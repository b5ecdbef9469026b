"""That ``python -m bench time-to-accuracy`` measures what it says, on a small made-up MNIST.

Never how long anything takes, but for what sleeps on purpose.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl import Trainer
from xpdl.errors import ArgumentError, DivergenceError
from xpdl.layers import Affine
from xpdl.network import Network
from xpdl.runs import RECIPES, preparation
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.preparation import make_network, make_trainer

ROOT = Path(xpdl.__file__).parents[1]
sys.path.append(str(ROOT))  # the bench is not part of what is installed

from bench import __main__ as command  # noqa: E402
from bench import accuracy, charts, timed_command  # noqa: E402
from bench.timed_command import Watch  # noqa: E402

# Runs a module as `python -m` does, with what is in a file for MNIST and a recipe that is short.
SMALL = """
import os, runpy, sys
from dataclasses import replace
import numpy as np
sys.path.insert(0, os.getcwd())
import xpdl
from xpdl.runs import RECIPES, preparation

with np.load({path!r}) as file:
    arrays = dict(file)

def load(normalize=True, flatten=True, one_hot_label=False):
    assert not normalize
    shape = (-1, 784) if flatten else (-1, 1, 28, 28)
    return tuple(
        (xpdl.asarray(arrays["x_" + part].reshape(shape)), xpdl.asarray(arrays["t_" + part]))
        for part in ("train", "test")
    )

preparation.LOADERS["mnist"] = load
short = {{"model": "SimpleConvNet", "model_options": {{}}, "epochs": 2, "batch_size": 100}}
plain = {{"learning_rate": 0.004, "label_smoothing": 0.0, "average": 0.0}}
RECIPES["fast"] = replace(RECIPES["fast"], **short, **plain)
"""
MODULE = """
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def digits(n, seed):
    """Return bytes (N, 1, 28, 28): a bar, at one place a class; and the classes."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 10, n)
    x = rng.integers(0, 60, (n, 1, 28, 28), dtype=np.uint8)
    for image, label in zip(x, t, strict=True):
        image[0, 4:24, 4 + 2 * label : 6 + 2 * label] = 255
    return x, t


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """Small data for MNIST and a short recipe, in this process and in those that it starts."""
    (x_train, t_train), (x_test, t_test) = digits(250, 0), digits(120, 1)
    path = tmp_path / "small.npz"
    np.savez(path, x_train=x_train, t_train=t_train, x_test=x_test, t_test=t_test)
    program = SMALL.format(path=str(path))
    (tmp_path / "small.py").write_text(program + MODULE)
    names: dict = {}
    monkeypatch.setitem(preparation.LOADERS, "mnist", None)  # what the program sets is undone
    monkeypatch.setitem(RECIPES, "fast", RECIPES["fast"])
    exec(program, names)
    monkeypatch.setattr(accuracy, "START", [sys.executable, str(tmp_path / "small.py")])
    return tmp_path


def measure(out, *arguments):
    """Run the command in this process; return its exit code and what it recorded."""
    code = command.main(
        ["time-to-accuracy", "--backend", "numpy", *arguments, "--out", str(out / "results")]
    )
    paths = list((out / "results").glob("*.json"))
    assert [path.name for path in paths] in ([], ["time-to-accuracy-mnist-fast-numpy.json"])
    return code, json.loads(paths[0].read_text()) if paths else None


# ---- the processes -----------------------------------------------------------------------------


def whole(row):
    """See that the parts of a row are all of its wall clock."""
    assert row["parts"].keys() == accuracy.PARTS.keys()
    assert min(row["parts"].values()) >= 0
    assert row["parts"]["start"] > 0
    assert row["parts"]["steps"] > 0
    assert row["parts"]["testing"] > 0
    assert sum(row["parts"].values()) == pytest.approx(row["wall"], abs=0.01)
    assert row["outside"] == pytest.approx(1 - row["parts"]["steps"] / row["wall"], abs=0.002)
    assert row["steps"] == 2 * 3  # epochs, and batches of 250 images


def test_our_own_training(small_mnist, capsys):
    code, record = measure(small_mnist, "--seeds", "3")
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    (row,) = record["seeds"]["3"].values()
    whole(row)
    with xpdl.use_backend("numpy"):
        options = make_options("fast", data="mnist", seed=3, dtype="float32")
        network = make_network(options)
        train, test = preparation.load_data("mnist", network, normalize=False)
        history = make_trainer(options, network, train, test, progress=False).fit()
    expected = [epoch.test_accuracy for epoch in history.epochs]
    assert row["accuracies"] == pytest.approx(expected, abs=1e-6)
    assert row["accuracy"] == pytest.approx(expected[-1], abs=1e-6)
    assert record["options"]["learning_rate"] == options.learning_rate
    assert record["machine"]["processor"]
    assert record["command"].startswith("python -m bench")
    assert f"   3  {row['accuracy']:8.2%} {row['wall']:7.1f} s" in out
    assert "xpdl numpy, 1 seed\n" in out
    picture = small_mnist / "results" / "time-to-accuracy-mnist-fast-numpy.png"
    assert picture.stat().st_size < 100_000
    assert np.asarray(Image.open(picture).convert("L")).std() > 5  # not blank


def test_pytorchs_training_beside_ours(small_mnist, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    row = made_row(0.5, 10.0, 5.0)
    monkeypatch.setattr(accuracy, "train_ours", lambda recipe, options: row)
    code, record = measure(small_mnist, "--seeds", "0", "--against", "torch")
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert list(record["seeds"]["0"]) == ["xpdl numpy", "PyTorch"]
    assert record["seeds"]["0"]["xpdl numpy"] == row
    theirs = record["seeds"]["0"]["PyTorch"]
    whole(theirs)
    assert theirs["threads"] == torch.get_num_threads()
    assert len(theirs["accuracies"]) == 2
    assert theirs["accuracies"][-1] == theirs["accuracy"]
    ratio = record["summary"]["ours_over"]["PyTorch"]["median"]
    assert ratio == pytest.approx(10 / theirs["wall"], abs=0.001)
    assert "our wall over that of PyTorch" in out


def test_a_step_holds_the_augmentation_and_not_what_is_around_it():
    x, t = digits(40, 0)
    pause = 0.02

    def slow(x, generator):
        time.sleep(pause)
        return x

    watch = Watch()
    before = vars(Trainer).copy()
    with xpdl.use_backend("numpy"), watch.on_trainers():
        network = Network([Affine(10)], (1, 28, 28))
        trainer = Trainer(
            network, (x, t), (x, t), epochs=2, batch_size=10, augment=slow,
            callbacks=[lambda trainer, epoch: time.sleep(10 * pause)], progress=False,
        )  # fmt: skip
        start = time.perf_counter()
        trainer.fit()
        end = time.perf_counter()
    assert vars(Trainer) == before
    report = watch.report()
    assert report["count"] == 8
    assert report["steps"] >= 8 * pause
    assert report["testing"] > 0
    parts = accuracy.parts_of(start, report, report["end"])
    assert parts["loop"] >= 2 * 10 * pause
    assert sum(parts.values()) == pytest.approx(report["end"] - start)
    assert start < report["first_step"] < report["trained"] <= end
    assert json.loads(json.dumps(report)) == report


def test_a_command_that_fails_reports_nothing(capsys):
    assert timed_command.main(["train", "--model", "LargeNet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xpdl train: unknown model 'LargeNet'")


# ---- what is kept ------------------------------------------------------------------------------


@pytest.fixture
def pretended(monkeypatch):
    """Trainings that only pretend: a list of the seeds that were trained, and who by."""
    done = []

    def trained(program):
        def train(recipe, options):
            done.append((program, options.seed))
            parts = dict.fromkeys(accuracy.PARTS, 1.0)
            return {
                "accuracy": 0.99 + options.seed / 1000, "wall": 6.0, "outside": 5 / 6,
                "parts": parts, "accuracies": [],
            }  # fmt: skip

        return train

    monkeypatch.setattr(accuracy, "train_ours", trained("xpdl"))
    monkeypatch.setattr(accuracy, "train_torch", trained("PyTorch"))
    monkeypatch.setattr(accuracy, "_prepare", lambda options, programs: None)
    return done


def test_a_seed_is_measured_once(pretended, tmp_path, capsys):
    assert measure(tmp_path, "--seeds", "1", "0", "1")[0] == 0
    assert pretended == [("xpdl", 1), ("xpdl", 0)]
    _, first = measure(tmp_path, "--seeds", "10", "2", "0")
    assert pretended[2:] == [("xpdl", 10), ("xpdl", 2)]
    assert list(first["seeds"]) == ["0", "1", "2", "10"]
    assert first["summary"]["programs"]["xpdl numpy"]["accuracy"]["seeds"] == 4
    capsys.readouterr()
    _, second = measure(tmp_path, "--seeds", "0")
    assert len(pretended) == 4
    assert second["seeds"] == first["seeds"]
    assert "  10   100.00%" in capsys.readouterr().out  # what is known is shown again
    measure(tmp_path, "--seeds", "0", "--anew")
    assert pretended[4:] == [("xpdl", 0)]


def test_programs_take_turns(pretended, tmp_path):
    pytest.importorskip("torch")
    measure(tmp_path, "--seeds", "0")
    pretended.clear()
    _, record = measure(tmp_path, "--seeds", "0", "1", "--against", "torch")
    # Seed 0 too: figures that stand side by side are of the same hour.
    assert pretended == [("xpdl", 0), ("PyTorch", 0), ("xpdl", 1), ("PyTorch", 1)]
    pretended.clear()
    _, record = measure(tmp_path, "--seeds", "1", "2")
    assert pretended == [("xpdl", 2)]
    assert list(record["seeds"]["1"]) == ["xpdl numpy", "PyTorch"]
    assert record["summary"]["ours_over"]["PyTorch"]["seeds"] == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"machine": {"processor": "abacus"}}, "processor ('abacus' then"),
        ({"options": {"epochs": 5}}, f"epochs (5 then, {RECIPES['fast'].epochs} now)"),
        ({"machine": {"environment": {"OMP_NUM_THREADS": "7"}}}, "environment ("),
        ({"seeds": None}, "no record"),
        ({"options": {"model": 3}}, "no record"),
    ],
)
def test_other_figures_are_not_mixed_in(pretended, tmp_path, capsys, changed, said):
    measure(tmp_path, "--seeds", "0")
    path = tmp_path / "results" / "time-to-accuracy-mnist-fast-numpy.json"
    record = json.loads(path.read_text())
    for part, values in changed.items():
        if values is None:
            del record[part]
        else:
            record[part].update(values)
    path.write_text(json.dumps(record))
    capsys.readouterr()
    code, after = measure(tmp_path, "--seeds", "0", "1")
    assert code == 2
    assert after == record
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err
    assert "--anew" in err
    assert measure(tmp_path, "--seeds", "1", "--anew")[0] == 0
    assert pretended == [("xpdl", 0), ("xpdl", 1)]


def test_a_record_from_before_an_option_goes_on(pretended, tmp_path, monkeypatch):
    """What it does not tell was as is usual; and the variable only names the backend."""
    measure(tmp_path, "--seeds", "0")
    path = tmp_path / "results" / "time-to-accuracy-mnist-fast-numpy.json"
    record = json.loads(path.read_text())
    for name in ("checkpoint_every", "on_divergence"):
        del record["options"][name]
    path.write_text(json.dumps(record))
    monkeypatch.setenv("XPDL_BACKEND", "numba")
    assert measure(tmp_path, "--seeds", "0", "1")[0] == 0
    assert pretended == [("xpdl", 0), ("xpdl", 1)]


def test_an_interrupted_measurement_goes_on(pretended, tmp_path, monkeypatch, capsys):
    train = accuracy.train_ours

    def interrupted(recipe, options):
        if options.seed == 1:
            raise KeyboardInterrupt
        return train(recipe, options)

    with monkeypatch.context() as patch:
        patch.setattr(accuracy, "train_ours", interrupted)
        code, record = measure(tmp_path, "--seeds", "0", "1", "2")
    assert code == 130
    assert list(record["seeds"]) == ["0"]
    assert "interrupted" in capsys.readouterr().err
    code, record = measure(tmp_path, "--seeds", "0", "1", "2")
    assert code == 0
    assert pretended == [("xpdl", 0), ("xpdl", 1), ("xpdl", 2)]
    assert list(record["seeds"]) == ["0", "1", "2"]


def test_a_training_that_fails_says_why(monkeypatch, tmp_path, capsys):
    def failing(command, **options):
        return subprocess.CompletedProcess(command, 2, "", "xpdl train: no room on the disk\n")

    monkeypatch.setattr(accuracy, "_prepare", lambda options, programs: None)
    monkeypatch.setattr(accuracy.subprocess, "run", failing)
    code, record = measure(tmp_path, "--seeds", "0")
    assert (code, record) == (2, None)
    err = capsys.readouterr().err
    assert "bench.timed_command train --recipe fast --seed 0" in err
    assert err.endswith("ended with exit code 2: xpdl train: no room on the disk\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "slow"], "unknown recipe 'slow'"),
        (["--data", "letters"], "unknown data set 'letters'"),
        (["--backend", "nonsense"], "unknown backend 'nonsense'"),
        (["--seeds", "-1"], "--seeds"),
        (["--seeds", "x"], "'x'"),
        (["--against", "book"], "'book'"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path, capsys, arguments, said):
    try:
        code = command.main(["time-to-accuracy", "--out", str(tmp_path), *arguments])
    except SystemExit as end:
        code = end.code
    err = capsys.readouterr().err
    assert code == 2
    assert len(err.splitlines()) == 1
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_gpu_is_measured_elsewhere(rehearsed, tmp_path, capsys):
    assert command.main(["time-to-accuracy", "--backend", "cupy", "--out", str(tmp_path)]) == 2
    assert "python -m bench gpu" in capsys.readouterr().err


# ---- the figures -------------------------------------------------------------------------------


def made_row(accuracy_of, wall, steps):
    parts = {"start": 1.0, "steps": steps, "testing": 2.0, "loop": 0.5, "finish": 0.25, "exit": 0.0}
    return {
        "accuracy": accuracy_of, "wall": wall, "outside": 1 - steps / wall, "parts": parts,
    }  # fmt: skip


def test_summary():
    walls, peers = np.array([100.0, 110.0, 120.0]), np.array([50.0, 100.0, 240.0])
    accuracies = np.array([0.991, 0.993, 0.998])
    seeds = {
        str(i): {
            "xpdl numba": made_row(accuracies[i], walls[i], 90.0),
            "PyTorch": made_row(0.5, peers[i], 45.0),
        }
        for i in range(3)
    }
    seeds["3"] = {"xpdl numba": made_row(0.994, 130.0, 90.0)}  # not in the ratio
    summary = accuracy.summarize(seeds)
    ours = summary["programs"]["xpdl numba"]
    every = [*accuracies, 0.994]
    assert ours["accuracy"] == {
        "mean": pytest.approx(np.mean(every), abs=1e-6),
        "sd": pytest.approx(np.std(every, ddof=1), abs=1e-6),
        "least": 0.991,
        "most": 0.998,
        "seeds": 4,
    }
    assert ours["wall"]["mean"] == 115
    assert ours["wall"]["sd"] == pytest.approx(np.std([*walls, 130], ddof=1), abs=1e-6)
    assert ours["outside"]["mean"] == pytest.approx(
        np.mean(1 - 90 / np.array([*walls, 130])), abs=1e-6
    )
    assert ours["parts"]["steps"] == 90
    assert summary["programs"]["PyTorch"]["accuracy"]["sd"] == 0
    assert summary["ours_over"] == {
        "PyTorch": {
            "median": 1.1,
            "mean": pytest.approx((2 + 1.1 + 0.5) / 3),
            "sd": pytest.approx(np.std([2, 1.1, 0.5], ddof=1), abs=1e-6),
            "least": 0.5,
            "most": 2,
            "seeds": 3,
        }
    }
    json.dumps(summary, allow_nan=False)


def test_summary_of_one_seed_has_no_deviation(capsys):
    summary = accuracy.summarize({"7": {"xpdl numpy": made_row(0.9938, 60.0, 45.0)}})
    assert summary["programs"]["xpdl numpy"]["wall"]["sd"] is None
    assert summary["ours_over"] == {}
    accuracy.show_summary(summary, 0.9938)
    out = capsys.readouterr().out
    assert "accuracy 99.380% (99.38% to 99.38%); the book: 99.38%" in out
    assert "wall 60.0 s (60.0 to 60.0), 25.0% outside the steps" in out


def test_a_long_title_stays_in_the_picture(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts, "save", lambda figure, path: figures.append(figure))
    title = "xpdl train --recipe ensemble: NormalizedConvNet on fashion-mnist, 15 epochs, the whole"
    title += " command"
    charts.accuracy_over_time(tmp_path / "a.png", {"xpdl numba": [(72.0, 0.99)]}, title)
    (figure,) = figures
    figure.draw_without_rendering()
    box = figure.axes[0].title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_the_chart_shows_each_training_and_the_means(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts, "save", lambda figure, path: figures.append(figure))
    points = {"xpdl numba": [(100, 0.99), (120, 0.996)], "PyTorch": [(90, 0.994)]}
    charts.accuracy_over_time(tmp_path / "a.png", points, "title", 0.9938)
    (axes,) = figures[0].axes
    drawn = [np.asarray(c.get_offsets()).tolist() for c in axes.collections]
    expected = [[(100, 99), (120, 99.6)], [(110, 99.3)], [(90, 99.4)], [(90, 99.4)]]
    assert [[pytest.approx(xy) for xy in part] for part in expected] == drawn
    assert axes.lines[0].get_ydata() == pytest.approx([99.38, 99.38])
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[0] == "xpdl numba: mean of 2, 99.30% in 110 s"


def test_the_chart_of_one_training_is_by_epoch(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts, "save", lambda figure, path: figures.append(figure))
    rows = {"xpdl numba": made_row(0.5, 10.0, 5.0) | {"accuracies": [0.3, 0.4, 0.2, 0.6]}}
    accuracy._draw(tmp_path / "a.png", "title", {"3": rows}, 2, 0.9938)
    (axes,) = figures[0].axes
    heights = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert heights == [pytest.approx(y) for y in ([30, 40], [20, 60], [50, 50], [99.38, 99.38])]
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts == ["member 1", "member 2", "in the end 50.00%", "the book's 99.38%"]


# ---- the same recipe in PyTorch ----------------------------------------------------------------


@pytest.fixture
def torch_training():
    pytest.importorskip("torch")
    from bench import torch_training

    with xpdl.use_backend("numpy"):
        yield torch_training


def options_of(recipe="fast", **overrides):
    return make_options(recipe, data="mnist", seed=5, dtype="float32", **overrides)


MODELS = {
    "deep": {"model_options": {"dropout_ratio": 0.0}, "label_smoothing": 0.1},
    "simple": {"model": "SimpleConvNet"},
    "layers": {"model": "MultiLayerNet"},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_is_the_same_network(torch_training, name):
    import torch

    options = options_of(**MODELS[name])
    network, model = torch_training.make_twin(options)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.size for p in network.params.values()
    )
    x, t = digits(20, 2)
    x = (x / np.float32(255)).reshape(-1, *network.input_shape)
    loss, scores = network.forward_backward(x, t)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    theirs = model(torch.from_numpy(x))
    expected = criterion(theirs, torch.from_numpy(t))
    assert float(loss) == pytest.approx(expected.item(), abs=1e-5)
    assert np.abs(scores - theirs.detach().numpy()).max() < 1e-5 * np.abs(scores).max()
    assert 0.1 < float(loss) < 10


SHORT = {"model": "MultiLayerNet", "epochs": 2, "batch_size": 20, "learning_rate": 0.002}
ALIKE = {
    "the fast one's": SHORT
    | {"model": "DeepConvNet", "model_options": {"dropout_ratio": 0.0, "drop_scores": False}},
    "warm-up": SHORT | {"warm_up": 0.5, "schedule": "cosine"},
    "decay": SHORT | {"weight_decay": 0.05},
    "adamw": SHORT | {"optimizer": "adamw", "weight_decay": 10.0},
    "smoothing and batches that grow": SHORT
    | {"label_smoothing": 0.2, "batch_size": {0: 10, 1: 50}},
    "changed pictures, averaged": SHORT
    | {"model": "SimpleConvNet", "augment": {"shift": 2, "rotate": 5}, "average": 0.9},
    "changed rows": SHORT | {"augment": {"shift": 1}},
}


@pytest.mark.parametrize("name", ALIKE)
def test_the_recipe_is_the_same(torch_training, name):
    """Epoch for epoch the same losses and accuracies: the same steps on the same batches."""
    options = options_of(**ALIKE[name])
    flat = options.model == "MultiLayerNet"
    data = [(x.reshape(len(x), -1) if flat else x, t) for x, t in (digits(100, 0), digits(200, 1))]
    network = make_network(options)
    history = make_trainer(options, network, *data, progress=False).fit()
    watch = Watch()
    result = torch_training.train(options, data, watch)
    losses = [epoch.loss for epoch in history.epochs]
    assert result["losses"] == pytest.approx(losses, rel=2e-3)
    accuracies = [epoch.test_accuracy for epoch in history.epochs]
    assert result["accuracies"] == pytest.approx(accuracies, abs=0.011)  # two of 200
    assert result["test_accuracy"] == result["accuracies"][-1]
    assert watch.steps == len(history.losses)
    assert losses[-1] < 0.97 * losses[0]


def test_a_loss_that_is_not_finite_is_an_error(torch_training):
    options = options_of(**SHORT | {"learning_rate": 1e30})
    data = [(x.reshape(len(x), -1), t) for x, t in (digits(60, 0), digits(10, 1))]
    with pytest.raises(DivergenceError, match="epoch 1"):
        torch_training.train(options, data, Watch())


@dataclass(frozen=True, kw_only=True)
class OptionsToCome(RunOptions):
    """With one that PyTorch's program has never heard of."""

    novelty: int = 0


def test_what_pytorch_cannot_follow_is_refused(torch_training):
    for overrides, said in (
        ({"model": "NormalizedConvNet"}, "NormalizedConvNet"),
        ({"optimizer": "momentum"}, "momentum"),
        ({"members": 3}, "members 3"),
        ({"shifts": 1}, "shifts 1"),
        ({"model_options": {"weight_decay": 0.1}}, "weight_decay=0.1"),
    ):
        with pytest.raises(ArgumentError, match=said):
            torch_training.make_twin(options_of(**overrides))
    half = replace(options_of(), dtype="float16")
    with pytest.raises(ArgumentError, match="float16"):
        torch_training.make_twin(half)
    known = OptionsToCome(**vars(options_of()))
    torch_training.make_twin(known)
    with pytest.raises(ArgumentError, match="novelty 2"):
        torch_training.make_twin(replace(known, novelty=2))


def test_a_refusal_comes_before_anything_is_measured(small_mnist, monkeypatch, capsys):
    pytest.importorskip("torch")
    slow = replace(RECIPES["fast"], optimizer="sgd")
    monkeypatch.setitem(RECIPES, "fast", slow)
    code, record = measure(small_mnist, "--against", "torch")
    assert (code, record) == (2, None)
    assert "the optimizer sgd" in capsys.readouterr().err


def test_pytorchs_command_answers_bad_input_in_one_line(torch_training, capsys):
    assert torch_training.main(["--recipe", "slow"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit) as end:
        torch_training.main(["--seed", "-1"])
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
