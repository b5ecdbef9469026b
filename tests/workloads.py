"""Small trainings and predictions for tests of threads and processes.

    python tests/workloads.py SITUATION BACKEND [CHILDREN]

plays a situation of `SITUATIONS` in this process, and ends with 0 if each of its children gave what
the parent gives, to the last bit. It is a module of its own so that a spawned child can import it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import threadpoolctl

import xpdl
from xpdl import backends
from xpdl.backends.numpy import memory, threads
from xpdl.datasets.augmentation import Compose, Noise, Rotate
from xpdl.models import NormalizedConvNet
from xpdl.network import Network
from xpdl.training import Trainer

LIMIT = 60
"""Seconds after which a child hangs, as far as we are concerned."""


def shape() -> tuple[int, int, int]:
    """Return the shape of a picture: large enough for threads where the active backend has them."""
    side = 20 if xpdl.get_backend().name in ("numpy", "numba") else 12
    return 1, side, side


def pictures(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Return pictures (count, *shape()) and their labels, on the host."""
    rng = np.random.default_rng([7, seed])
    return rng.random((count, *shape()), np.float32), rng.integers(0, 10, count)


def new_network(seed: int, dtype: str = "float32") -> Network:
    """Return a network of convolutions, batch normalisation and dropout, on the active backend."""
    return NormalizedConvNet(shape(), (8, 8, 8), dropout_ratio=0.5, seed=seed, dtype=dtype)


def train(backend: str, seed: int, epochs: int = 1, dtype: str = "float32") -> Network:
    """Return a network trained on `backend`: batches of which threads take their parts."""
    with xpdl.use_backend(backend):
        network = new_network(seed, dtype)
        Trainer(
            network,
            pictures(100, seed),
            pictures(20, seed + 1),
            epochs=epochs,
            batch_size=50,
            seed=seed,
            augment=Compose([Rotate(10), Noise(0.1)]),
            average=0.9,
            progress=False,
        ).fit()
        return network


def content(network: Network) -> dict[str, bytes]:
    """Return the bytes of all that is saved of a network."""
    return {name: network.backend.to_numpy(a).tobytes() for name, a in network.arrays().items()}


def trained_content(backend: str, seed: int) -> dict[str, bytes]:
    """Return what a training gives."""
    return content(train(backend, seed))


def scores(network: Network) -> bytes:
    """Return the bytes of a network's answers to 60 pictures."""
    with xpdl.use_backend(network.backend) as backend:
        return backend.to_numpy(network.predict(backend.asarray(pictures(60)[0]))).tobytes()


# ---- situations ---------------------------------------------------------------------------------


def expect(said: object, wanted: object, what: str) -> None:
    """Stop where a child has said something else than the parent."""
    if said != wanted:
        raise AssertionError(f"{what} differs")


