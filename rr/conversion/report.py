"""What a conversion did, layer by layer, and how equal its result is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from rr.conversion.widths_plot import width_figure
from rr.graph import LiveModel
from rr.graph.costs import macs_of_layer
from rr.graph.explanation import in_columns, reasons_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerReport:
    """One layer's widths and MACs, and why the rest of its channels stayed ("" where they were needed, or it has none).

    Attributes:
        name: the layer's name.
        width_before, width_after: its output channels.
        macs_before, macs_after: its own MACs, per example.
        stays: why channels can't go, or weren't to.
    """

    name: str
    width_before: int
    width_after: int
    macs_before: int
    macs_after: int
    stays: str


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did and how equal the result is.

    `print` shows it as a table by layer. Differences are the largest |a - b| of the outputs, each element on its own
    scale (`rr.conversion.differences`); None where nothing was proven.

    Attributes:
        macs_before, macs_after: of the network, per example.
        parameters_before, parameters_after: of the network, without compactors.
        widths: width of every conv (then hidden linears) in building order, as `ChannelGraph.widths`.
        dropped: units that went.
        largest_dropped: largest norm among the dropped rows, 0 where none was dropped.
        kept_for_width: rows under the threshold that stay, so that widths are the least width and multiples.
        layers: each convolution and linear layer.
        fold_seconds: what folding took; None where nothing was folded yet.
        cut_difference: float64, the model with its dropped rows at exactly zero against the model as trained; over each
            output's largest element.
        float64_difference: float64, the converted model against the one with zeroed rows, at all sizes in
            `proven_at`; at most 1e-10.
        float32_difference: the converted model in float32 against the one with zeroed rows in float64.
        float32_own_error: the unconverted model in float32 against itself in float64.
        proven_at: the shapes of the first input at which that was found: the examples', then other sizes that the
            model takes.
        one_way_branches: where the forward compares or rounds sizes of its input, with the same result at all of these
            (`rr.conversion.size_branches`).
        fixed_arguments: what else the model is called with than tensors: the proof is of these values alone.
    """

    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    widths: tuple[int, ...]
    dropped: int
    largest_dropped: float
    kept_for_width: int
    layers: tuple[LayerReport, ...] = ()
    fold_seconds: float | None = None
    cut_difference: float | None = None
    float64_difference: float | None = None
    float32_difference: float | None = None
    float32_own_error: float | None = None
    proven_at: tuple[str, ...] = ()
    one_way_branches: tuple[str, ...] = ()
    fixed_arguments: tuple[str, ...] = ()

    @property
    def macs_ratio(self) -> float:
        """MACs after over MACs before."""
        return self.macs_after / self.macs_before

    @property
    def parameters_ratio(self) -> float:
        """Parameters after over parameters before."""
        return self.parameters_after / self.parameters_before

    def as_dict(self) -> dict[str, object]:
        """Plain values, for a run's file."""
        return {
            **asdict(self),
            "widths": list(self.widths),
            "proven_at": list(self.proven_at),
            "one_way_branches": list(self.one_way_branches),
            "fixed_arguments": list(self.fixed_arguments),
            "layers": [asdict(layer) for layer in self.layers],
            "macs_ratio": self.macs_ratio,
            "parameters_ratio": self.parameters_ratio,
        }

    def plot(self) -> Figure:
        """Widths by layer before and after, as a matplotlib figure: a notebook's cell shows it, `savefig` writes it.

        Raises:
            InputError: where matplotlib is missing.
        """
        layers = self.layers
        return width_figure(
            [layer.name for layer in layers],
            [layer.width_before for layer in layers],
            [layer.width_after for layer in layers],
        )

    def __str__(self) -> str:
        rows = [("layer", "width", "", "MACs", "", "kept", "why the rest stays")]
        for layer in self.layers:
            kept = f"{layer.macs_after / layer.macs_before:.0%}" if layer.macs_before else "-"
            widths = (f"{layer.width_before:,}", f"-> {layer.width_after:,}")
            rows.append((layer.name, *widths, f"{layer.macs_before:,}", f"-> {layer.macs_after:,}", kept, layer.stays))
        return "\n".join(
            [
                in_columns(rows),
                f"MACs {self.macs_before:,} -> {self.macs_after:,} ({self.macs_ratio:.1%}), parameters "
                f"{self.parameters_before:,} -> {self.parameters_after:,} ({self.parameters_ratio:.1%})",
                self._proof(),
            ]
        )

    def _proof(self) -> str:
        if self.fold_seconds is None:
            return "not converted yet: this is what a conversion would leave now"
        if self.float64_difference is None:
            return "converted, not proven"
        return (
            f"conversion, largest difference of the outputs: {self.float64_difference:.1e} in float64 and "
            f"{self.float32_difference:.1e} in float32 to the network with its dropped rows at exactly zero; "
            f"{self.cut_difference:.1e} between that and the network as trained (largest dropped row: "
            f"{self.largest_dropped:.1e}); proven at {' and '.join(self.proven_at)}"
            + (" alone" if len(self.proven_at) == 1 else "")
            + ("; not where sizes compare or round otherwise in " if self.one_way_branches else "")
            + ", ".join(self.one_way_branches)
            + (f"; with {', '.join(self.fixed_arguments)} alone" if self.fixed_arguments else "")
        )


def report_of(
    live: LiveModel,
    alive: np.ndarray,
    norms: np.ndarray,
    threshold: float,
    left_out: Mapping[int, str] | None = None,
    **found: object,
) -> ConversionReport:
    """A report on the widths with `alive` units.

    Args:
        live: the model.
        alive: [num_units] of bool, the units that stay.
        norms: [num_units].
        threshold: rows with a smaller norm could be dropped.
        left_out: the units that can be pruned and weren't to be -> why.
        found: the report's other fields, as far as they are known.
    """
    graph = live.graph
    fields = {"parameters_after": graph.parameters(alive), **found}
    return ConversionReport(
        macs_before=graph.macs.full,
        macs_after=graph.macs(alive),
        parameters_before=graph.parameters.full,
        widths=tuple(graph.widths(alive)),
        dropped=int((~alive).sum()),
        largest_dropped=float(norms[~alive & (norms < threshold)].max(initial=0.0)),
        kept_for_width=int((alive & (norms < threshold) & graph.prunable).sum()),
        layers=tuple(_layers(live, alive, left_out or {})),
        **fields,
    )


def _layers(live: LiveModel, alive: np.ndarray, left_out: Mapping[int, str]) -> list[LayerReport]:
    full = np.ones(live.graph.num_units, dtype=bool)
    found = []
    for layer in live.graph.layers.values():
        if layer.kind.has_width:
            units = layer.out_units.tolist()
            stays = reasons_of(live.graph, layer)
            if not stays and all(unit in left_out for unit in units):
                stays = "; ".join(sorted({left_out[unit] for unit in units}))
            widths = len(layer.out_units), int(alive[layer.out_units].sum())
            macs = macs_of_layer(layer, full), macs_of_layer(layer, alive)
            found.append(LayerReport(layer.name, *widths, *macs, stays))
    return found
