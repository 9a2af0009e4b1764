"""Which processes, threads, precision and layout a step is fastest with: a search over measured steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

FASTER_FOR_OTHER_NUMBERS = 0.9  # bfloat16 and BN over smaller parts of a batch are taken for a tenth of the time alone
FASTER = 0.97  # what the same numbers cost less in; under that it's noise
# A machine that others use too can take half as long again for some seconds: two settings that are nearer to each other
# are timed again in turn, and the best of each counts, since what disturbs makes steps longer and none shorter.
UNSURE, AGAIN = 1.5, 2
COMPILED_FROM_SECONDS = 1200  # of training: compiling takes a minute or more
COMPILING_PAYS = 3  # times the seconds that it took


@dataclass(frozen=True)
class MachineSetting:
    """How the machine is used.

    Attributes:
        processes: that share each step.
        threads: of each.
        amp: bfloat16 autocast.
        channels_last: memory format.
        compile: torch.compile.
    """

    processes: int
    threads: int
    amp: bool
    channels_last: bool
    compile: bool

    def __str__(self) -> str:
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        words = [f"{processes} of {threads}", "bfloat16" if self.amp else "float32"]
        return ", ".join([*words, *["channels-last"] * self.channels_last, *["compiled"] * self.compile])


@dataclass(frozen=True)
class Freedom:
    """What may be chosen; a single value is one that was given.

    Attributes:
        processes: numbers of them, rising.
        threads: of each of that many processes: processes -> numbers.
        amp, channels_last: in order of preference.
        compile: without and with, or what was given; whether it is worth its time is decided as well.
    """

    processes: tuple[int, ...]
    threads: dict[int, tuple[int, ...]]
    amp: tuple[bool, ...] = (False,)
    channels_last: tuple[bool, ...] = (True,)
    compile: tuple[bool, ...] = (False,)


@dataclass(frozen=True)
class StepTime:
    """Seconds of the first step, in which kernels are prepared and networks compiled, and of a later one."""

    first: float
    later: float


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        setting: the choice.
        times: every setting that was timed, in that order.
    """

    setting: MachineSetting
    times: dict[MachineSetting, StepTime]


class _Times:
    """Seconds of a step by setting, measured as they are asked for.

    Args:
        measure: times a step of a setting.
    """

    def __init__(self, measure: Callable[[MachineSetting], StepTime]) -> None:
        self.found: dict[MachineSetting, StepTime] = {}
        self._measure = measure

    def seconds(self, setting: MachineSetting) -> float:
        """Of a later step."""
        if setting not in self.found:
            self.found[setting] = self._measure(setting)
        return self.found[setting].later

    def better(self, best: MachineSetting, other: MachineSetting) -> MachineSetting:
        """The other one where it is faster by enough, else the best so far."""
        if self._are_near(best, other):
            for _ in range(AGAIN):
                self._time_again(best)
                self._time_again(other)
        same_numbers = (best.amp, best.processes) == (other.amp, other.processes)
        share = FASTER if same_numbers else FASTER_FOR_OTHER_NUMBERS
        return other if self.seconds(other) < share * self.seconds(best) else best

    def _are_near(self, one: MachineSetting, other: MachineSetting) -> bool:
        shorter, longer = sorted((self.seconds(other), self.seconds(one)))
        return longer < UNSURE * shorter

    def _time_again(self, setting: MachineSetting) -> None:
        again, before = self._measure(setting), self.found[setting]
        self.found[setting] = StepTime(before.first, min(before.later, again.later))


def choose(measure: Callable[[MachineSetting], StepTime], freedom: Freedom, steps: int) -> Choice:
    """Time settings, and choose; not all combinations are tried.

    Threads and precision are tried in one process, then the other memory format with the best of them, then more
    processes as long as they help, then compiling, if the run is long.

    Args:
        measure: times a step of a setting; it may be asked for one more than once.
        freedom: what may be chosen.
        steps: of the run.
    """
    times = _Times(measure)
    best = _best_of_few(times, freedom)
    for channels_last in freedom.channels_last[1:]:
        best = times.better(best, replace(best, channels_last=channels_last))
    for more in freedom.processes[1:]:
        fastest = min((replace(best, processes=more, threads=n) for n in freedom.threads[more]), key=times.seconds)
        if times.better(best, fastest) is best:
            break
        best = fastest
    compiled = replace(best, compile=freedom.compile[-1])
    if len(freedom.compile) == 1 or _pays(times, best, compiled, steps):
        best = compiled
    return Choice(best, times.found)


def _best_of_few(times: _Times, freedom: Freedom) -> MachineSetting:
    """The best threads and precision in the least number of processes; the best threads depend on the precision."""
    few = freedom.processes[0]
    starts = [MachineSetting(few, n, freedom.amp[0], freedom.channels_last[0], False) for n in freedom.threads[few]]
    best = starts[0]
    for setting in starts[1:]:
        best = times.better(best, setting)
    for amp in freedom.amp[1:]:
        fastest = min((replace(start, amp=amp) for start in starts), key=times.seconds)
        best = times.better(best, fastest)
    return best


def _pays(times: _Times, best: MachineSetting, compiled: MachineSetting, steps: int) -> bool:
    """Whether compiling saves over the run a few times what it takes; that of a short run isn't tried."""
    if steps * times.seconds(best) < COMPILED_FROM_SECONDS:
        return False
    saved = steps * (times.seconds(best) - times.seconds(compiled))
    return saved > COMPILING_PAYS * times.found[compiled].first