def forked(work: Callable[[], bool]) -> int:
    """Return how a forked child ended that did `work`: 0 if that was true, else 1, or a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(LIMIT)
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def workers(method: str, backend: str, children: int) -> None:
    """Let children that are started by `method` predict and train after a training of ours."""
    network, wanted = train(backend, 1), trained_content(backend, 2)
    answers = scores(network)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(children, mp_context=context) as executor:
        predictions = [executor.submit(scores, network) for _ in range(2 * children)]
        trainings = [executor.submit(trained_content, backend, 2) for _ in range(children)]
        expect(scores(network), answers, "what the parent predicts meanwhile")
        for prediction in predictions:
            expect(prediction.result(LIMIT), answers, "what a child predicts")
        for training in trainings:
            expect(training.result(LIMIT), wanted, "what a child trains")
    expect(trained_content(backend, 2), wanted, "what the parent trains afterwards")


def fork(backend: str, children: int) -> None:
    """See `workers`."""
    workers("fork", backend, children)


def spawn(backend: str, children: int) -> None:
    """See `workers`."""
    workers("spawn", backend, children)


def busy(backend: str, children: int) -> None:
    """Fork, one child after another, while two threads train."""
    xpdl.use_backend(backend)
    sys.setswitchinterval(1e-5)  # so that the threads are caught in the middle of things
    network, over, errors = train(backend, 1), threading.Event(), []
    answers, wanted = scores(network), trained_content(backend, 2)

    def compute(seed: int) -> None:
        x, t = pictures(50, seed)
        other = new_network(seed)
        try:
            while not over.is_set():
                other.forward_backward(x, t)
        except BaseException as error:
            errors.append(error)
            raise

    computing = [threading.Thread(target=compute, args=(seed,)) for seed in (3, 4)]
    for thread in computing:
        thread.start()
    try:
        for _ in range(children):
            expect(forked(lambda: scores(network) == answers), 0, "how a child that predicts ended")
        ended = forked(lambda: trained_content(backend, 2) == wanted)
        expect(ended, 0, "how a child that trains ended")
    finally:
        over.set()
        for thread in computing:
            thread.join()
    expect(errors, [], "how the threads ended")
    expect(trained_content(backend, 2), wanted, "what the parent trains afterwards")


def killed(backend: str, children: int) -> None:
    """Kill children as they train, forked ones and those of a pool."""
    network, wanted = train(backend, 1), trained_content(backend, 2)
    answers = scores(network)
    for _ in range(children):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(LIMIT)
            train(backend, 3, epochs=1)
            os.write(writing, b"!")
            train(backend, 4, epochs=10**9)
            os._exit(1)
        os.read(reading, 1)
        time.sleep(0.02)
        os.kill(child, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        expect(ended, -signal.SIGKILL, "how the child ended")
        os.close(reading)
        os.close(writing)
        expect(scores(network), answers, "what the parent predicts")
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        executor.submit(scores, network).result(LIMIT)
        endless = executor.submit(train, backend, 4, 10**9)
        for process in multiprocessing.active_children():
            process.kill()
        expect(type(endless.exception(LIMIT)), BrokenProcessPool, "what is said of a pool")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        prediction = executor.submit(scores, network)
        expect(prediction.result(LIMIT), answers, "what another child predicts")
    expect(trained_content(backend, 2), wanted, "what the parent trains afterwards")


def choosing(backend: str, children: int) -> None:
    """Fork from a thread that has chosen a backend for itself."""
    xpdl.use_backend("strict")

    def works() -> bool:
        chosen = [xpdl.get_backend().name]
        thread = threading.Thread(target=lambda: chosen.append(xpdl.get_backend().name))
        thread.start()
        thread.join()
        xpdl.use_backend("generic")
        return [*chosen, xpdl.get_backend().name] == [backend, backend, "generic"]

    def fork_often() -> None:
        xpdl.use_backend(backend)
        ended.extend(forked(works) for _ in range(children))
        ended.append(xpdl.get_backend().name)

    ended: list[Any] = []
    thread = threading.Thread(target=fork_often)
    thread.start()
    thread.join()
    expect(ended, [*[0] * children, backend], "how the children ended")
    expect(xpdl.get_backend().name, "strict", "what the parent chose")


def locked(backend: str, children: int) -> None:
    """Fork while a thread has one of the locks that a computation takes for a moment."""
    xpdl.use_backend(backend)
    locks: list[Any] = [memory.pool._lock, threads.single_threaded_blas._lock, backends._making]
    if backend == "numba":
        from numba.core.compiler_lock import global_compiler_lock

        locks.append(global_compiler_lock)
    for lock in locks:
        taken = threading.Event()

        def have(lock: Any = lock, taken: threading.Event = taken) -> None:
            lock.acquire()
            taken.set()
            time.sleep(0.1)
            lock.release()

        thread = threading.Thread(target=have)
        thread.start()
        taken.wait(LIMIT)

        def work(lock: Any = lock) -> bool:
            signal.alarm(5)
            lock.acquire()
            lock.release()
            return True

        for _ in range(children):
            expect(forked(work), 0, f"how a child that wants {lock} ended")
        thread.join()


def limited(backend: str, children: int) -> None:
    """Fork while a thread keeps BLAS to one thread; the child is to have as many as it had."""
    single, inside, over = threads.SingleThreadedBlas(), threading.Event(), threading.Event()

    def counts() -> set[int]:
        return {info["num_threads"] for info in threadpoolctl.threadpool_info()}

    threadpoolctl.threadpool_limits(2, user_api="blas")
    before = counts()

    def stay_inside() -> None:
        with single:
            inside.set()
            over.wait(LIMIT)

    def work() -> bool:
        with single, single:
            within = counts()
        return (within, counts()) == ({1}, before)

    thread = threading.Thread(target=stay_inside)
    thread.start()
    inside.wait(LIMIT)
    ended = [forked(work) for _ in range(children)]
    over.set()
    thread.join()
    expect(ended, [0] * children, "how the children ended")
    expect(counts(), before, "how many threads BLAS has")


SITUATIONS = {
    "fork": fork,
    "spawn": spawn,
    "busy": busy,
    "locked": locked,
    "limited": limited,
    "killed": killed,
    "choosing": choosing,
}


if __name__ == "__main__":
    situation, backend, *rest = sys.argv[1:]
    SITUATIONS[situation](backend, int(rest[0]) if rest else 2)
