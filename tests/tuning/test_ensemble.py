"""Ensembles: several networks that answer together."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    DTypeError,
    FileAccessError,
    ModelFileError,
    ShapeError,
)
from xpdl.layers import Affine, BatchNormalization, Dropout, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.optimizers import SGD
from xpdl.storage import load_with_notes
from xpdl.tuning import Ensemble, load_ensemble, train_ensemble
from xpdl.tuning.ensemble import load_ensemble_with_notes, member_seed


def blobs(n: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Return points (N, 2) around three corners, and which corner each is near."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 3
    corners = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return (corners[t] + 0.9 * rng.standard_normal((n, 2))).astype("float32"), t


def net(seed: int = 0, size: int = 6, **options: Any) -> Network:
    layers = [Affine(size), BatchNormalization(), ReLU(), Dropout(0.2), Affine(3)]
    return Network(layers, (2,), seed=seed, **options)


def make(seed: int, size: int = 6, data: Any = None, **options: Any) -> Trainer:
    usual = {"epochs": 2, "batch_size": 15, "optimizer": SGD(0.3), "progress": False}
    return Trainer(net(seed, size), data or blobs(), blobs(30, 1), seed=seed, **usual | options)


def train(n: int = 3, maker: Any = make, **options: Any) -> Ensemble:
    return train_ensemble(maker, n, **{"progress": False} | options)


def arrays(ensemble: Ensemble) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [
        {name: xpdl.to_numpy(a) for name, a in member.arrays().items()}
        for member in ensemble.members
    ]


def assert_same(one: Ensemble, other: Ensemble) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(arrays(one), arrays(other), strict=True):
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def probabilities(scores: Any) -> Any:
    """Return the softmax in float64, as the book writes it."""
    e = np.exp(scores.astype("float64") - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# ---- the mean


@pytest.mark.parametrize(
    ("dtypes", "wide", "tolerance"),
    [
        (["float32"] * 3, "float32", 1e-6),
        (["float16"] * 2, "float32", 1e-6),
        (["float16", "float64"], "float64", 1e-14),
    ],
)
def test_probabilities_are_the_mean_over_members(
    backend: Backend, dtypes: list[str], wide: str, tolerance: float
) -> None:
    members = [net(i, 5 + i, dtype=dtype) for i, dtype in enumerate(dtypes)]
    for member in members:
        member.params["affine2.W"][...] *= 4  # far from even
    x = backend.asarray(blobs(37)[0])
    y = Ensemble(members).predict(x, batch_size=10)
    assert backend.owns(y)
    assert y.dtype == wide
    # In the same batches: products of another size may be rounded otherwise.
    each = [probabilities(backend.to_numpy(member.predict(x, batch_size=10))) for member in members]
    assert np.ptp([p[0, 0] for p in each]) > 0.01
    np.testing.assert_allclose(backend.to_numpy(y), np.mean(each, axis=0), rtol=0, atol=tolerance)


def test_probabilities_and_not_scores_are_averaged(backend: Backend) -> None:
    """One member that shouts is one vote: its large scores do not outweigh two others."""
    loud, *others = (Network([Affine(2)], (1,), seed=i) for i in range(3))
    for network, scores in ((loud, [0.0, 100.0]), *((other, [1.0, 0.0]) for other in others)):
        network.params["affine1.b"][...] = backend.asarray(scores, "float32")
    x = backend.asarray(np.zeros((4, 1), "float32"))
    quiet = 1 / (1 + np.exp(-1.0))
    expected = np.array([2 * quiet, 2 * (1 - quiet) + 1]) / 3
    ensemble = Ensemble([loud, *others])
    np.testing.assert_allclose(
        backend.to_numpy(ensemble.predict(x)), np.tile(expected, (4, 1)), rtol=1e-6
    )
    assert expected[1] > expected[0]
    assert ensemble.accuracy(x, backend.asarray(np.array([1, 1, 0, 1]))) == 0.75


def test_one_member_answers_as_it_does_alone(backend: Backend) -> None:
    trainer = make(4)
    trainer.fit()
    member = trainer.network
    x, t = (backend.asarray(a) for a in blobs(50, 2))
    ensemble = Ensemble([member])
    np.testing.assert_array_equal(
        backend.to_numpy(ensemble.predict(x)),
        backend.to_numpy(xpdl.functions.softmax(member.predict(x))),
    )
    assert ensemble.accuracy(x, t) == member.accuracy(x, t)


def test_accuracy_is_the_share_of_most_probable_classes(backend: Backend) -> None:
    ensemble = train(3)
    x, t = blobs(41, 2)
    each = [
        probabilities(backend.to_numpy(member.predict(backend.asarray(x))))
        for member in ensemble.members
    ]
    expected = (np.mean(each, axis=0).argmax(axis=1) == t).mean()
    born = backend.asarray(x)
    assert 0.5 < expected < 1
    assert ensemble.accuracy(born, backend.asarray(t), batch_size=7) == expected
    assert ensemble.accuracy(born, backend.asarray(np.eye(3, dtype="f4")[t])) == expected
    assert ensemble.accuracy(x.tolist(), t.tolist()) == expected


# ---- training


def test_members_differ_by_their_seed_alone(backend: Backend) -> None:
    seeds: list[int] = []

    def noting(seed: int) -> Trainer:
        seeds.append(seed)
        return make(seed)

    ensemble = train(3, noting, seed=5)
    expected = [np.random.default_rng([6, 5, i]).integers(2**31) for i in range(3)]
    assert seeds == expected
    alone = []
    for seed in seeds:
        trainer = make(seed)
        trainer.fit()
        alone.append(trainer.network)
    assert_same(ensemble, Ensemble(alone))
    first, second, _ = arrays(ensemble)
    assert (first["affine1.W"] != second["affine1.W"]).all()


def jitter(x: Any, generator: Any) -> Any:
    return x + 0.1 * generator.random(x.shape, x.dtype)


class Stop(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_resumed_is_uninterrupted(backend: Backend, tmp_path: Path) -> None:
    whole = train(3)
    fitted: list[int] = []

    def failing(seed: int) -> Trainer:
        def note(trainer: Trainer, epoch: Any) -> None:
            if len(fitted) == 1 and epoch.number == 0:
                fitted.append(-1)
                raise Stop  # in the middle of the second member
            if epoch.number == 1:
                fitted.append(seed)

        return make(seed, callbacks=[note])

    folder = tmp_path / "a" / "folder"
    with pytest.raises(Stop):
        train(3, failing, folder=folder)
    assert names(folder) == ["checkpoint-1.safetensors", "member-0.safetensors"]
    with pytest.raises(FileAccessError, match=r"ensemble\.json"):
        load_ensemble(folder)
    assert_same(train(3, failing, folder=folder), whole)
    assert names(folder) == ["ensemble.json", *(f"member-{i}.safetensors" for i in range(3))]
    assert len(fitted) == 4
    assert len(set(fitted)) == 4
    assert_same(train(3, failing, folder=folder), whole)
    assert len(fitted) == 4  # nothing left to train
    assert_same(load_ensemble(folder), whole)
    (folder / "member-1.safetensors").unlink()
    assert_same(train(4, failing, folder=folder), train(4))
    assert len(fitted) == 6  # what was lost, and one more
    assert len(load_ensemble(folder)) == 4
    # From the folder, members are where `make` puts them.
    assert all(m.backend is backend for m in train(4, failing, folder=folder).members)


def test_a_member_goes_on_from_its_last_whole_epoch(tmp_path: Path) -> None:
    whole, epochs = train(2, lambda seed: make(seed, epochs=4)), []

    def stopping(seed: int) -> Trainer:
        def note(trainer: Trainer, epoch: Any) -> None:
            epochs.append(epoch.number)
            if len(epochs) == 6:
                raise Stop

        return make(seed, epochs=4, callbacks=[note])

    with pytest.raises(Stop):
        train(2, stopping, folder=tmp_path)
    (tmp_path / "checkpoint-0.safetensors").write_bytes(b"left by a kill -9")
    assert_same(train(2, stopping, folder=tmp_path), whole)
    assert epochs == [0, 1, 2, 3, 0, 1, 2, 3]
    assert names(tmp_path) == ["ensemble.json", "member-0.safetensors", "member-1.safetensors"]


def test_a_trainers_own_checkpoint_is_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    folder = tmp_path / "members"
    train(1, lambda seed: make(seed, checkpoint=own), folder=folder)
    assert own.exists()
    assert names(folder) == ["ensemble.json", "member-0.safetensors"]


def test_notes_are_kept_and_each_trained_member_is_told_once(tmp_path: Path) -> None:
    told: list[Any] = []

    def tell(i: int, trainer: Trainer) -> None:
        there = (tmp_path / f"member-{i}.safetensors").exists()
        told.append((i, trainer.seed, len(trainer.history.epochs), there))

    options: dict[str, Any] = {"folder": tmp_path, "about": {"data": "corners"}, "callback": tell}
    train(1, **options)
    train(3, **options)
    assert told == [(i, member_seed(0, i), 2, False) for i in range(3)]
    for i in range(3):
        about = load_with_notes(tmp_path / f"member-{i}.safetensors")[1]
        assert about["data"] == "corners"
        assert about["training"]["seed"] == member_seed(0, i)
    assert load_ensemble_with_notes(tmp_path)[1]["data"] == "corners"


@pytest.mark.parametrize(
    ("options", "seed", "words"),
    [
        ({"size": 7}, 0, r"architecture\.body\.layers\.affine1\.\S+ \(then 6, now 7\)"),
        ({"epochs": 3}, 0, r"epochs \(then 2, now 3\)"),
        ({"optimizer": SGD(0.2)}, 0, r"optimizer\.learning_rate \(then 0\.3, now 0\.2\)"),
        ({"schedule": "cosine"}, 0, r"schedule \(then 'Constant.*, now 'Cosine"),
        ({"augment": jitter}, 0, r"augment \(then None, now 'jitter'\)"),
        ({"data": blobs(seed=7)}, 0, r"sha256 \(then"),
        ({}, 1, r"member_seed \(then \d+, now \d+\)"),
    ],
)
def test_members_of_another_training_are_refused(
    tmp_path: Path, options: Any, seed: int, words: str
) -> None:
    train(1, folder=tmp_path)
    before = (tmp_path / "member-0.safetensors").read_bytes()
    with pytest.raises(ArgumentError, match=rf"member-0.*another training: .*{words}"):
        train(2, lambda s: make(s, **options), seed=seed, folder=tmp_path)
    assert (tmp_path / "member-0.safetensors").read_bytes() == before
    assert not (tmp_path / "member-1.safetensors").exists()


def test_a_folder_of_more_members_is_not_cut_down(tmp_path: Path) -> None:
    train(2, folder=tmp_path)
    with pytest.raises(ArgumentError, match="holds more than n=1 members"):
        train(1, folder=tmp_path)
    assert len(load_ensemble(tmp_path).members) == 2


def test_a_trainer_that_is_to_stop_is_refused() -> None:
    def stopped(seed: int) -> Trainer:
        trainer = make(seed)
        trainer.stop = True
        return trainer

    with pytest.raises(ArgumentError, match="has trained, or is to stop"):
        train(1, stopped)


def test_files_that_are_no_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "member-0.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="member-0"):
        train(1, folder=tmp_path)
    net().save(tmp_path / "member-0.safetensors")
    with pytest.raises(ArgumentError, match="not by train_ensemble"):
        train(1, folder=tmp_path)


@cache
def shared() -> Network:
    return net()


def trained(seed: int) -> Trainer:
    trainer = make(seed)
    trainer.fit()
    return trainer


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (lambda seed: net(), "must return a Trainer"),
        (trained, "has trained"),
        (lambda s: Trainer(shared(), blobs(), epochs=1, progress=False), r"\[1\] is there twice"),
        (
            lambda seed: Trainer(
                Network([Affine(2)], (2,), loss=IdentityWithLoss()), (blobs()[0], blobs()[0])
            ),
            "regression",
        ),
    ],
)
def test_bad_makers(maker: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        train(2, maker)


def test_bad_numbers() -> None:
    with pytest.raises(ArgumentError, match=r"n must be.*0"):
        train(0)
    with pytest.raises(ArgumentError, match=r"seed.*-1"):
        train(1, seed=-1)


def test_lines_before_and_after_a_member(capsys: Any, tmp_path: Path) -> None:
    train(1, folder=tmp_path)
    assert capsys.readouterr() == ("", "")
    ensemble = train(2, folder=tmp_path, progress=True)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"member 1/2  from {tmp_path / 'member-0.safetensors'}"
    assert second == f"member 2/2  seed {member_seed(0, 1)}"
    x, t = (xpdl.asarray(a) for a in blobs(30, 1))
    assert third == f"member 2/2  test accuracy {ensemble.members[1].accuracy(x, t):.2%}"


# ---- files


def test_saved_and_loaded_it_is_the_same(backend: Backend, tmp_path: Path) -> None:
    ensemble = Ensemble([net(0), net(1, 9), net(2, dtype="float64")])
    ensemble.save(tmp_path / "new")
    assert_same(load_ensemble(tmp_path / "new"), ensemble)
    x = backend.asarray(blobs(9)[0])
    half = load_ensemble(tmp_path / "new", dtype="float16")
    assert {member.precision.name for member in half.members} == {"float16"}
    np.testing.assert_allclose(
        backend.to_numpy(half.predict(x)), backend.to_numpy(ensemble.predict(x)), atol=0.01
    )
    with pytest.raises(ArgumentError, match="holds an ensemble"):
        Ensemble([net()]).save(tmp_path / "new")


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        ("[]", ModelFileError),
        ("{", ModelFileError),
        ('{"members": 2}', ModelFileError),
        ('{"format": "xpdl-ensemble-1", "members": 0}', ModelFileError),
        ('{"format": "xpdl-ensemble-1", "members": "2"}', ModelFileError),
        ('{"format": "xpdl-ensemble-1", "members": 3}', FileAccessError),
        ('{"format": "xpdl-ensemble-1", "members": 2, "about": []}', ModelFileError),
        ('{"format": "xpdl-ensemble-1", "members": 2, "about": {"shifts": -1}}', ModelFileError),
        ('{"format": "xpdl-ensemble-1", "members": 2, "about": {"data": 1}}', ModelFileError),
        (
            '{"format": "xpdl-ensemble-1", "members": 2, "about": {"class_names": 5}}',
            ModelFileError,
        ),
    ],
)
def test_damaged_folders(tmp_path: Path, index: str, kind: Any) -> None:
    Ensemble([net(0), net(1)]).save(tmp_path)
    (tmp_path / "ensemble.json").write_text(index)
    with pytest.raises(kind, match=r"ensemble\.json|member-2"):
        load_ensemble(tmp_path)


# ---- mistakes


@pytest.mark.parametrize(
    ("networks", "kind", "words"),
    [
        (list, ArgumentError, "empty"),
        (lambda: net(), ArgumentError, r"\[network\]"),
        (lambda: [net(), 3], ArgumentError, r"networks\[1\] must be a Network, got 3"),
        (lambda: [net()] * 2, ArgumentError, r"networks\[1\] is there twice"),
        (
            lambda: [net(), Network([Affine(3)], (4,))],
            ShapeError,
            r"networks\[1\].*input_shape \(4,\).*\(2,\)",
        ),
        (
            lambda: [net(), Network([Affine(4)], (2,))],
            ShapeError,
            r"networks\[1\].*output_shape \(4,\).*\(3,\)",
        ),
        (
            lambda: [net(), net().to("strict")],
            BackendMismatchError,
            r"networks\[1\] is on 'strict', the first on 'numpy'",
        ),
        (
            lambda: [Network([Affine(3)], (2,), loss=IdentityWithLoss())],
            ArgumentError,
            r"networks\[0\].*regression",
        ),
    ],
)
def test_members_must_go_together(networks: Any, kind: Any, words: str) -> None:
    with xpdl.use_backend("numpy"), pytest.raises(kind, match=words):
        Ensemble(networks())


def test_bad_data(backend: Backend) -> None:
    ensemble = Ensemble([net(0), net(1)])
    x, t = (backend.asarray(a) for a in blobs(6))
    with pytest.raises(ShapeError, match=r"x must be \(N, 2\)"):
        ensemble.predict(x.reshape(3, 4))
    with pytest.raises(ShapeError, match="class numbers of shape"):
        ensemble.accuracy(x, t[:4])
    with pytest.raises(DTypeError, match="integer class numbers"):
        ensemble.accuracy(x, t.astype("float32"))
    if backend.xp is np:
        with pytest.raises(ArgumentError, match="class numbers 0 to 2, got 5"):
            ensemble.accuracy(x, t + 5)
    else:
        with pytest.raises(BackendMismatchError):
            ensemble.accuracy(x, backend.to_numpy(t))


# ---- members that are one network ---------------------------------------------------------------


def test_networks_of_one_seed_are_said_to_be_one() -> None:
    with pytest.warns(UserWarning, match=r"networks\[2\] has the same parameters as networks\[0\]"):
        Ensemble([net(0), net(1), net(0)])
    Ensemble([net(0), net(1), net(2)])
    Ensemble([net(0, size=5), net(0)])


def test_a_maker_that_does_not_use_its_seed_is_refused_before_two_are_trained() -> None:
    trained: list[int] = []

    def forgetful(seed: int) -> Trainer:
        one = make(0)
        one.callbacks.append(lambda trainer, epoch: trained.append(epoch.number))
        return one

    with pytest.raises(ArgumentError, match="make must use its seed"):
        train(maker=forgetful)
    assert trained == [0, 1]  # of the first member alone
