"""Networks of all kinds that lose channels in mid-run, and the training steps between."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from base_model.cifar_resnet import CifarResNet, cifar_resnet_widths
from rr import ResRepPruner, paper_config
from rr.narrowing.take_out import silent_units
from tests.rr.networks import Net, conv, generic, graph_of, head
from tests.rr.pruners import set_masks

OPTIMIZERS = {
    "SGD": lambda pruner: torch.optim.SGD(pruner.param_groups(lr=0.01, momentum=0.9, weight_decay=1e-3)),
    "AdamW": lambda pruner: torch.optim.AdamW(pruner.model.parameters(), lr=1e-3, weight_decay=0.1, amsgrad=True),
}


def residual() -> CifarResNet:
    """As `src20`, with a block a stage."""
    return CifarResNet(1, cifar_resnet_widths(1), num_classes=10, in_channels=3, folded=False)


def dense_blocks() -> Net:
    """BN before the convolutions and concatenation, as in DenseNet."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = torch.cat([x, net.c1(F.relu(net.n1(x)))], 1)
        return net.fc(F.relu(net.n2(x)).mean((2, 3)))

    modules = {"stem": conv(3, 8), "n1": nn.BatchNorm2d(8), "c1": conv(8, 4), "n2": nn.BatchNorm2d(12)}
    return Net(forward, **modules, fc=nn.Linear(12, 2))


def separable() -> Net:
    """Depthwise layers with BN and ReLU, which make constants of dead channels, and a squeeze-excite gate."""

    def block(net: Net, x: Tensor, name: str) -> Tensor:
        x = F.relu(getattr(net, f"{name}_bn1")(getattr(net, f"{name}_depthwise")(x)))
        return F.hardswish(getattr(net, f"{name}_bn2")(getattr(net, f"{name}_pointwise")(x)))

    def forward(net: Net, x: Tensor) -> Tensor:
        x = block(net, F.relu(net.bn(net.stem(x))), "first")
        x = x * net.s2(F.relu(net.s1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return head(net, block(net, x, "second"))

    modules: dict[str, nn.Module] = {"stem": conv(3, 8), "bn": nn.BatchNorm2d(8)}
    for name, inputs, outputs in (("first", 8, 12), ("second", 12, 16)):
        modules |= {f"{name}_depthwise": conv(inputs, inputs, groups=inputs), f"{name}_bn1": nn.BatchNorm2d(inputs)}
        modules |= {f"{name}_pointwise": conv(inputs, outputs, 1), f"{name}_bn2": nn.BatchNorm2d(outputs)}
    return Net(forward, **modules, s1=conv(12, 4, 1), s2=conv(4, 12, 1), fc=nn.Linear(16, 2))


def all_sorts() -> Net:
    """Grouped, transposed and shared layers, PReLU, a shuffle, and a flattened classifier with a hidden layer."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.p(net.n(net.g(net.a(x))))
        x = F.relu(net.t(net.shuffle(x)))
        x = net.twice(F.relu(net.twice(x)))
        return net.fc(F.relu(net.hidden(x.flatten(1))))

    return Net(
        forward,
        a=conv(3, 8),
        g=conv(8, 16, groups=4),
        n=nn.BatchNorm2d(16),
        p=nn.PReLU(16),
        shuffle=nn.ChannelShuffle(2),
        t=nn.ConvTranspose2d(16, 6, 3, padding=1),
        twice=conv(6, 6),
        hidden=nn.Linear(6 * 64, 10),
        fc=nn.Linear(10, 2),
    )


def norms() -> Net:
    """Group, instance and frozen norms, whose shifts dead channels would leave before padding."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.g(net.a(x)))
        x = F.relu(net.i(net.b(x)))
        return head(net, F.relu(net.f(net.c(x))))

    layers = {"a": conv(3, 12), "b": conv(12, 10), "c": conv(10, 8), "fc": nn.Linear(8, 2)}
    model = Net(forward, **layers, g=nn.GroupNorm(6, 12), i=nn.InstanceNorm2d(10, affine=True), f=FrozenBatchNorm2d(8))
    for own in (*model.g.parameters(), *model.i.parameters(), *model.f.buffers()):
        own.data.uniform_(0.5, 1.5)
    return model


FAMILIES: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "residual, inner layers": (residual, "internal", 8),
    "residual streams": (residual, "all", 8),
    "depthwise, squeeze and excite": (separable, "all", 8),
    "dense": (dense_blocks, "all", 8),
    "all sorts": (all_sorts, "all", 8),
    "group, instance and frozen norms": (norms, "all", 8),
}


def pruner_of(
    build: Callable[[], nn.Module], layers: str, size: int, compactors: str = "dense", narrow: str = "rows"
) -> ResRepPruner:
    torch.manual_seed(0)
    model = generic(build()).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = paper_config(
        flops_target=0.6,
        layers=layers,
        narrow=narrow,
        rows_per_update=10**6,
        penalty=1e-3,
        compactors=compactors,
    )
    images = torch.randn(2, 3, size, size)
    graph = graph_of(build, tuple(images.shape), silence=True, diagonal=compactors == "diagonal")
    return ResRepPruner(model, images, config, graph=graph)


_SILENT: WeakKeyDictionary[ResRepPruner, np.ndarray] = WeakKeyDictionary()


def kill(pruner: ResRepPruner, share: float, seed: int = 0) -> np.ndarray:
    """Mask a share of the units that may be taken out, and set their rows to zero."""
    if pruner not in _SILENT:  # known of the full network alone
        _SILENT[pruner] = silent_units(pruner.graph, pruner.model)
    alive, silent = pruner.unmasked.alive, _SILENT[pruner]
    for group in pruner.graph.groups:
        units = group.units[pruner.selected[group.units] & silent[group.units] & alive[group.units]]
        some = np.random.default_rng(seed).permutation(units)[: int(share * len(units))]
        alive[some] = False
    set_masks(pruner, alive)
    pruner.live.zero_dead_rows(alive)
    return alive


def losses(pruner: ResRepPruner, optimizer: torch.optim.Optimizer, size: int, steps: int, seed: int) -> list[float]:
    """Train on random batches; without narrowing, dead rows are set to zero after each step."""
    generator = torch.Generator().manual_seed(seed)
    alive = pruner.unmasked.alive
    found = []
    for _ in range(steps):
        images = torch.randn(4, 3, size, size, dtype=torch.float64, generator=generator)
        loss = F.cross_entropy(pruner.model.train()(images), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.live.zero_dead_rows(alive)
        found.append(loss.item())
    return found
