"""The results of ``python -m bench gpu`` as Markdown, to be pasted where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]


def heading(record: Results) -> str:
    """Return what was measured, on what and when, in a line."""
    device, settings = record["device"], record["sizes"]
    return (
        f"**xpdl {record['machine']['xpdl']} on {device['device']}** "
        f"(driver {device['driver'] or 'unknown'}, CUDA {_version(device['CUDA'])}, "
        f"CuPy {device['CuPy']}; {record['pytorch']}), {record['when'][:10]}, "
        f"`{record['command']}`, source {record['source'] or 'unknown'}, "
        f"{settings['rounds']} rounds of {settings['repeats']} runs of at most "
        f"{settings['steps']} steps"
    )


def _version(cuda: str) -> str:
    """Return CUDA's number, such as 13020, as people write it."""
    return f"{int(cuda) // 1000}.{int(cuda) % 1000 // 10}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(line)} |" for line in lines]


def _step(results: Results) -> list[str]:
    timings = results.get("timings", [])
    rows = [
        (name, timing["precision"], timing["batch"], f"{row['median_ms']:.3f}",
         f"{row['from_ms']:.3f} to {row['to_ms']:.3f}", _two(row.get("ours_takes")))
        for timing in timings
        for name, row in timing.get("results", {}).items()
    ]  # fmt: skip
    lines = _table(
        ("a training step", "precision", "batch", "ms", "10 % to 90 %", "`xpdl captured` takes"),
        rows,
    )
    for timing in timings:
        for name, text in timing.get("failed", {}).items():
            lines.append("")
            lines.append(f"{name}, {timing['precision']}, batch {timing['batch']}: {text}")
    ratios = [
        (name, timing["precision"], timing["batch"], _two(row["ours_takes"]),
         _reached(row["ours_takes"], _aim(results, timing, name)))
        for timing in timings
        for name, row in timing.get("results", {}).items()
        if name.startswith("PyTorch") and "ours_takes" in row
    ]  # fmt: skip
    if ratios:
        lines.append("")
        lines += _table(
            ("`xpdl captured` takes, of", "precision", "batch", "measured", "aim"), ratios
        )
    return lines


def _aim(results: Results, timing: Results, name: str) -> float | None:
    """Return what ours may take of a peer; aims are for float32, where both do the same."""
    return results["aims"].get(name) if timing["precision"] == "float32" else None


def _reached(ratio: float, aim: float | None) -> str:
    if aim is None:
        return "none"
    return f"{aim:.1f}: {'reached' if ratio <= aim else 'missed'}"


def _two(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _training(results: Results) -> list[str]:
    rows = [
        (f"training, {dtype}", results["epochs"], row["runs"],
         _spread(100 * row["test_accuracy"], row["test_accuracy_deviation"], 100) + " %",
         _spread(row["seconds"], row["seconds_deviation"]),
         row["skipped_steps"], ", ".join("" if s is None else f"{s:g}" for s in row["loss_scales"]))
        for dtype, row in results.get("summary", {}).items()
    ]  # fmt: skip
    head = ("DeepConvNet, the book's recipe", "epochs", "runs", "test accuracy")
    return _table((*head, "seconds", "skipped steps", "loss scales at the end"), rows)


def _spread(mean: float, deviation: float | None, factor: float = 1) -> str:
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {factor * deviation:.2f}")


def _parity(results: Results) -> list[str]:
    answers = {True: "yes", False: "**no**", None: ""}
    rows = [
        (f"gradients in {name}", f"{row['largest']:.1e}", row["parameter"],
         "none" if row["bound"] is None else f"{row['bound']:.2g}", answers[row["held"]],
         f"{row['loss_scale']:g}" if "loss_scale" in row else "")
        for name, row in results.get("precisions", {}).items()
    ]  # fmt: skip
    head = ("against float64 on the host", "largest relative error", "of", "bound", "held")
    return _table((*head, "loss scale"), rows)


def _memory(results: Results) -> list[str]:
    rows = [
        (row["program"], row["batch"], f"{row['over_start_mib']:.0f}")
        for row in results.get("rows", [])
    ]
    return _table(("memory of the device", "batch", "MiB at the most, over the start"), rows)


def _layers(results: Results) -> list[str]:
    rows = [
        (profile["title"], f"{1000 * profile['step']:.3f}", _longest(profile["parts"]))
        for profile in results.get("profiles", [])
    ]
    return _table(("layer by layer", "ms, with a wait after each", "the longest"), rows)


def _longest(parts: list[dict[str, Any]]) -> str:
    first = sorted(parts, key=lambda part: -part["share"])[:4]
    return ", ".join(f"{part['name']} {100 * part['share']:.0f} %" for part in first)


def _tests(results: Results) -> list[str]:
    counts = ", ".join(
        f"{results[what]} {what}"
        for what in ("passed", "failed", "skipped", "error")
        if what in results
    )
    return [f"`pytest -m gpu`: {counts or 'not run'}", *results.get("failures", [])]


# In the order in which people ask for them.
TABLES = {
    "step": _step,
    "training": _training,
    "parity": _parity,
    "memory": _memory,
    "layers": _layers,
    "tests": _tests,
}
