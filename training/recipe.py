"""What a training run does: one frozen dataclass, whose fields are the command line's options."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

from rr.errors import InputError
from rr.settings import Share, setting
from training.options import check_choices

MOST_SKIPPED = 10  # steps in a row that are left out before a run stops

_RUN, _LENGTH, _RATE, _SGD = "network, data and folder", "length and seed", "learning rate", "optimiser"
_LOSS, _MACHINE, _RECORDS = "loss", "machine", "evaluations and files"


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run; each field's `setting` says what it is.

    Raises:
        InputError: for a value that can't be, with the fix in the message.
    """

    arch: str = setting(
        "network, required; the other defaults are those for it (with --help alone, for our smallest network)",
        topic=_RUN,
        flags=("-a",),
        is_required=True,
    )
    dataset: str = setting("data set", topic=_RUN)
    data_dir: str | None = setting("folder of the data; none: the data set's usual one", None, topic=_RUN)
    image_size: int = setting(
        "height and width of the images; 0: our network's own, for others the data set's: in a folder the smaller side "
        "of the first training image, or 224 where that is over 64",
        0,
        topic=_RUN,
    )
    hold_out: int = setting(
        "training images, of all classes in proportion, that are left out of training and evaluated in place of the "
        "validation images, to choose settings by; 0: none",
        0,
        topic=_RUN,
    )
    cutout: int = setting(
        "side of a square in each training image, in pixels, that is blanked at a place of its own; 0: none",
        0,
        topic=_RUN,
    )
    output_dir: str = setting("folder that the run writes to", "train", topic=_RUN)

    epochs: int = setting("passes over the training data", 240, topic=_LENGTH)
    batch_size: int = setting("examples per step, all processes together", 64, topic=_LENGTH)
    accumulate: int = setting("micro-batches that a process cuts its part of a step into", 1, topic=_LENGTH)
    max_steps: int = setting(
        "stop after this many steps, on the full run's learning rates; 0: no limit", 0, topic=_LENGTH
    )
    seed: int = setting("seed of the weights, of the data's order and of its augmentation", 0, topic=_LENGTH)

    lr: float = setting("learning rate after the warm-up", 0.1, topic=_RATE)
    schedule: str = setting("how the learning rate falls", "cosine", topic=_RATE, choices=("cosine", "step", "linear"))
    milestones: tuple[float | Share, ...] = setting(
        "schedule step: epochs after which it falls, or shares of the run (50%)", (), topic=_RATE
    )
    gamma: float = setting("schedule step: factor at each milestone", 0.1, topic=_RATE)
    min_lr: float = setting(
        "schedule cosine or linear: learning rate at the end, the same for all parameters", 0.0, topic=_RATE
    )
    warmup_epochs: int = setting("epochs of warm-up; the schedule's own time begins after it", 0, topic=_RATE)
    warmup: str = setting(
        "rise to the full rate, or hold a part of it", "linear", topic=_RATE, choices=("linear", "constant")
    )
    warmup_factor: float = setting("part of the learning rate at the warm-up's start", 0.1, topic=_RATE)

    momentum: float = setting("momentum of SGD", 0.9, topic=_SGD)
    nesterov: bool = setting("Nesterov's momentum", False, topic=_SGD)
    weight_decay: float = setting("on conv and linear weights alone", 1e-4, topic=_SGD)
    bias_lr_factor: float = setting("learning rate of biases, relative to the others'", 2.0, topic=_SGD)
    average_last: Share | None = setting(
        "share of the run, at its end, whose weights the trained network is the mean of, with BN's statistics taken "
        "anew; none: the last step's",
        None,
        topic=_SGD,
    )

    label_smoothing: float = setting("part of the target spread over all classes", 0.0, topic=_LOSS)
    distill: float = setting(
        "share of the loss that a trained network sets, the teacher: the one that the run starts from, if no other is "
        "given; 0: none",
        0.0,
        topic=_LOSS,
    )
    teacher: str | None = setting(
        "distill: weights of another network that teaches, of the same architecture; none: those the run starts from",
        None,
        topic=_LOSS,
    )
    distill_until: Share = setting(
        "distill: share of the run after which the teacher leaves, and the labels alone set the loss",
        Share(1.0),
        topic=_LOSS,
    )
    distill_outputs: tuple[str, ...] = setting(
        "distill: modules of the network whose outputs are to be the teacher's as well, by name (stage1 stage2), less "
        "and less until the teacher leaves",
        (),
        topic=_LOSS,
    )
    distill_outputs_weight: float = setting(
        "distill_outputs: what their mean squared error, over the variance of the teacher's channel, counts at the "
        "start",
        1.0,
        topic=_LOSS,
    )
    temperature: float = setting(
        "distill: what the teacher's and the student's logits are divided by", 4.0, topic=_LOSS
    )
    non_finite_loss: str = setting(
        "a step whose loss or gradient isn't finite: stop the run, or skip the step, which then changes nothing and is "
        f"counted; {MOST_SKIPPED} of them in a row stop the run all the same",
        "stop",
        topic=_LOSS,
        choices=("stop", "skip"),
    )

    device: str = setting("auto, cpu, cuda, cuda:1, mps", "auto", topic=_MACHINE)
    processes: int | None = setting(
        "processes on this machine that share each step, without torchrun; none: chosen by --tune, else 1",
        None,
        topic=_MACHINE,
    )
    threads: int | None = setting(
        "CPU threads of each process; none: chosen by --tune, else PyTorch's own number", None, topic=_MACHINE
    )
    tune: bool = setting(
        "on the CPU, before a run of over some minutes: time a few steps, and choose processes, threads, memory "
        "format and compiling, and bfloat16 where the settings aren't the paper's, unless they are given",
        True,
        topic=_MACHINE,
    )
    amp: bool = setting("bfloat16 autocast", False, topic=_MACHINE)
    sync_bn: bool = setting(
        "several processes: BN's statistics are those of all processes' images (CUDA alone)", False, topic=_MACHINE
    )
    channels_last: bool = setting("channels-last memory format", True, topic=_MACHINE)
    compile: bool = setting("torch.compile the network; with --narrow once all is narrowed", False, topic=_MACHINE)
    compile_mode: str = setting(
        "compile: torch's mode; reduce-overhead replays CUDA graphs of the network's passes",
        "default",
        topic=_MACHINE,
        choices=("default", "reduce-overhead", "max-autotune"),
    )
    cuda_graph: bool = setting(
        "record whole steps as CUDA graphs and replay them: for small networks, in one process", False, topic=_MACHINE
    )
    deterministic: bool = setting(
        "on CUDA: only kernels that give the same bits from the same seed; slower", False, topic=_MACHINE
    )
    workers: int | None = setting("loader processes or threads; none: the data set's choice", None, topic=_MACHINE)
    process_timeout: int = setting(
        "several processes: seconds that one waits for the others; then the run ends, and names who is gone or hangs",
        1800,
        topic=_MACHINE,
    )

    val_interval: int = setting("epochs between evaluations", 5, topic=_RECORDS)
    val_last: int = setting("evaluate after each of this many last epochs", 10, topic=_RECORDS)
    log_interval: int = setting("steps between two looks at loss and speed", 100, topic=_RECORDS)
    save_interval: int = setting("epochs between weight files epoch-{e}.hdf5; 0: none", 0, topic=_RECORDS)
    checkpoint_interval: int = setting(
        "steps between checkpoints inside an epoch; 0: only after each epoch", 1000, topic=_RECORDS
    )
    keep: int = setting("checkpoints that stay: the latest, and those before it", 2, topic=_RECORDS)
    signal_checkpoint: str | None = setting(
        "another signal (USR1, say) on which a checkpoint is written and the run left, as on TERM and INT; none: no",
        None,
        topic=_RECORDS,
    )

    def __post_init__(self) -> None:
        check_choices(self)
        self._check_ranges()
        self._check_pairs()
        self._check_machine()
        self._check_milestones()
        self._require("output_dir", bool(self.output_dir), "name a folder")

    def _check_ranges(self) -> None:
        for name in _COUNTS:
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in _NOT_NEGATIVE:
            self._require(name, 0 <= getattr(self, name) < math.inf, "must be 0 or more")
        for name, most in _AT_MOST.items():
            self._require(name, getattr(self, name) <= most, f"must be at most {most:,}")
        self._require("gamma", 0 < self.gamma <= 1, "must be in (0, 1]")
        self._require("warmup_factor", 0 <= self.warmup_factor <= 1, "must be in [0, 1]")
        for name in ("momentum", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, "must be in [0, 1)")
        for name in ("lr", "temperature"):
            self._require(name, 0 < getattr(self, name) < math.inf, "must be greater than 0")
        self._require("distill", 0 <= self.distill <= 1, "must be from 0 to 1")
        self._require("distill_until", isinstance(self.distill_until, Share), "give a share of the run, Share(0.65)")

    def _check_pairs(self) -> None:
        """Settings that depend on each other."""
        self._require("distill_until", self.distill_until == 1 or self.distill > 0, "needs a distill greater than 0")
        self._require("distill_outputs", not self.distill_outputs or self.distill > 0, "needs a distill greater than 0")
        recorded = self.cuda_graph and len(self.distill_outputs) > 0
        self._require(
            "distill_outputs", not recorded, "fade with the steps, which a recorded one can't: leave --cuda-graph out"
        )
        averaged = self.average_last is None or isinstance(self.average_last, Share)
        self._require("average_last", averaged, "give a share of the run, Share(0.2)")
        self._require("teacher", self.teacher is None or self.distill > 0, "needs a distill greater than 0")
        fastest = self.lr * max(self.bias_lr_factor, 1)
        self._require("lr", fastest <= _FLOAT32, f"times bias_lr_factor it must be at most {_FLOAT32:g}")
        self._require("min_lr", self.min_lr <= self.lr, f"can't exceed lr ({self.lr})")
        self._require("accumulate", self.accumulate <= self.batch_size, f"can't exceed batch_size ({self.batch_size})")
        self._require("warmup_epochs", self.warmup_epochs < self.epochs, f"must be less than epochs ({self.epochs})")
        self._require("nesterov", not self.nesterov or self.momentum > 0, "needs a momentum greater than 0")
        self._require("compile_mode", self.compile or self.compile_mode == "default", "is for --compile: add it")
        one_pass = self.accumulate == 1 or self.compile_mode == "default"
        self._require("accumulate", one_pass, "needs compile_mode default: other modes overwrite a pass's gradients")
        alone = not self.cuda_graph or self.compile_mode == "default"
        self._require("compile_mode", alone, "makes CUDA graphs of its own: leave it or --cuda-graph out")
        steers = self.non_finite_loss == "stop" or not self.cuda_graph
        self._require("non_finite_loss", steers, "a recorded step can't be left out: leave --cuda-graph out")

    def _check_machine(self) -> None:
        for name, least in {"processes": 1, "threads": 1, "workers": 0}.items():
            value = getattr(self, name)
            self._require(name, value is None or least <= value <= _MOST, f"must be none, or from {least} to {_MOST:,}")
        signal_name = self.signal_checkpoint
        is_heard = hasattr(signal.Signals, f"SIG{signal_name}") and signal_name not in _UNHEARD
        self._require(
            "signal_checkpoint",
            signal_name is None or is_heard,
            "give the name of a signal that a process can hear, without SIG: USR1",
        )

    def _check_milestones(self) -> None:
        after = self.milestone_epochs
        rise = after == sorted(set(after)) and all(epoch > 0 for epoch in after)
        self._require("milestones", rise, "must be rising epochs above 0")
        if self.schedule == "step":
            reached = len(after) > 0 and after[-1] < self.epochs
            fix = f"schedule 'step' needs at least one, all below epochs ({self.epochs}); or take schedule 'cosine'"
            self._require("milestones", reached, fix)

    @property
    def milestone_epochs(self) -> list[float]:
        """The milestones in epochs, with shares of the run converted."""
        return [m.of(self.epochs) if isinstance(m, Share) else m for m in self.milestones]

    @property
    def length(self) -> str:
        """How many epochs, in words."""
        return f"{self.epochs} epoch{'s' * (self.epochs > 1)}"

    @property
    def sgd(self) -> dict[str, float]:
        """The settings of parameter groups: `rr.param_groups(model, **recipe.sgd)`."""
        names = ("lr", "momentum", "weight_decay", "bias_lr_factor")
        return {name: getattr(self, name) for name in names}

    def for_run(self) -> Recipe:
        """The same with its milestones in epochs, whole ones as whole numbers: what a run's files say."""
        return replace(self, milestones=tuple(int(m) if m == int(m) else m for m in self.milestone_epochs))

    def _require(self, name: str, fulfilled: bool, what: str) -> None:
        if not fulfilled:
            raise InputError(f"{name} is {getattr(self, name)!r}: {what}")


_UNHEARD = ("KILL", "STOP")
_COUNTS = ("epochs", "batch_size", "accumulate", "val_interval", "log_interval", "keep", "process_timeout")
# What torch takes as a seed and as a time, and images of which a single one fits into memory.
_MOST = 4096  # processes and threads, more than any machine is better for
_FLOAT32 = 1e38  # what torch can still multiply weights with, in round numbers
_AT_MOST = {"seed": 2**63 - 1, "process_timeout": 10**9, "image_size": 2**14, "weight_decay": _FLOAT32}
_NOT_NEGATIVE = (
    *("image_size", "max_steps", "seed", "warmup_epochs", "val_last", "save_interval", "checkpoint_interval"),
    *("hold_out", "cutout", "weight_decay", "bias_lr_factor", "min_lr", "distill_outputs_weight"),
)
