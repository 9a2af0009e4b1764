"""What is left takes over: each layer that reads a dead unit, from the input on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rr.graph import ChannelGraph, Layer
from rr.refit.capture import capture
from rr.refit.choosing import readers_of
from rr.refit.feed import Feed
from rr.refit.gram import Gram, best_ridge, fitted
from rr.refit.memory import bytes_side_by_side
from rr.refit.processes import added_up, of_first, total
from rr.refit.rows import Reader, matrix_of, put_matrix
from rr.refit.settings import RefitConfig
from rr.refit.side_by_side import run_side_by_side
from rr.refit.watch import Seen
from rr.runtime import Progress


@dataclass(frozen=True)
class LayerRefit:
    """What a layer's refit came to, on images that are held out from it; where none are, on those that it has seen.

    Attributes:
        before: its outputs' mean squared error without a refit, over their variance in the full network.
        after: with it.
        after_on_fitted: the same on the images that it was fitted to.
    """

    before: float
    after: float
    after_on_fitted: float


class Refitter:
    """Refits a network to give what the full one gave.

    Args:
        graph: of the network.
        full: the full network, of which `remember` is shown what it reads.
        feed: images.
        settings: of the Gram matrices.
    """

    def __init__(self, graph: ChannelGraph, full: nn.Module, feed: Feed, settings: RefitConfig) -> None:
        self._graph, self._full, self._feed, self._settings = graph, full, feed, settings
        self._matrices: dict[str, Tensor] = {}
        self._expected: dict[tuple[str, int], _Expected] = {}
        self._shifts: dict[str, Tensor | float] = {}  # what refits have added to a layer's outputs
        self._several: set[str] = set()  # layers that run more than once, or in no way that could be interrupted

    def remember(self, reader: Reader, batch: int, seen: Seen) -> None:
        """Take in what the full network gives."""
        name = reader.layer.name
        if name not in self._matrices:
            self._matrices[name] = matrix_of(reader, self._full.get_submodule(name)).float()
        self._expected[name, batch] = _Expected(seen.rows @ self._matrices[name], seen.added)
        if len(seen.calls) > 1 or not seen.ended:
            self._several.add(name)

    @torch.no_grad()
    def refit(self, work: nn.Module, alive: np.ndarray) -> dict[str, LayerRefit]:
        """Refit all layers of `work` that read a dead unit, in place: on what they read now.

        Args:
            work: the network, with dead units at zero.
            alive: [num_units] of bool.
        """
        found: dict[str, LayerRefit] = {}
        places, readers = self._settings.places, readers_of(self._graph, work, ~alive)
        readers = [reader for reader in readers if (reader.layer.name, 0) in self._expected]
        progress = Progress("refitting what reads the channels that go", len(readers), "layers")

        def refit_now(reader: Reader, seen: Mapping[int, Seen] | None) -> None:
            name = reader.layer.name
            fit = _Fit(reader, work, self._shifts.get(name, 0.0))
            if seen is None:
                capture(work, [reader], places, self._feed, lambda _, number, each: take_in(fit, number, each))
            else:
                for number, each in seen.items():
                    take_in(fit, number, each)
            found[name], self._shifts[name] = fit.finish(alive, self._settings.ridge)
            progress.update()

        def take_in(fit: _Fit, number: int, seen: Seen) -> None:
            fit.take_in(seen, self._expected[fit.reader.layer.name, number], number in self._feed.unseen)

        with progress:
            if readers and self._fits_in_memory(work, readers):
                run_side_by_side(work, readers, places, self._feed, refit_now, self._several)
            else:
                for reader in readers:
                    refit_now(reader, None)
        return found

    def _fits_in_memory(self, work: nn.Module, readers: Sequence[Reader]) -> bool:
        """Whether all images can run side by side; the same answer in all processes."""
        needed = bytes_side_by_side(work, readers, self._settings.places, self._feed)
        return total(needed > self._settings.memory * 2**30, next(work.parameters())) == 0


@dataclass(frozen=True)
class _Expected:
    """What a layer is to give for a batch.

    Attributes:
        outputs: [images x places, D], those of the full network.
        added: what they were added to there.
    """

    outputs: Tensor
    added: Tensor | None


class _Fit:
    """The least squares of one layer."""

    def __init__(self, reader: Reader, work: nn.Module, shift: Tensor | float) -> None:
        layer = reader.layer
        self.reader, self._module = reader, work.get_submodule(layer.name)
        self._norm = None if layer.norm is None else work.get_submodule(layer.norm)
        matrix = matrix_of(reader, self._module)
        self._old, self._scale = (
            torch.cat([matrix, matrix.new_zeros(1, matrix.shape[1]) + shift]),
            _scale_of(self._norm, layer),
        )
        self._fitted, self._unseen = _Images(Gram(), self._old), _Images(Gram(is_halved=False), self._old)

    def take_in(self, seen: Seen, expected: _Expected, is_unseen: bool) -> None:
        """What the layer reads now, and what it is to give: with what the stream has lost so far."""
        target = expected.outputs
        if seen.added is not None and expected.added is not None:
            scale = self._scale.to(target)
            target = target + torch.where(scale != 0, (expected.added - seen.added) / scale, 0.0)
        (self._unseen if is_unseen else self._fitted).take_in(seen.rows, target)

    def finish(self, alive: np.ndarray, ridge: float | None) -> tuple[LayerRefit, Tensor]:
        """Change the layer; also what is now added to its outputs."""
        self._fitted.add_up()
        self._unseen.add_up()
        reader, old, gram = self.reader, self._old, self._fitted.gram
        kept = torch.from_numpy(np.flatnonzero(alive[reader.units])).to(old.device)
        rows = torch.cat([kept, kept.new_tensor([len(old) - 1])]) if reader.has_bias else kept
        solution = fitted(gram.xx, gram.xy, old, rows, best_ridge(gram, old, rows) if ridge is None else ridge)
        solution = of_first(solution)
        shift = solution[-1] - old[-1] if reader.has_bias else None
        put_matrix(reader, self._module, self._norm, solution[:-1], shift)
        judged = self._unseen if self._unseen.gram.count else self._fitted
        report = LayerRefit(judged.error_of_old(), judged.error(solution), self._fitted.error(solution))
        return report, solution[-1]


class _Images:
    """What a layer reads and is to give on some images, in sums from which any matrix's error there follows.

    Args:
        gram: gets them.
        old: [rows + 1, D], the layer's matrix as it is.
    """

    def __init__(self, gram: Gram, old: Tensor) -> None:
        self.gram, self._old = gram, old
        self._squares = old.new_zeros(2)  # of the targets, and of what the layer misses as it is
        self._targets = old.new_zeros(old.shape[1])  # their sum

    def take_in(self, rows: Tensor, target: Tensor) -> None:
        """More images: rows [n, rows], and what the layer is to give for each [n, D]."""
        old = self._old.to(rows)
        self.gram.add(rows, target)
        self._squares[0] += target.double().square().sum()
        self._squares[1] += (target - rows @ old[:-1] - old[-1]).double().square().sum()
        self._targets += target.double().sum(0)

    def add_up(self) -> None:
        """Take in what other processes have taken in."""
        self.gram.add_up(len(self._old) - 1, self._old.shape[1], self._old)
        added_up(self._squares)
        added_up(self._targets)

    def error_of_old(self) -> float:
        """The layer's mean squared error as it is, over the targets' variance."""
        return float(self._squares[1]) / self._variance

    def error(self, matrix: Tensor) -> float:
        """The same with another matrix [rows + 1, D]."""
        products = float((matrix * (self.gram.xx @ matrix - 2 * self.gram.xy)).sum())  # w'x'x w - 2 w'x'y
        return max(float(self._squares[0]) + products * self.gram.count, 0.0) / self._variance

    @property
    def _variance(self) -> float:
        about_mean = self._squares[0] - self._targets.square().sum() / max(self.gram.count, 1)
        return max(float(about_mean), torch.finfo(torch.float64).tiny)


def _scale_of(norm: nn.Module | None, layer: Layer) -> Tensor:
    """[D], what an output of the layer is multiplied by before an addition: by its BN; 0 where that is next to none."""
    if norm is None:
        return torch.ones(len(layer.out_units))
    inverse = torch.rsqrt(norm.running_var.float() + norm.eps)
    scale = inverse if norm.weight is None else norm.weight.detach().float() * inverse
    return torch.where(scale.abs() > 1e-3 * scale.abs().median(), scale, 0.0)
