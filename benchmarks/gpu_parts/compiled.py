"""torch.compile, plain and with CUDA graphs of the network's passes: milliseconds, and whether they train alike."""

from __future__ import annotations

from functools import partial

from benchmarks.gpu_parts.attempt import attempted
from benchmarks.gpu_parts.precision import HALF_TOLERANCE, REFERENCE, TOLERANCE
from benchmarks.gpu_parts.pruning_steps import PruningSteps, compared
from benchmarks.gpu_parts.setting import Figures, Setting
from training import init_world

KINDS = {
    "compiled": {"compile": True},
    "compiled, reduce-overhead": {"compile": True, "compile_mode": "reduce-overhead"},
    "compiled, recorded": {"compile": True, "cuda_graph": True},
    "compiled, recorded, bfloat16": {"compile": True, "cuda_graph": True, "amp": True},
}


def measure(setting: Setting) -> Figures:
    """The kinds on src20 at batch 64 beside float32 as it is; compiling takes most of the time."""
    device = init_world(setting.device).device
    arch, batch, rounds, times = ("src8", 8, 1, 4) if setting.dry_run else ("src20", 64, 10, 20)
    kinds = ["compiled"] if setting.dry_run else list(KINDS)  # each compiles anew
    found = {REFERENCE: PruningSteps(arch, batch, device).figures(rounds, times)}
    for kind in kinds:
        steps = partial(PruningSteps, arch, batch, device, **KINDS[kind])
        tolerance = HALF_TOLERANCE if "float16" in kind else TOLERANCE
        found[kind] = attempted(
            lambda steps=steps, tolerance=tolerance: compared(
                steps().figures(rounds, times), found[REFERENCE], tolerance
            )
        )
    return {"arch": arch, "batch": batch, "kinds": found}
