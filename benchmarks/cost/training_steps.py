"""Training steps of one network in four variants, while the widths of a pruning run fall, timed in turn.

plain: the unpruned network; no narrowing: with compactors, at full width; rows: with compactors, dead channels taken
out; full: the same, compactors folded where enough is dead, and retired at the target; narrow plain: the floor, a plain
network (with its BNs) of the widths that the dead units leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from base_model import build_any
from benchmarks.cost.training_figures import (
    FLOOR,
    FULL,
    FULL_WIDTH,
    PLAIN,
    ROWS,
    VARIANTS,
    Figures,
    bars,
    paired_ratio,
    whole_runs,
)
from rr import ResRepConfig, ResRepPruner, paper_config, param_groups
from rr.graph import LayerKind
from rr.selection import select_forgotten
from training.allocator import keep_freed_memory

TARGETS = {"torchvision/resnet50": 0.455}
EXCLUDE = {"torchvision/resnet50": ("conv1",)}  # as in the paper, which prunes the blocks alone
OTHERS_TARGET = 0.47
MASK_INTERVAL = 200  # steps between mask updates, each with a call of narrow(): the method's default
NEVER = 10**9
KINDS = {  # of operations in a profile: words in torch's names for them
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "linear"),
    "batch norm": ("batch_norm",),
    "elementwise": ("relu", "clamp", "threshold", "::add", "::mul", "hardtanh"),
    "casts and copies": ("copy_", "_to", "::to", "empty", "resize", "fill_", "zero_"),
}
# Small, so that the networks stay near where they begin for all rounds: what numbers they hold is not to matter.
SGD = {"lr": 1e-5, "momentum": 0.9, "weight_decay": 1e-4}


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained and timed. image_size: pixels; points: of the schedule; rounds: at each."""

    model: str
    precision: str = "bfloat16"
    compactors: str = "dense"
    batch: int = 64
    image_size: int = 32
    width_multiple: int = 8
    points: int = 10
    rounds: int = 10
    warmup: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        least = {"batch": 2, "image_size": 1, "width_multiple": 1, "points": 2, "rounds": 1, "warmup": 1, "threads": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, not {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', not {self.precision!r}")

    @property
    def config(self) -> ResRepConfig:
        """What the pruner is to do; it updates no masks of itself."""
        return paper_config(
            flops_target=TARGETS.get(self.model, OTHERS_TARGET),
            exclude=EXCLUDE.get(self.model, ()),
            width_multiple=self.width_multiple,
            compactors=self.compactors,
            mask_interval=NEVER,
        )


class Training:
    """A network with its optimiser and one batch of random images; `step` trains it for a step."""

    def __init__(self, setting: Setting, model: nn.Module, pruner: ResRepPruner | None = None) -> None:
        self.model = model.to(memory_format=torch.channels_last).train()
        self.pruner = pruner
        groups = pruner.param_groups(**SGD) if pruner else param_groups(model, **SGD)
        self.optimizer = torch.optim.SGD(groups, lr=SGD["lr"])
        if pruner:
            pruner.attach(self.optimizer)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(setting.batch, 3, setting.image_size, setting.image_size, generator=generator)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (setting.batch,), generator=generator)
        self.amp = setting.precision == "bfloat16"

    def step(self) -> None:
        """Forward, backward and the optimiser's step, with the pruner's hooks where there are any."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            scores = self.model(self.images)
        F.cross_entropy(scores.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure(setting: Setting) -> Figures:
    """The figures of one network but for its memory; times are in milliseconds, ratios over the plain step."""
    torch.set_num_threads(setting.threads)
    keep_freed_memory()  # as in the project's own loop
    trainings = {variant: training_of(variant, setting) for variant in VARIANTS[:-1]}
    rows = trainings[ROWS].pruner
    schedule = Schedule(rows)
    points, all_times, hooks = [], [], {}
    for progress in np.linspace(0, 1, setting.points).tolist():
        alive = schedule.alive_at(progress)
        narrow_seconds = {name: kill(trainings[name], alive) for name in (ROWS, FULL)}
        first_seconds = {name: seconds(trainings[name].step) for name in (ROWS, FULL)}
        trainings[FLOOR] = Training(setting, narrow_plain(rows))
        # The whole run's cost hangs most on what a step costs in the end.
        times = timed_in_turn(trainings, setting.warmup, 3 * setting.rounds if progress == 1 else setting.rounds)
        all_times += times
        # What kernels are prepared for new shapes makes the first step behind a narrowing longer.
        excess = {
            name: max(0.0, first - statistics.median(of_round[name] for of_round in times))
            for name, first in first_seconds.items()
        }
        points.append(
            {
                "progress": progress,
                "masked": int((~alive).sum()),
                "taken_out": int(rows.live.remaining.removed.sum()),
                "macs_ratio": rows.remaining.macs_ratio,
                "ms": {name: 1000 * statistics.median(of_round[name] for of_round in times) for name in VARIANTS},
                "ratios": {name: paired_ratio(times, name) for name in VARIANTS[1:]},
                "over_floor": {name: paired_ratio(times, name, FLOOR) for name in (ROWS, FULL)},
                "narrow_ms": {name: 1000 * (narrow_seconds[name] + excess[name]) for name in (ROWS, FULL)},
            }
        )
        if progress == 0:
            hooks["full width"] = hooks_cost(rows, points[-1]["ms"][ROWS], setting.rounds)
    hooks["at the target"] = hooks_cost(rows, points[-1]["ms"][ROWS], setting.rounds)
    update_ms = 1000 * statistics.median(seconds(trainings[FULL_WIDTH].pruner.update_masks) for _ in range(5))
    plain_ms = 1000 * statistics.median(times[PLAIN] for times in all_times)
    between_steps = {
        name: (update_ms + statistics.median(point["narrow_ms"][name] for point in points[1:]))
        / MASK_INTERVAL
        / plain_ms
        for name in (ROWS, FULL)
    }
    profiles = {name: profile(trainings[name]) for name in (PLAIN, FULL_WIDTH, FULL, FLOOR)}
    figures = {
        **asdict(setting),
        "flops_target": setting.config.target.flops,
        "points": points,
        "no_narrowing": paired_ratio(all_times, FULL_WIDTH),
        "over_floor": points[-1]["over_floor"],
        "hooks": hooks,
        "mask_update_ms": update_ms,
        "profile": profiles,
        "between_steps": between_steps,
        "whole_run": whole_runs(points, between_steps),
    }
    return figures | {"bars": bars(figures)}


def peak_memory(variant: str, setting: Setting) -> Figures:
    """MiB that a process holds at most while it trains one variant at its last widths; for a process of its own.

    mib: in the steps, less what Python and its libraries take once they have traced and trained a network;
    whole_process_mib: with that. Empty on systems without /proc.
    with_setup: the system could not be told to forget the maximum of the time before the steps.
    """
    torch.set_num_threads(setting.threads)
    if not Path("/proc/self/status").exists():
        return {}
    training_of(FLOOR, replace(setting, batch=2), at_target=True).step()
    _give_back_memory()
    before = _status_mib("VmRSS")
    training = training_of(variant, setting, at_target=True)
    _give_back_memory()
    with_setup = False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the maximum begins anew
    except OSError:
        with_setup = True
    for _ in range(3):
        training.step()
    peak = _status_mib("VmHWM")
    return {"mib": peak - before, "whole_process_mib": peak, "with_setup": with_setup}


def training_of(variant: str, setting: Setting, *, at_target: bool = False) -> Training:
    """A variant in training, at full width or at the widths of the target. The floor is for the target only."""
    torch.manual_seed(0)
    model = build_any(setting.model, in_channels=3).to(memory_format=torch.channels_last)
    if variant == PLAIN:
        return Training(setting, model)
    config = setting.config
    example = torch.zeros(1, 3, setting.image_size, setting.image_size)
    config = config.with_settings(narrow={FULL_WIDTH: "no", FULL: "full"}.get(variant, "rows"))
    pruner = ResRepPruner(model, example, config)
    training = Training(setting, model, pruner)
    if variant == FULL_WIDTH or not at_target:
        return training
    kill(training, Schedule(pruner).alive_at(1.0))
    return Training(setting, narrow_plain(pruner)) if variant == FLOOR else training


class Schedule:
    """Units that die one by one in a random order, the same for all, until the target is reached."""

    def __init__(self, pruner: ResRepPruner) -> None:
        self.graph = pruner.graph
        self.met = pruner.targets[0].met
        self.candidates = np.flatnonzero(pruner.selected)
        self.scores = np.random.default_rng(0).permutation(len(self.candidates)).astype(np.float64)
        self.multiples = self.graph.multiples_in_units(pruner.config.selection.width_multiple)
        self.most = self._forgotten(len(self.candidates))[1]

    def alive_at(self, progress: float) -> np.ndarray:
        """[num_units] of bool, after a share `progress` of the deaths; widths are multiples by the method's rule."""
        alive = np.ones(self.graph.num_units, dtype=bool)
        alive[self.candidates[self._forgotten(round(progress * self.most))[0]]] = False
        return alive

    def _forgotten(self, limit: int) -> tuple[np.ndarray, int]:
        macs = self.graph.macs
        groups = macs.group_of_unit[self.candidates]
        return select_forgotten(
            self.scores, groups, macs.group_sizes, self.met, min_width=1, limit=limit, multiples=self.multiples
        )


def kill(training: Training, alive: np.ndarray) -> float:
    """Let all but the units of `alive` die and leave the network; the seconds that narrowing takes.

    With narrow='full' there is a training step in between, in which what the folds need is measured.
    """
    mask(training.pruner, alive)
    taken = seconds(training.pruner.narrow)
    if training.pruner.config.narrowing.mode == "full":
        training.step()
        taken += seconds(training.pruner.narrow)
    return taken


def mask(pruner: ResRepPruner, alive: np.ndarray) -> None:
    """Mask all but the units of `alive`, and set their compactor rows to zero, as if they had died."""
    for site in pruner.sites:
        pruner.compactors[site.host].mask.copy_(torch.from_numpy(alive[site.units]))
    pruner.live.zero_dead_rows(alive)


def narrow_plain(pruner: ResRepPruner) -> nn.Module:
    """A plain network of the widths that a conversion leaves now, as trained from scratch: BNs are not folded."""
    slim = pruner.convert(prove=False)
    modules = dict(pruner.model.named_modules())
    for layer in pruner.graph.layers.values():
        if not layer.kind.has_width or layer.norm is None:
            continue
        narrow, norm = slim.get_submodule(layer.name), modules[layer.norm]
        width = narrow.out_features if layer.kind is LayerKind.LINEAR else narrow.out_channels
        fresh = (nn.BatchNorm1d if layer.kind is LayerKind.LINEAR else nn.BatchNorm2d)(width, norm.eps, norm.momentum)
        left = slim.get_submodule(layer.norm)  # an activation that the BN module runs itself, or nothing
        owner, _, name = layer.norm.rpartition(".")
        setattr(slim.get_submodule(owner), name, fresh if isinstance(left, nn.Identity) else nn.Sequential(fresh, left))
        if modules[layer.name].bias is None:
            narrow.bias = None
    return slim


def timed_in_turn(trainings: dict[str, Training], warmup: int, rounds: int) -> list[dict[str, float]]:
    """[rounds] of seconds of a step of each; each round begins with another of them."""
    for _ in range(warmup):
        for training in trainings.values():
            training.step()
    names = list(trainings)
    found = []
    for number in range(rounds):
        start = number % len(names)
        found.append({name: seconds(trainings[name].step) for name in names[start:] + names[:start]})
    return found


def hooks_cost(pruner: ResRepPruner, step_ms: float, rounds: int) -> Figures:
    """Milliseconds of what the pruner does before and after an optimiser's step, and their share of a whole one."""
    times = []
    for _ in range(rounds):
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.grad = torch.zeros_like(compactor.pwc.weight)
        times.append(seconds(pruner.adjust_gradients) + seconds(pruner.after_step))
    pruner.model.zero_grad(set_to_none=True)
    ms = 1000 * statistics.median(times)
    return {"ms": ms, "share_of_step": ms / step_ms}


def profile(training: Training, steps: int = 5) -> Figures:
    """Milliseconds of a step that each kind of operation takes by itself, as torch's profiler counts them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            training.step()
    found = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
        found[kind] += event.self_cpu_time_total / 1000 / steps  # microseconds
    return found


def seconds(action: Callable[[], object]) -> float:
    """Seconds that an action takes, once."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _give_back_memory() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc: what was freed counts on
        ctypes.CDLL(None).malloc_trim(0)


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024  # kB in the file
    raise ValueError(f"/proc/self/status has no {name}")
