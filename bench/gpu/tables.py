"""The results of ``python -m bench gpu`` as Markdown, to be pasted where they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]


def heading(record: Results) -> str:
    """Return what was measured, on what and when, in a line."""
    device = record["device"]
    return (
        f"**xpdl {record['machine']['xpdl']} on {device['device']}** "
        f"(driver {device['driver']}, CUDA {device['CUDA runtime']}, "
        f"CuPy {device['CuPy']}; {device['pytorch']}), {record['when'][:10]}, "
        f"`{record['command']}`, source {record['source']}"
    )


def markdown(record: Results) -> str:
    """Return all that was measured, as text to be pasted where it is asked for."""
    lines = [heading(record), "", *_versions(record["device"])]
    for name in record["parts"]:
        lines += ["", f"### {name}", "", *table(record, name)]
    return "\n".join(lines) + "\n"


def table(record: Results, name: str) -> list[str]:
    """Return what a part has measured, and what became of it if it was not done."""
    part = record["parts"][name]
    try:
        lines = list(TABLES[name](part["results"])) if part["results"] else []
    except Exception as error:  # what was measured is worth more than how it is shown
        lines = [f"{name} cannot be shown, see the record: {type(error).__name__}: {error}"]
    if part["state"] != "done":
        lines += [""] * bool(lines) + [f"**{name} {part['state']}:** {part['message'] or 'as yet'}"]
    return lines


def _versions(device: Results) -> list[str]:
    return [", ".join(f"{name} {text}" for name, text in device.items() if name != "device")]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(line)} |" for line in lines]


def _step(results: Results) -> list[str]:
    timings = results.get("timings", [])
    rows = [
        (name, timing["precision"], timing["batch"], f"{row['median_ms']:.3f}",
         f"{row['from_ms']:.3f} to {row['to_ms']:.3f}", row["runs"], _two(row.get("ours_takes")),
         _reached(row.get("ours_takes"), _aim(results, timing, name)))
        for timing in timings
        for name, row in timing["results"].items()
    ]  # fmt: skip
    head = ("a training step", "precision", "batch", "ms", "10 % to 90 %", "runs")
    lines = _table((*head, "`xpdl captured` takes, of it", "aim"), rows)
    for timing in timings:
        for name, text in timing["failed"].items():
            lines.append("")
            lines.append(f"{name}, {timing['precision']}, batch {timing['batch']}: {text}")
    return lines


def _aim(results: Results, timing: Results, name: str) -> float | None:
    """Return what ours may take of a peer; aims are for float32, where both do the same."""
    return results["aims"].get(name) if timing["precision"] == "float32" else None


def _reached(ratio: float | None, aim: float | None) -> str:
    if ratio is None or aim is None:
        return ""
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


def _kernels(results: Results) -> list[str]:
    profiles = results.get("profiles", [])
    rows = [
        (p["program"], p["precision"], p["batch"], f"{p['kernels_a_step']:.0f}",
         f"{p['moves_a_step']:.0f}", f"{p['busy_us']:.0f}", f"{p['span_us']:.0f}")
        for p in profiles
    ]  # fmt: skip
    head = ("a replayed step", "precision", "batch", "kernels", "copies and fills", "busy, µs")
    lines = _table((*head, "from end to end, µs"), rows)
    for p in profiles:
        lines += ["", f"{p['program']}, {p['precision']}, batch {p['batch']}: the longest", ""]
        longest = [
            (f"`{kernel['name'][:100]}`", f"{kernel['calls']:.1f}", f"{kernel['us']:.1f}",
             f"{100 * kernel['us'] / p['busy_us']:.0f} %")
            for kernel in p["kernels"][:LONGEST]
        ]  # fmt: skip
        lines += _table(("kernel", "calls a step", "µs a step", "share"), longest)
    for where, text in results.get("failed", {}).items():
        lines += ["", f"{where}: {text}"]
    return lines


def _suite(results: Results) -> list[str]:
    counts = ", ".join(
        f"{results[what]} {what}"
        for what in ("passed", "failed", "skipped", "error", "xfail", "xpass", "ended")
        if what in results
    )
    lines = [f"`{results['command']}`: {counts} in {results['seconds']} s"]
    if results["files_left"]:
        lines.append(f"not run: {', '.join(results['files_left'])}")
    return lines + [f"- {failure}" for failure in results["failures"]]


# How many kernels of a step are listed for people; the record has them all.
LONGEST = 12

TABLES = {
    "parity": _parity,
    "step": _step,
    "kernels": _kernels,
    "training": _training,
    "memory": _memory,
    "suite": _suite,
}
