"""The command ``xpdl`` with an eye on the clock: ``python -m bench.timed_command train ...``.

It does what ``xpdl`` does with the same arguments, and prints one line more at its end: where the
time of its training went, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xpdl.cli import main as cli
from xpdl.training import Trainer
from xpdl.training.feeding import Feeding


class Watch:
    """When a process came to its first step of training and to the end, and what it spent in what.

    Moments are those of `time.perf_counter`, which is one clock for all processes of a machine, so
    that whoever started this one can count from there.

    Attributes
    ----------
    spent : dict of str to float
        Seconds by what was timed: "steps", from a batch's gathering to the update, and "testing".
    first : dict of str to float
        When each was timed first.
    steps : int
        How many were made.
    trained : float, optional
        When the last training ended.
    """

    def __init__(self) -> None:
        self.spent = {"steps": 0.0, "testing": 0.0}
        self.first: dict[str, float] = {}
        self.steps = 0
        self.trained: float | None = None

    def timed(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, with its time counted as `what`."""

        def run(*arguments: Any) -> Any:
            start = time.perf_counter()
            self.first.setdefault(what, start)
            result = call(*arguments)
            self.spent[what] += time.perf_counter() - start
            self.steps += what == "steps"
            return result

        return run

    @contextmanager
    def on_trainers(self) -> Iterator[None]:
        """Time every `Trainer` as long as a block runs."""
        places = [(Feeding, "_step_on"), (Feeding, "_whole_step"), (Trainer, "_judge"),
                  (Trainer, "fit")]  # fmt: skip
        before = [getattr(kind, name) for kind, name in places]
        step_on, whole_step, test, fit = before

        def fit_to_the_end(trainer: Trainer) -> Any:
            history = fit(trainer)
            self.trained = time.perf_counter()
            return history

        steps = (self.timed("steps", call) for call in (step_on, whole_step))
        after = (*steps, self.timed("testing", test), fit_to_the_end)
        try:
            for (kind, name), call in zip(places, after, strict=True):
                setattr(kind, name, call)
            yield
        finally:
            for (kind, name), call in zip(places, before, strict=True):
                setattr(kind, name, call)

    def report(self) -> dict[str, float | None]:
        """Return moments and seconds, as JSON can hold them; the last moment is now."""
        return {
            "first_step": self.first.get("steps"),
            "trained": self.trained,
            "end": time.perf_counter(),
            "count": self.steps,
            **self.spent,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``xpdl`` and return its exit code; the report follows where that is 0."""
    watch = Watch()
    with watch.on_trainers():
        code = cli.main(arguments)
    if code == 0:
        print(json.dumps(watch.report()), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
