"""All that decides how a run goes: of a recipe and what is put in its place, and of a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xpdl import files
from xpdl.arguments import flag, number, sizes, whole_number
from xpdl.backends import get_backend
from xpdl.datasets import PictureData
from xpdl.errors import ArgumentError, ModelFileError, UnknownNameError
from xpdl.models import MODELS
from xpdl.optimizers import get_optimizer
from xpdl.precision import get_precision
from xpdl.runs.data import SHARE, is_own, usual_recipe
from xpdl.runs.folder import CHECKPOINT, HISTORY
from xpdl.runs.recipes import RECIPES, TrainingOptions
from xpdl.schedules import get_schedule, keeps_its_pace
from xpdl.training.gradient_sum import check_reduce_dtype
from xpdl.tuning.shifts import Looks


@dataclass(frozen=True, kw_only=True)
class RunOptions(TrainingOptions):
    """All that decides how a run goes; a run's ``history.json`` keeps them.

    `checkpoint_every`, `on_divergence` and `reduce_dtype` are those of `Trainer`; `data` and the
    rest are of `load_pictures`.
    """

    data: str
    seed: int
    backend: str
    dtype: str
    checkpoint_every: float = 180.0
    on_divergence: str = "stop"
    reduce_dtype: str | None = None
    picture_size: tuple[int, int] | None = None
    channels: int | None = None
    skip_broken: bool = False
    test: float = SHARE
    validation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_text("data", "backend", "dtype", "on_divergence")
        whole_number("seed", self.seed, least=0)
        number("checkpoint_every", self.checkpoint_every, above=0)
        number("test", self.test, above=0, below=1)
        number("validation", self.validation, below=1)
        flag("skip_broken", self.skip_broken)
        check_reduce_dtype(self.reduce_dtype, get_precision(self.dtype))
        if self.reduce_dtype is not None and self.members > 1:
            raise ArgumentError(
                f"reduce_dtype is for gradients that processes share, and each of {self.members} "
                "members is trained by one: leave it out."
            )
        if self.picture_size is not None:  # a list, from JSON
            object.__setattr__(self, "picture_size", sizes("picture_size", self.picture_size, 2))

    @property
    def looks(self) -> Looks:
        """How the finished network looks at a picture."""
        return Looks(self.shifts, self.mirrored)

    def of_pictures(self) -> dict[str, Any]:
        """Return what `load_pictures` is given."""
        names = ("data", "picture_size", "channels", "skip_broken", "test", "validation")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunOptions:
        """Return the options that a ``history.json`` keeps; older ones have fewer of them."""
        batch_size = record["batch_size"]
        if isinstance(batch_size, dict):  # JSON has no keys but texts
            batch_size = {int(first): size for first, size in batch_size.items()}
        return cls(**{**record, "batch_size": batch_size})


def make_options(
    recipe: str | None,
    *,
    data: str,
    seed: int,
    dtype: Any,
    pictures: PictureData | None = None,
    **overrides: Any,
) -> RunOptions:
    """Return the options of a recipe, with those in `overrides` that are not None in its place.

    With None, the recipe is what suits the `pictures`, or MNIST's without any. Options
    of the model and of the optimizer are added to the recipe's, or take the place of all if it is
    of another. The recipe's learning rate is for its optimizer; another has its usual one. A
    pretrained network is the model.

    Raises
    ------
    UnknownNameError
        If there is no such recipe, augmentation or dtype.
    ArgumentError
        If an option does not serve.
    """
    suited: Mapping[str, Any] = {}
    if recipe is None:
        recipe, suited = ("fast", {}) if pictures is None else usual_recipe(data, pictures)
    if recipe not in RECIPES:
        raise UnknownNameError("recipe", recipe, RECIPES)
    chosen = asdict(RECIPES[recipe])
    del chosen["about"]
    if suited.get("model", chosen["model"]) != chosen["model"]:
        chosen["model_options"] = {}
    chosen |= suited
    model = overrides.get("model")
    if model is not None:
        proper = _proper(model)
        if proper != chosen["model"]:
            chosen["model_options"] = {}
            chosen["optimizer_options"].pop("rate_factors", None)  # by names of its layers
        overrides["model"] = proper
    if overrides.get("pretrained") is not None:
        _expect_no_model(overrides)
        chosen |= {"model": overrides["pretrained"], "model_options": {}}
        if is_own(data) and Path(data).is_dir():
            chosen["channels"] = 3
    rule = overrides.get("optimizer")
    if isinstance(rule, str) and rule.lower() != chosen["optimizer"]:
        chosen["learning_rate"] = get_optimizer(rule).host_learning_rate()
        chosen["optimizer_options"] = {}
    for name in ("model_options", "optimizer_options"):
        if overrides.get(name) is not None:
            overrides[name] = chosen[name] | overrides[name]
    chosen |= {name: value for name, value in overrides.items() if value is not None}
    return RunOptions(
        data=data, seed=seed, dtype=get_precision(dtype).name, backend=get_backend().name, **chosen
    )


def _expect_no_model(overrides: Mapping[str, Any]) -> None:
    """See that none is asked for beside a pretrained network."""
    for name in ("model", "model_options"):
        if overrides.get(name):
            raise ArgumentError(
                f"pretrained {overrides['pretrained']!r} is a network with its own layers; leave "
                f"{name} out."
            )


def _proper(model: Any) -> Any:
    """Return the name of a model as it is written, whatever its capitals."""
    return {known.lower(): known for known in MODELS}.get(str(model).lower(), model)


def unfinished_options(
    folder: Path, record: Mapping[str, Any], epochs: int | None = None
) -> RunOptions:
    """Return the options of a run that is to go on, of what its ``history.json`` holds.

    A finished run goes on if it is now to have more `epochs`, and its options let them change.

    Raises
    ------
    ModelFileError
        If the record is damaged.
    ArgumentError
        If the run is finished, and there is no more to do.
    """
    try:
        options, finished = RunOptions.from_record(record["options"]), record["finished"]
    except (TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{str(folder / HISTORY)!r} is damaged: {error!r}.") from error
    more = epochs is not None and whole_number("epochs", epochs) > options.epochs
    if not finished or (more and can_go_on(folder, options)):
        return options
    # A process that was killed at its very end may have left them.
    remove_leftovers(folder, options)
    made = record.get("epochs")  # fewer, if patience ended it
    count = len(made) if isinstance(made, list) else options.epochs
    told = f"the run in {str(folder)!r} is finished after {count} epochs"
    if can_go_on(folder, options):
        raise ArgumentError(f"{told}; give more --epochs to go on with it.")
    raise ArgumentError(
        f"{told}; there is no more to do: {_why_at_its_end(folder, options)}. Train anew in "
        "another folder, or with --overwrite in this one."
    )


def remove_leftovers(folder: Path, options: RunOptions) -> None:
    """Remove from the folder of a finished run what it takes to go on, if it cannot."""
    if "epochs" not in changeable(options):
        (folder / CHECKPOINT).unlink(missing_ok=True)
    files.remove_unfinished(folder)


def can_go_on(folder: Path, options: RunOptions) -> bool:
    """Tell whether a finished run can be given more epochs."""
    return "epochs" in changeable(options) and (folder / CHECKPOINT).exists()


def _why_at_its_end(folder: Path, options: RunOptions) -> str:
    if options.members > 1:
        return "members are of equal length"
    if "epochs" not in changeable(options):
        return f"its learning rate has come to its end ({options.schedule})"
    return f"its {CHECKPOINT} is not there"


def changed_options(options: RunOptions, changes: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run that goes on with `changes`; the same value is no change.

    Raises
    ------
    ArgumentError
        If the run would not go on as it began; all such changes are named.
    """
    wanted = dict(changes)
    if "model" in wanted:
        wanted["model"] = _proper(wanted["model"])
    for name in wanted.keys() & {"model_options", "optimizer_options"}:
        wanted[name] = {**getattr(options, name), **wanted[name]}
    made = {name: value for name, value in wanted.items() if getattr(options, name) != value}
    free = changeable(options)
    fixed = [f"{name} ({getattr(options, name)!r})" for name in made if name not in free]
    if fixed:
        raise ArgumentError(
            f"the run goes on with its own {', '.join(fixed)}: leave that out, or begin another "
            f"run. What may change is {', '.join(free)}."
        )
    return replace(options, **made)


def changeable(options: RunOptions) -> tuple[str, ...]:
    """Return the options that may change when a run goes on."""
    free: tuple[str, ...] = ("checkpoint_every", "on_divergence", "shifts", "mirrored")
    pace = keeps_its_pace(get_schedule(options.schedule)) and not options.warm_up
    free += ("data",) if is_own(options.data) else ()  # moved elsewhere, or the checkpoint refuses
    return (*free, "epochs") if pace and options.members == 1 else free
