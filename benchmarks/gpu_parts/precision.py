"""float32, bfloat16, float16 with a gradient scaler, and recorded steps: milliseconds, and whether they train alike."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from benchmarks.gpu_parts.attempt import attempted
from benchmarks.gpu_parts.pruning_steps import PruningSteps, compared
from benchmarks.gpu_parts.setting import Figures, Setting
from data import Batch
from training import init_world
from training.evaluation import batch_sums, hits_of

REFERENCE, RECORDED = "float32", "float32, recorded"
KINDS = {
    "bfloat16": {"amp": True},
    RECORDED: {"cuda_graph": True},
    "bfloat16, recorded": {"amp": True, "cuda_graph": True},
}
TOLERANCE, HALF_TOLERANCE = 1e-3, 0.03  # of the mean loss, for another order of sums and for 16 bits


def measure(setting: Setting) -> Figures:
    """The kinds on src56 at batch 64, each over the same steps; on a CPU without the recorded ones."""
    device = init_world(setting.device).device
    arch, batch, rounds, times = ("src8", 8, 2, 6) if setting.dry_run else ("src56", 64, 10, 20)
    found = {REFERENCE: PruningSteps(arch, batch, device).figures(rounds, times)}
    # float32 once more: what a GPU's order of sums alone changes
    makers = {REFERENCE + ", again": partial(PruningSteps, arch, batch, device)}
    kinds = {kind: changes for kind, changes in KINDS.items() if device.type == "cuda" or "cuda_graph" not in changes}
    makers |= {kind: partial(PruningSteps, arch, batch, device, **changes) for kind, changes in kinds.items()}
    makers["float16, scaler"] = partial(ScaledSteps, arch, batch, device)
    for kind, make in makers.items():
        tolerance = HALF_TOLERANCE if "float16" in kind else TOLERANCE
        found[kind] = attempted(
            lambda make=make, tolerance=tolerance: compared(make().figures(rounds, times), found[REFERENCE], tolerance)
        )
    return {"arch": arch, "batch": batch, "kinds": found}


def may_record(setting: Setting) -> bool:
    """Whether recorded steps are known to train as others do on this GPU, and to be faster."""
    figures = (setting.result("precision") or {}).get("kinds", {}).get(RECORDED, {})
    return figures.get("agrees", False) and figures["over_float32"] < 1


class ScaledSteps(PruningSteps):
    """float16 with a gradient scaler around the optimiser, as in a loop of one's own; bfloat16 on the CPU."""

    def __init__(self, arch: str, batch_size: int, device: torch.device) -> None:
        super().__init__(arch, batch_size, device)
        self._dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
        self._scaler = torch.amp.GradScaler(device.type)
        self.step = self._scaled_step

    def _scaled_step(self, batch: Batch) -> torch.Tensor:
        state, scaler = self.state, self._scaler
        with torch.autocast(state.world.device.type, self._dtype):
            logits = state.network(batch.images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), batch.labels)
        scaler.scale(loss).backward()
        scaler.step(state.optimizer)
        scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        return batch_sums(hits_of(logits.detach(), batch.labels), loss.detach() * len(batch.labels))
