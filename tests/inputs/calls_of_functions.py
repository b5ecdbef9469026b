"""The functions on arrays, initializers, numerical gradients, optimizers and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from calls_of_layers import IMAGES, NO_SUCH_CLASS, ONE_HOT, ROWS, TARGETS
from hostile_values import (
    EITHER,
    NAN,
    REFUSED,
    Hostile,
    Kind,
    Made,
    array,
    either,
    flag,
    name,
    number,
    refused,
    rng,
    shape,
    thing,
    whole,
)
from verdicts import Call

from xpdl import functions, gradient, initializers, optimizers, schedules
from xpdl.backends import Backend
from xpdl.layers import Affine
from xpdl.network import Network

PROBABILITIES = np.abs(ROWS) / 8 + 0.125


def classes_of(t: np.ndarray[Any, Any], elsewhere: str = REFUSED) -> Kind:
    return array(t, dtype="int64", kinds="iu", elsewhere=elsewhere)


def tiny(dtype: str) -> Network:
    return Network([Affine(5)], 2, dtype=dtype)


def draw(made: initializers.Initializer) -> Any:
    return made.draw((2, 3), 2, 3, np.random.default_rng(0))


FUNCTION_CALLS: list[Call] = [
    *(
        Call(
            function.__name__,
            {"x": array(x, kinds=kinds, elsewhere=EITHER)},
            lambda _, x, function=function: function(x),
        )
        for function, x, kinds in (
            (functions.step_function, ROWS, "biuf"),
            (functions.sigmoid, ROWS, "biuf"),
            (functions.tanh, IMAGES, "biuf"),
            (functions.relu, IMAGES, "iuf"),
            (functions.softmax, ROWS, "biuf"),
            (functions.log_softmax, ROWS[0], "biuf"),
        )
    ),
    Call(
        "identity_function",
        {"x": Kind(lambda b: b.asarray(ROWS), lambda _: either(None, "text", [1.0], 3))},
        lambda _, x: functions.identity_function(x),
    ),
    Call(
        "sum_squared_error",
        {"y": array(ROWS, kinds="biuf"), "t": array(ONE_HOT, kinds="biuf")},
        lambda _, y, t: functions.sum_squared_error(y, t),
        words={"y": "y|t"},
    ),
    Call(
        "sum_squared_error of one",
        {"y": array(ROWS[0], kinds="biuf"), "t": array(ONE_HOT[0], kinds="biuf")},
        lambda _, y, t: functions.sum_squared_error(y, t),
        words={"y": "y|t"},
    ),
    *(
        Call(
            f"cross_entropy_error{title}",
            {"y": array(y, kinds="biuf"), "t": t},
            lambda _, y, t: functions.cross_entropy_error(y, t),
            words={"y": "y|t"},
            documented=NO_SUCH_CLASS
            | {
                "y: numbers of -1e4": "no probabilities: their logarithm is NaN",
                "y: one column less": "the last class is none then",
            },
        )
        for title, y, t in (
            ("", PROBABILITIES, classes_of(TARGETS)),
            (" one-hot", PROBABILITIES, array(ONE_HOT, kinds="biuf")),
            (" of one", PROBABILITIES[0], classes_of(TARGETS[1])),
        )
    ),
    Call(
        "one_hot",
        {
            "t": classes_of(TARGETS, EITHER),
            "classes": whole(5),
            "dtype": Kind(
                lambda _: "float32",
                lambda _: [
                    *refused(object(), "text", {}, 1.5, "complex64", "U3", object, "f4,f4", [1]),
                    *refused(np.ones(2), "datetime64[s]", complex, str, NAN, ""),
                    *either("int8", float, "bool", np.float64, None, "float16"),
                ],
            ),
        },
        lambda _, **given: functions.one_hot(**given),
        words={"classes": "classes|class numbers"},
    ),
    Call(
        "im2col",
        {
            "x": array(IMAGES, kinds="biuf", elsewhere=EITHER),
            "filter_h": whole(2),
            "filter_w": whole(3),
            "stride": whole(1),
            "pad": whole(1),
        },
        lambda _, **given: functions.im2col(**given),
        words={
            "x": "x|image|height|width",
            "filter_h": "filter_h|height",
            "filter_w": "filter_w|width",
        },
    ),
    Call(
        "col2im",
        {
            "col": array(
                np.arange(2 * 3 * 5 * 12, dtype="f4").reshape(30, 12) / 8,
                kinds="biuf",
                elsewhere=EITHER,
            ),
            "input_shape": shape((2, 3, 4, 6)),
            "filter_h": whole(2),
            "filter_w": whole(2),
            "stride": whole(1),
            "pad": whole(0),
        },
        lambda _, **given: functions.col2im(**given),
        words={
            "input_shape": "input_shape|image|images|col",
            "filter_h": "filter_h|height|col",
            "filter_w": "filter_w|width|col",
            "stride": "stride|col",
            "pad": "pad|col",
        },
    ),
    Call(
        "numerical_gradient",
        {
            "f": thing(
                lambda _: lambda x: (x * x).sum(),
                lambda x: "text",
                lambda x: None,
                lambda x: x,
                lambda x: [1.0, 2.0],
                lambda x: 1j,
                lambda x: object(),
            ),
            "x": array(ROWS[:2, :2], dtype="float64", elsewhere=EITHER),
            "h": number(0.25),
        },
        lambda _, **given: gradient.numerical_gradient(**given),
        documented={
            "x: read-only": "an x that cannot be moved has no numerical gradient",
            "x: the other byte order": "refused, since it is not NumPy's float64",
        },
    ),
    Call(
        "gradient_check",
        {
            "network": thing(lambda _: tiny("float64"), Network, tiny("float32")),
            "x": array(ROWS[:, :2], dtype="float64", kinds="biuf", lists=EITHER),
            "t": classes_of(TARGETS),
            "h": number(0.25),
            "seed": whole(3),
        },
        lambda _, **given: gradient.gradient_check(**given),
        words={"network": "network|dtype", "x": "x|t"},
        on_device=NO_SUCH_CLASS,
    ),
    # ---- initializers --------------------------------------------------------------------------
    Call(
        "Normal",
        {"uniform": flag(False), "deviation": number(0.25)},
        lambda _, **given: initializers.Normal(**given),
        use=lambda _, made: draw(made),
    ),
    Call(
        "Xavier",
        {"uniform": flag(False), "average": flag(True)},
        lambda _, **given: initializers.Xavier(**given),
        use=lambda _, made: draw(made),
    ),
    Call(
        "He",
        {"uniform": flag(True)},
        lambda _, **given: initializers.He(**given),
        use=lambda _, made: draw(made),
    ),
    Call(
        "Initializer",
        {"uniform": flag(True)},
        lambda _, **given: initializers.Initializer(**given),
    ),
    Call(
        "Constant",
        {"uniform": flag(False), "value": number(0.25)},
        lambda _, **given: initializers.Constant(**given),
        use=lambda _, made: draw(made),
    ),
    *(
        Call(
            f"{made!r}.draw",
            {"shape": shape((2, 3)), "fan_in": whole(2), "fan_out": whole(3), "rng": rng()},
            lambda made, **given: made.draw(**given),
            lambda _, made=made: made,
        )
        for made in (initializers.He(), initializers.Constant(value=1.0))
    ),
    Call(
        "Xavier.std",
        {"fan_in": whole(2), "fan_out": whole(3)},
        lambda made, **given: made.std(**given),
        lambda _: initializers.Xavier(average=True),
    ),
    Call(
        "get_initializer",
        {"choice": name("xavier", numbers=True)},
        lambda _, choice: initializers.get_initializer(choice),
        use=lambda _, made: draw(made),
        words={"choice": "weight_init|weight initialisation"},
    ),
]


# ---- optimizers ----------------------------------------------------------------------------------

OPTIONS = {
    "learning_rate": number(0.5),
    "weight_decay": number(0.25),
    "decay_all": flag(True),
    "clip_norm": number(0.5, none=True),
    "rate_factors": Kind(
        lambda _: {"W": 0.5}, lambda _: refused("text", 0, True, 1.5, [], {3: 0.5}, {"W": "x"})
    ),
}
RULES: dict[str, dict[str, Kind]] = {
    "SGD": {},
    "Momentum": {"momentum": number(0.5)},
    "Nesterov": {"momentum": number(0.5)},
    "AdaGrad": {"epsilon": number(0.25)},
    "RMSProp": {"decay_rate": number(0.5), "epsilon": number(0.25)},
    "Adam": {"beta1": number(0.5), "beta2": number(0.75), "epsilon": number(0.25)},
    "AdamW": {"beta1": number(0.5), "beta2": number(0.75), "epsilon": number(0.25)},
    "Muon": {"momentum": number(0.5), "iterations": whole(3)},
}


def given_arrays(backend: Backend, factor: float = 1.0) -> dict[str, Any]:
    return {
        "W": backend.asarray(np.array(factor * ROWS), "float32"),
        "b": backend.asarray(np.array(factor * ROWS[0]), "float32"),
    }


def use_optimizer(backend: Backend, optimizer: optimizers.Optimizer) -> None:
    params, grads = given_arrays(backend), given_arrays(backend, 0.5)
    for _ in range(2):
        optimizer.update(params, grads)
    assert all(np.isfinite(backend.to_numpy(p)).all() for p in params.values())
    optimizer.state_dict(), optimizer.settings()


def stepped(rule: str, **options: Any) -> Callable[[Backend], optimizers.Optimizer]:
    def subject(backend: Backend) -> optimizers.Optimizer:
        made = getattr(optimizers, rule)(0.25, **options)
        made.update(given_arrays(backend), given_arrays(backend, 0.5))
        return made

    return subject


def one_of_two(
    kind: Kind, host: np.ndarray[Any, Any], others: list[Any], alone: bool = False
) -> Kind:
    """Return the kind of a dictionary of arrays, of which one, b, is replaced.

    Unless `alone`, another dictionary beside it wants the same names in it.
    """

    def valid(backend: Backend) -> dict[str, Any]:
        return {"W": weights(backend), "b": kind.valid(backend)}

    def hostile(backend: Backend) -> list[Hostile]:
        def of(b: Any) -> Made:
            return Made(lambda: {"W": weights(backend), "b": b})

        def plain() -> dict[str, Any]:
            return {"W": weights(backend), "b": backend.asarray(host.copy(), "float32")}

        w = weights(backend)
        found = [
            Hostile(f"b is {h.label}", of(h.value), h.verdict, Made(plain), h.finite)
            for h in kind.hostile(backend)
        ]
        lone = [] if alone else [{"W": w}, {"W": w, "b": w[0], "c": w}, {"W": w, 3: w[0]}]
        return found + refused({}, [w], w, *lone, *others) + [Hostile("None", None)]

    return Kind(valid, hostile)


def weights(backend: Backend) -> Any:
    return backend.asarray(ROWS.copy(), "float32")


JUNK = [object(), "text", 1.5, True, [], dict, {"W": 1}, {1: 2}]
UPDATED = {
    "params": one_of_two(array(ROWS[0]), ROWS[0], JUNK),
    "grads": one_of_two(array(ROWS[0]), ROWS[0], JUNK),
    "go": Kind(
        lambda _: None,
        lambda backend: [
            *refused(object(), "text", {}, [], 1.5, True, 0, [True], dict),
            *refused(*(backend.asarray(a) for a in (np.array(1), np.ones(2, bool), np.ones(())))),
        ],
    ),
}


def update(optimizer: optimizers.Optimizer, params: Any, grads: Any, **more: Any) -> Any:
    optimizer.update(params, grads, **more)
    return params


FUNCTION_CALLS += [
    *(
        Call(
            rule,
            {**OPTIONS, **options},
            lambda _, rule=rule, **given: getattr(optimizers, rule)(**given),
            use=use_optimizer,
        )
        for rule, options in RULES.items()
    ),
    Call(
        "Optimizer",
        OPTIONS,
        lambda _, **given: optimizers.Optimizer(**given),
    ),
    *(
        Call(
            f"{rule}.update",
            UPDATED,
            update,
            stepped(rule, **options),
            words={"params": "params|parameters?|b|W", "grads": "grads|gradients?|b|W"},
            documented={
                "params: b is read-only": "what is to change must be writable",
            },
        )
        for rule, options in (
            ("SGD", {"clip_norm": 1.0, "weight_decay": 0.25, "decay_all": True}),
            ("Momentum", {"weight_decay": 0.25}),
            ("Nesterov", {}),
            ("AdaGrad", {"clip_norm": 1.0}),
            ("RMSProp", {}),
            ("Adam", {"weight_decay": 0.25, "decay_all": True}),
            ("AdamW", {}),
            ("Muon", {"rate_factors": {"b": 0.5}}),
        )
    ),
    Call(
        "Adam.update at first",
        UPDATED,
        update,
        lambda _: optimizers.Adam(),
        words={"params": "params|parameters?|b|W", "grads": "grads|gradients?|b|W"},
        documented={"params: b is read-only": "what is to change must be writable"},
    ),
    Call(
        "Optimizer.learning_rate",
        {"learning_rate": number(0.25)},
        lambda optimizer, learning_rate: setattr(optimizer, "learning_rate", learning_rate),
        stepped("Adam"),
    ),
    Call(
        "Optimizer.load_state_dict",
        {
            "saved": thing(
                lambda backend: stepped("Adam")(backend).state_dict(),
                {"rule": "Adam"},
                {"rule": "SGD", "iteration": 1, "learning_rate": 0.1, "state": {}},
                {"rule": "Adam", "iteration": 1.5, "learning_rate": 0.1, "state": {}},
                {"rule": "Adam", "iteration": 1, "learning_rate": 0.1, "state": {}},
                {"rule": "Adam", "iteration": 0, "learning_rate": NAN, "state": {}},
                {"rule": "Adam", "iteration": 0, "learning_rate": "x", "state": {}},
                {"rule": "Adam", "iteration": -1, "learning_rate": 0.1, "state": {}},
                {"rule": "Adam", "iteration": 1, "learning_rate": 0.1, "state": {"m": 1, "v": 2}},
            )
        },
        lambda optimizer, saved: optimizer.load_state_dict(saved),
        stepped("Adam"),
        words={"saved": "saved"},
    ),
    Call(
        "get_optimizer",
        {"choice": name("adam"), "learning_rate": number(0.25), "weight_decay": number(0.25)},
        lambda _, **given: optimizers.get_optimizer(**given),
        use=use_optimizer,
        words={"choice": "optimizer"},
    ),
    Call(
        "gradient_norm",
        {"grads": one_of_two(array(ROWS[0]), ROWS[0], [{"W": 1}, *JUNK], alone=True)},
        lambda _, grads: optimizers.gradient_norm(grads),
        words={"grads": "grads|gradient|b|W"},
    ),
]

# ---- schedules -----------------------------------------------------------------------------------


def use_schedule(_: Backend, schedule: Any) -> None:
    for epoch in (0, 0.5, 3, 4):
        factor = schedule(epoch, 4)
        assert isinstance(factor, float)
        assert np.isfinite(factor)


POSITION = {"epoch": number(1.5), "epochs": number(4.0)}
SCHEDULES: dict[str, dict[str, Kind]] = {
    "Constant": {},
    "Step": {"every": number(2.0), "factor": number(0.5)},
    "Exponential": {"final": number(0.25)},
    "Cosine": {"final": number(0.25)},
    "OneCycle": {"warm_up": number(0.25), "start": number(0.25), "final": number(0.125)},
    "WarmUp": {
        "schedule": thing(lambda _: schedules.Cosine(), schedules.Cosine),
        "epochs": number(1.0),
        "start": number(0.25),
    },
}

FUNCTION_CALLS += [
    *(
        Call(
            f"schedules.{kind}",
            arguments,
            lambda _, kind=kind, **given: getattr(schedules, kind)(**given),
            use=use_schedule,
        )
        for kind, arguments in SCHEDULES.items()
    ),
    *(
        Call(
            f"schedules.{kind}(epoch, epochs)",
            POSITION,
            lambda schedule, **given: schedule(**given),
            lambda _, kind=kind: getattr(schedules, kind)(),
        )
        for kind in SCHEDULES
    ),
    Call(
        "get_schedule",
        {"choice": name("cosine", none=True)},
        lambda _, choice: schedules.get_schedule(choice),
        use=use_schedule,
        words={"choice": "schedule"},
    ),
    Call(
        "with_warm_up",
        {
            "schedule": thing(lambda _: schedules.Cosine(), schedules.Cosine, none=True),
            "share": number(0.25),
            "epochs": number(4.0),
        },
        lambda _, **given: schedules.with_warm_up(**given),
        use=use_schedule,
        words={"share": "warm_up"},
    ),
    Call(
        "keeps_its_pace",
        {"schedule": Kind(lambda _: schedules.Cosine(), lambda _: either(None, "text", 1.5))},
        lambda _, schedule: schedules.keeps_its_pace(schedule),
    ),
]
