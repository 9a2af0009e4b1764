"""The modules behind which compactors can act: a hook runs when a module's whole forward is over, or before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from rr.compactors import acts_before
from rr.graph.layers import LayerCall, LayerKind
from rr.graph.trace import Trace, inside_modules


class Hosts:
    """Where in a trace each module of the model runs, and where a hook can stand."""

    def __init__(self, trace: Trace, model: nn.Module) -> None:
        self._named = dict(model.named_modules())
        self.order = {name: position for position, name in enumerate(self._named)}
        self._nodes = {node.name: node for node in trace.nodes}
        inside, self._calls = inside_modules(trace)
        self._inside = {name: [node.name for node in nodes] for name, nodes in inside.items()}

    def __getitem__(self, name: str) -> nn.Module:
        return self._named[name]

    def host_behind(self, name: str, operations: Sequence[str]) -> str | None:
        """The module whose hook makes a compactor act right behind some operations; None where there is none.

        Args:
            name: the module whose operations they are.
            operations: one per call of that module.
        """
        inside = self._inside[name]
        if len(self._calls[name]) != len(operations):
            return None
        if len(operations) > 1:
            return name if set(inside) == set(operations) else None
        if inside[-1] == operations[0]:
            return name
        return self._child_that_follows(name, operations[0])

    def _child_that_follows(self, name: str, operation: str) -> str | None:
        """The activation that a layer or norm runs, where it is a module of its own and reads nothing else."""
        following = self._inside[name][self._inside[name].index(operation) + 1]
        for child, module in self._named[name].named_children():
            path = f"{name}.{child}"
            inside = self._inside.get(path, [])
            alone = [node.name for node in self._nodes[operation].users] == [following]
            once = inside[:1] == [following] and alone and len(self._calls[path]) == 1
            if once and not _is_container(module) and acts_before(module, self._named[name]):
                return path
        return None

    def container(self, layer: str, operations: Sequence[str]) -> str | None:
        """The module that holds just a layer and its BN, if there is one: the original has its compactor there.

        Nothing else may happen in it: a ReLU in the same forward would come between the BN and the compactor.

        Args:
            layer: the layer's name.
            operations: its own and those of its BN, in order.
        """
        parent = layer.rpartition(".")[0]
        if not parent or _is_container(self._named[parent]):
            return None
        return parent if self._inside.get(parent) == list(operations) else None

    def direct_norms(self, calls: Sequence[LayerCall]) -> dict[str, str]:
        """Convolution or linear layer -> the BN that is the only reader of its output and reads nothing else.

        That holds at each of its calls, and a compactor has a place behind the BN: in a BN module that runs its
        activation too, the activation would come before a hook, unless it is a module.
        """
        norm_at = {call.node: call.name for call in calls if call.kind is LayerKind.NORM}
        layer_at = {call.node: call.name for call in calls if call.kind.has_width}
        times = Counter(call.name for call in calls)
        pairs: Counter[tuple[str, str]] = Counter()
        for name, node in self._nodes.items():
            if name in layer_at and len(node.users) == 1 and next(iter(node.users)).name in norm_at:
                pairs[layer_at[name], norm_at[next(iter(node.users)).name]] += 1
        return {
            layer: norm
            for (layer, norm), count in pairs.items()
            if count == times[layer] == times[norm]
            and self.host_behind(norm, [node for node, name in norm_at.items() if name == norm]) is not None
        }


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
