"""What this folder's smaller measurements say, as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
LEAST_MS = 1.0  # of a step, for a kind of operations to be shown


def method_table(results: Results) -> str:
    """What the method does beside training: how long it takes, and the bar it is to be under."""
    step, update, fold, augment = (results[name] for name in ("step", "mask_update", "fold", "augment"))
    low, high = step["ratio_quartiles"]
    rows = [
        ("what", "measured", "bar"),
        (
            f"a step of `{step['arch']}` with compactors over one without, batch {step['batch']}, {step['precision']}",
            f"{step['ratio']:.2f} (quartiles {low:.2f}, {high:.2f})",
            f"{step['bar']:.2f}",
        ),
        (
            f"gradient reset and penalty in such a step of {step['ms_with']:.0f} ms",
            f"{step['ms_of_reset_and_penalty']:.2f} ms",
            "",
        ),
        (
            f"a mask update of `{update['arch']}`, {update['candidates']:,} rows, {update['macs_ratio']:.0%} of MACs",
            f"{update['ms']:.1f} ms",
            f"{update['bar_ms']} ms",
        ),
        (f"folding `{fold['arch']}`, without the proof", f"{fold['seconds']:.2f} s", f"{fold['bar_seconds']} s"),
        (f"tracing `{fold['arch']}` and finding its units", f"{fold['trace_and_plan_seconds']:.2f} s", ""),
        (f"augmenting {augment['images']} CIFAR images", f"{augment['ms']:.2f} ms", f"{augment['bar_ms']} ms"),
    ]
    return _table(rows, results, "method_cost.json")


def communication_table(results: Results) -> str:
    """What several processes' steps spend on the exchange of gradients, and on the pruner."""
    rows = [("network", "processes", "step", "exchange of gradients", "the pruner's hooks and mask updates")]
    for name, of_one in results["models"].items():
        shares = (f"{100 * of_one[share]:.1f}%" for share in ("share_of_exchange", "share_of_pruner"))
        rows.append((f"`{name}`", str(of_one["processes"]), f"{of_one['step_ms']:.0f} ms", *shares))
    return _table(rows, results, "communication.json")


def loading_table(results: Results) -> str:
    """How many images a second the loader gives, and networks take."""
    rows = [("images", "loaded a second", "network", "trained a second", "loader over training")]
    for kind in ("small images", "photographs"):
        of_kind = results[kind]
        for name, of_one in of_kind["networks"].items():
            rows.append(
                (
                    f"{of_kind['images']:,} {kind}, batch {of_kind['batch']}",
                    f"{of_kind['images_per_s']:,.0f}",
                    f"`{name}`",
                    f"{of_one['images_per_s']:,.0f}",
                    f"{of_one['loader_times_faster']:.0f}x",
                )
            )
    return _table(rows, results, "loading.json")


def cpu_use_table(results: Results) -> str:
    """What was chosen on a CPU in each run, what a step and the run took, and the bars."""
    rows = [("round", "run", "chosen", "images a second: start", "end", "seconds")]
    for number, of_round in enumerate(results["rounds"], start=1):
        for name, of_run in of_round.items():
            choice = of_run["choice"]
            words = [
                f"{choice['processes'] or 1} x {choice['threads']} threads",
                "bfloat16" if choice["amp"] else "float32",
            ]
            words += ["channels-last"] * choice["channels_last"] + ["compiled"] * choice["compile"]
            speeds = (f"{of_run[f'{when}_images_per_s']:,.0f}" for when in ("start", "end"))
            rows.append((str(number), name, ", ".join(words), *speeds, f"{of_run['seconds']:.0f}"))
    bars = results["bars"]
    of = {name: " and ".join(f"{ratio:.2f}" for ratio in results[name]) for name in bars}
    said = (
        f"A step of the pruning run is {of['start']} times faster than the first implementation's at the start (bar "
        f"{bars['start']:g}), {of['end']} times at the end (bar {bars['end']:g}); the whole run takes {of['whole']} of "
        f"the unpruned network's (bar {bars['whole']:.2f})."
    )
    return f"{_table(rows, results, 'cpu_use.json')}\n\n{said}"


def threads_table(results: Results) -> str:
    """What a step takes with one thread and with more, and each kind of its operations."""
    threads = results["by_threads"]
    fewest, *_, most = threads
    head = [f"{count} thread{'s' * (count != '1')}" for count in threads]
    rows = [("network", "what", *head, f"{most} over {fewest}")]
    for name, of_network in threads[fewest].items():
        kinds = [kind for kind, ms in of_network["kinds"].items() if ms >= LEAST_MS]
        for what in ("a step", *kinds):
            times = [
                of_count[name]["ms"] if what == "a step" else of_count[name]["kinds"][what]
                for of_count in threads.values()
            ]
            rows.append((name, what, *(f"{ms:.0f} ms" for ms in times), f"{times[-1] / times[0]:.2f}"))
    norms = [("channels", *(f"batch norm's {way}, {one}" for way in ("forward", "backward") for one in head))]
    for width, of_width in results["batch_norm"].items():
        times = (of_count[way] for way in ("forward", "backward") for of_count in of_width.values())
        norms.append((width, *(f"{ms:.1f} ms" for ms in times)))
    around = {**results, "threads": max(map(int, threads))}
    return _markdown(rows) + "\n\n" + _table(norms, around, "threads.json")


def _table(rows: Sequence[Sequence[str]], results: Results, file: str) -> str:
    """The rows, the first of them the head, and what measured them."""
    hardware, versions = results["hardware"], results["versions"]
    machine = ", ".join(hardware["gpus"]) or hardware["cpu"]
    used = f"{results['processes'] * results['threads']} of {hardware['cores']} cores"
    return "\n".join([_markdown(rows), "", f"`results/{file}`: {machine}, {used}, torch {versions['torch']}."])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest))
