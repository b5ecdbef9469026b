"""``xpdl book``: what a script finds, what its errors look like, and what is refused."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xpdl.cli.main import main


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A chapter's folder in a reader's copy; the working directory is another."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "reader" / "ch09"
    folder.mkdir(parents=True)
    return folder


def write(folder: Path, text: str, name: str = "script.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def refused(capsys, *words: str) -> str:
    """Return the one line that a command line comes to."""
    assert main(["book", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("xpdl book: ")
    return line


# ---- what a script finds -------------------------------------------------------------------------


def test_a_script_runs_as_python_would_run_it(chapter, capsys):
    write(chapter, "ANSWER = 42\n", "beside.py")
    script = write(
        chapter,
        "import os, sys\nfrom beside import ANSWER\n"
        "print(__name__, ANSWER, sys.argv[1:], os.getcwd() == os.path.dirname(__file__))\n",
    )
    before = sys.argv, sys.path[:], os.getcwd(), set(sys.modules)
    assert main(["book", script, "3", "--x", "1"]) == 0
    assert capsys.readouterr().out == "__main__ 42 ['3', '--x', '1'] True\n"
    assert (sys.argv, sys.path, os.getcwd()) == before[:3]
    assert not {"beside", "common", "dataset"} & (set(sys.modules) - before[3])


def test_options_may_stand_behind_the_script(chapter, capsys):
    script = write(chapter, "import os, sys\nprint(os.environ['XPDL_DTYPE'], sys.argv[1:])\n")
    assert main(["book", script, "a", "--dtype", "float64", "--", "--dtype", "x", "--"]) == 0
    assert capsys.readouterr().out == "float64 ['a', '--dtype', 'x', '--']\n"
    assert "XPDL_DTYPE" not in os.environ


def test_all_modules_and_names_of_the_book_are_there(chapter):
    script = write(
        chapter,
        "import common, dataset\n"
        "from common import functions, layers, util\n"
        "import common.multi_layer_net_extend as extend\n"
        "from dataset.mnist import init_mnist, load_mnist\n"
        "assert common.layers is layers and extend.MultiLayerNetExtend\n"
        "from common.optimizer import *\n"
        "np.zeros(1), SGD(), Momentum(), Nesterov(), AdaGrad(), RMSprop(), Adam()\n",
    )
    assert main(["book", script]) == 0


def test_what_lies_in_the_readers_own_common_is_found_and_uses_ours(chapter, capsys):
    common = chapter.parent / "common"
    common.mkdir()
    for name in ("functions", "layers", "multi_layer_net"):
        write(common, "raise AssertionError('the reader has another')\n", f"{name}.py")
    write(common, "from common.layers import Relu\n", "three_layer_net.py")
    script = write(
        chapter,
        "import sys, os; sys.path.append(os.pardir)\nfrom common.three_layer_net import Relu\n"
        "print(Relu.__module__)\n",
    )
    assert main(["book", script]) == 0
    assert capsys.readouterr().out == "xpdl.book.layers\n"


def test_types_that_numpy_has_dropped_are_there_for_a_script(chapter, capsys):
    script = write(chapter, "import numpy as np\nprint(np.array([True], dtype=np.int))\n")
    assert main(["book", script]) == 0
    assert capsys.readouterr().out == "[1]\n"
    assert not hasattr(np, "int")


def test_the_status_is_the_scripts_own(chapter, capsys):
    assert main(["book", write(chapter, "import sys; sys.exit(3)")]) == 3
    assert main(["book", write(chapter, "import sys; sys.exit()")]) == 0
    assert main(["book", write(chapter, "raise SystemExit('no data')")]) == 1
    assert capsys.readouterr().err == "no data\n"


def test_figures_are_kept_where_they_are_asked_for(chapter, tmp_path):
    script = write(
        chapter,
        "import matplotlib.pylab as plt\nimport numpy as np\nfrom PIL import Image\n"
        "plt.plot([1, 2]); plt.figure(); plt.plot([3]); plt.show()\n"
        "assert not plt.get_fignums()\n"
        "Image.fromarray(np.full((3, 5), 7, np.uint8)).show()\n"
        "Image.fromarray(np.zeros((2, 2), np.float32)).show()\n",
    )
    assert main(["book", script, "--save", "figures"]) == 0
    kept = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert kept == [f"script-{n}.png" for n in (1, 2, 3, 4)]
    assert np.asarray(Image.open(tmp_path / "figures/script-3.png")).tolist() == 3 * [5 * [7]]


# ---- pickles -------------------------------------------------------------------------------------


def test_a_pickle_is_written_for_plain_python_and_read_back(chapter):
    script = write(
        chapter,
        "import pickle\nimport numpy as np\n"
        "params = {'W1': np.arange(6.0).reshape(2, 3), 'b1': np.zeros(3, np.float32)}\n"
        "with open('params.pkl', 'wb') as f:\n    pickle.dump(params, f)\n"
        "with open('params.pkl', 'rb') as f:\n    read = pickle.load(f)\n"
        "again = pickle.loads(pickle.dumps(params))\n"
        "assert (read['W1'] == again['W1']).all() and read['b1'].dtype == np.float32\n",
    )
    assert main(["book", script]) == 0
    program = "import pickle; print(pickle.load(open('params.pkl', 'rb'))['W1'].sum())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=chapter, capture_output=True, text=True, check=True
    )
    assert done.stdout == "15.0\n"


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("read", ["load(f)", "Unpickler(f).load()", "loads(f.read())"])
def test_a_pickle_that_asks_for_code_is_refused(read, chapter, capsys):
    (chapter / "params.pkl").write_bytes(pickle.dumps({"W1": Evil()}))
    script = write(
        chapter, f"import pickle\nwith open('params.pkl', 'rb') as f:\n    pickle.{read}\n"
    )
    line = refused(capsys, script)
    assert "mkdir" in line
    assert not (chapter / "evil").exists()


def test_a_module_beside_reads_safely_too_and_libraries_as_ever(chapter, capsys):
    (chapter / "params.pkl").write_bytes(pickle.dumps({"W1": Evil()}))
    write(chapter, "from pickle import load\n", "beside.py")
    script = write(
        chapter,
        "import copy, logging.handlers, pickle\nfrom beside import load\n"
        "assert load is pickle.load is not logging.handlers.pickle.load\n"
        "with open('params.pkl', 'rb') as f:\n    load(f)\n",
    )
    assert "is refused" in refused(capsys, script)


def test_a_library_reads_as_ever_wherever_it_is_installed(chapter):
    installed = chapter.parent / "venv/lib/site-packages"
    installed.mkdir(parents=True)
    write(installed, "import pickle\n", "some_library.py")
    script = write(
        chapter,
        f"import sys, pickle\nsys.path.append({str(installed)!r})\nimport some_library\n"
        "assert some_library.pickle is not pickle\n"
        "assert some_library.pickle.loads(pickle.dumps([1])) == [1]\n",
    )
    assert main(["book", script]) == 0
    sys.modules.pop("some_library")


# ---- errors --------------------------------------------------------------------------------------


def test_an_error_of_the_script_is_shown_with_its_own_lines_alone(chapter, capsys):
    write(chapter, "def go(f):\n    return f()\n", "beside.py")
    script = write(
        chapter,
        "import numpy as np\nfrom beside import go\n"
        "from common.gradient import numerical_gradient\n"
        "def f(x):\n    return x[5]\n"
        "go(lambda: numerical_gradient(f, np.zeros(2)))\n",
    )
    assert main(["book", script]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    lines = [line.split('"')[1] for line in err.splitlines() if line.startswith("  File ")]
    beside = str(chapter / "beside.py")
    assert lines == [script, beside, script, script]
    assert "xpdl" not in err.replace(str(chapter), "")
    assert err.endswith("IndexError: index 5 is out of bounds for axis 0 with size 2\n")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("Convolution(np.zeros((2, 3, 3, 3)), 0).forward(np.zeros((1, 1, 5, 5)))", "3 channels"),
        ("Convolution(np.zeros((2, 3, 3, 3)), 0).forward(np.zeros((1, 3, 2, 2)))", "does not fit"),
        ("Affine(np.zeros((3, 2)), np.zeros(2)).forward(np.zeros((4, 5)))", "(4, 5) by (3, 2)"),
        ("Pooling(2, 2).forward(np.zeros((4, 4)))", "(N, C, H, W)"),
        ("p = Pooling(2, 2); p.forward(np.zeros((1, 1, 4, 4))); p.backward(np.zeros(4))", "dout"),
        ("Trainer(None, np.zeros(1), None, None, None, optimizer='Lion')", "RMSprop"),
    ],
)
def test_an_error_in_a_call_of_ours_stands_at_the_scripts_line(lines, says, chapter, capsys):
    script = write(
        chapter, f"from common.layers import *\nfrom common.trainer import Trainer\n{lines}\n"
    )
    assert main(["book", script]) == 1
    *_, place, code, last = [
        line for line in capsys.readouterr().err.splitlines() if "^" not in line
    ]
    assert script in place
    assert code.strip() == lines
    assert last.startswith("ValueError: ")
    assert says in last


def test_causes_that_are_ours_alone_are_not_shown(chapter, capsys):
    script = write(
        chapter,
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
    )
    assert main(["book", script]) == 1
    err = capsys.readouterr().err
    assert err.count("Traceback") == 2
    assert "runpy" not in err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", b"x = (\n"),
        ("a.py", b"return 5\n"),
        ("a.py", b"\xff\xfe\x00"),
        ("a.py", b"x = 1\0"),
        ("a.ipynb", b"{}"),
        ("a.pkl", pickle.dumps({})),
    ],
)
def test_what_is_no_python_is_refused_in_one_line(name, content, chapter, capsys):
    (chapter / name).write_bytes(content)
    assert "no Python" in refused(capsys, str(chapter / name))


def test_what_is_missing_is_refused_in_one_line(chapter, capsys):
    assert "does not exist" in refused(capsys, str(chapter / "nowhere.py"))
    assert "is a folder" in refused(capsys, str(chapter))
    script = write(chapter, "")
    assert "float16" in refused(capsys, script, "--dtype", "float16")
    assert "--save is empty" in refused(capsys, "--save", "", script)
    write(chapter, "", "file")
    assert "cannot create the folder" in refused(capsys, "--save", str(chapter / "file/x"), script)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("from common.time_layers import TimeAffine", "common.time_layers"),
        ("from common.layers import TimeAffine", "common.layers.TimeAffine"),
        ("import common.np", "common.np"),
        ("from dataset import ptb", "dataset.ptb"),
        ("from dataset.mnist import dataset_dir", "dataset.mnist.dataset_dir"),
    ],
)
def test_a_script_of_another_book_is_refused_in_one_line(line, says, chapter, capsys):
    assert says in refused(capsys, write(chapter, f"{line}\n"))
    tried = f"try:\n    {line}\nexcept ImportError:\n    print('without')\n"
    assert main(["book", write(chapter, tried)]) == 0


@pytest.mark.parametrize("place", [".", ".."])
@pytest.mark.parametrize("form", ["common.py", "common/mine.py"])
def test_a_common_that_is_not_the_books_is_refused_where_it_is_asked_for(
    place, form, chapter, capsys
):
    other = chapter / place / form
    other.parent.mkdir(exist_ok=True)
    other.write_text("")
    assert main(["book", write(chapter, "import dataset.mnist\n")]) == 0
    line = refused(capsys, write(chapter, "import common\n"))
    assert "a common of its own" in line


def test_an_import_error_of_the_script_is_its_own(chapter, capsys):
    assert main(["book", write(chapter, "import no_such_thing\n")]) == 1
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_ctrl_c_ends_it(chapter):
    script = write(chapter, "print('begun', flush=True)\nwhile True:\n    pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "xpdl", "book", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "xpdl book: interrupted.\n"
