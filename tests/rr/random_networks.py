"""Random small CNNs, of every kind of operation that has a rule."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from hypothesis import event
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

EXAMPLES = int(os.environ.get("RESREP_EXAMPLES", "20"))
ACTIVATIONS = (F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.gelu, torch.sigmoid, torch.tanh, F.leaky_relu)
OVER_CHANNELS = {"mean": torch.mean, "largest": torch.amax, "least": torch.amin}
OPERATIONS = (
    *("conv", "conv", "conv bn", "conv bn", "depthwise bn", "grouped bn", "bn", "activation", "activation"),
    *("add", "concat", "gate", "squeeze", "max pool", "average pool", "slice of pixels", "permuted linear"),
    *("transposed", "halves", "shuffle", "pixel shuffle", "pixel unshuffle", "PReLU", "scale", "padded channels"),
    *("padded pixels", "bn with activation", "again", "map", "branches", "add", "residual block"),
    *("recurrent", "gated halves", "sizes", "product", "normalized", "patches", "instance norm", "matrix", "within"),
    *("sorted", "sum of all", "split attention", "computed weight", "norm of its own"),
    *("spatial attention", "response norm"),
)


class RandomNet(nn.Module):
    """A network out of steps, each a module and a function of (module, list of tensors so far) -> tensor."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.functions = []
        self.shapes = [(3, 8, 8)]
        self.append(draw, "conv bn")
        for _ in range(draw(st.integers(1, 9))):
            self.append(draw, draw(st.sampled_from(OPERATIONS)))
        channels, height, width = self.shapes[-1]
        self.flat = draw(st.booleans())
        self.fc = nn.Linear(channels * height * width if self.flat else channels, 3)

    def append(self, draw: st.DrawFn, operation: str) -> None:
        channels, height, width = self.shapes[-1]
        other = draw(st.integers(0, len(self.shapes) - 1))
        activation = draw(st.sampled_from(ACTIVATIONS))
        kernel, out = draw(st.sampled_from([1, 3])), draw(st.integers(2, 6))
        padding = draw(st.sampled_from([0, kernel // 2])) if min(height, width) >= 3 else kernel // 2
        bias = draw(st.booleans())

        def conv(inputs: int, outputs: int, **options: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bias, **options)

        shrunk = (height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1)
        if operation == "conv":
            step = conv(channels, out), lambda m, xs: m(xs[-1]), (out, *shrunk)
        elif operation == "conv bn":
            module = nn.Sequential(conv(channels, out), nn.BatchNorm2d(out, eps=1e-3))
            step = module, lambda m, xs: activation(m(xs[-1])), (out, *shrunk)
        elif operation == "depthwise bn":
            module = nn.Sequential(conv(channels, 2 * channels, groups=channels), nn.BatchNorm2d(2 * channels))
            step = module, lambda m, xs: activation(m(xs[-1])), (2 * channels, *shrunk)
        elif operation == "grouped bn" and channels % 2 == 0:
            module = nn.Sequential(conv(channels, 2 * out, groups=2), nn.BatchNorm2d(2 * out))
            step = module, lambda m, xs: activation(m(xs[-1])), (2 * out, *shrunk)
        elif operation == "computed weight":
            computed = draw(
                st.sampled_from([parametrizations.weight_norm, parametrizations.spectral_norm, Standard.of])
            )
            module = nn.Sequential(computed(conv(channels, out)), nn.BatchNorm2d(out))
            step = module, lambda m, xs: activation(m(xs[-1])), (out, *shrunk)
        elif operation == "norm of its own":
            norms = [nn.InstanceNorm2d(channels, affine=True), nn.GroupNorm(channels, channels)]
            norms += [FrozenBatchNorm2d(channels)] + ([nn.GroupNorm(2, channels)] if channels % 2 == 0 else [])
            module = draw(st.sampled_from(norms))
            for own in (*module.parameters(), *module.buffers()):
                own.data.uniform_(0.5, 1.5)
            step = module, lambda m, xs: activation(m(xs[-1])), (channels, height, width)
        elif operation == "bn":
            step = nn.BatchNorm2d(channels), lambda m, xs: m(xs[-1]), (channels, height, width)
        elif operation == "add" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: xs[-1] + xs[other], (channels, height, width)
        elif operation == "concat" and self.shapes[other][1:] == (height, width):
            together = channels + self.shapes[other][0]
            step = nn.Identity(), lambda m, xs: torch.cat([xs[-1], xs[other]], 1), (together, height, width)
        elif operation == "gate" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: xs[-1] * activation(xs[other]), (channels, height, width)
        elif operation == "squeeze":
            module = nn.Sequential(nn.Conv2d(channels, out, 1), nn.ReLU(), nn.Conv2d(out, channels, 1))
            step = module, lambda m, xs: xs[-1] * m(xs[-1].mean((2, 3), keepdim=True)).sigmoid(), self.shapes[-1]
        elif operation == "max pool" and min(height, width) >= 4:
            step = nn.MaxPool2d(3, 2, 1), lambda m, xs: m(xs[-1]), (channels, (height + 1) // 2, (width + 1) // 2)
        elif operation == "average pool" and min(height, width) >= 4:
            step = nn.AvgPool2d(3, 2, 1), lambda m, xs: m(xs[-1]), (channels, (height + 1) // 2, (width + 1) // 2)
        elif operation == "slice of pixels" and height >= 3:
            step = nn.Identity(), lambda m, xs: xs[-1][:, :, 1:], (channels, height - 1, width)
        elif operation == "permuted linear":
            step = (
                nn.Linear(channels, out, bias=bias),
                lambda m, xs: activation(m(xs[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
                (out, height, width),
            )
        elif operation == "residual block":
            module = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out), nn.ReLU())
            module.extend([nn.Conv2d(out, out, 3, padding=1, groups=out), nn.Conv2d(out, channels, 1, bias=bias)])
            step = module, lambda m, xs: xs[-1] + m(xs[-1]), self.shapes[-1]
        elif operation == "transposed":
            module = nn.ConvTranspose2d(channels, out, kernel, padding=kernel // 2, bias=bias)
            step = module, lambda m, xs: m(xs[-1]), (out, height, width)
        elif operation == "halves" and channels % 2 == 0:
            step = nn.Identity(), lambda m, xs: halves(xs[-1], activation), (channels, height, width)
        elif operation == "shuffle" and channels % 2 == 0:
            step = nn.ChannelShuffle(2), lambda m, xs: m(xs[-1]), (channels, height, width)
        elif operation == "pixel shuffle" and channels % 4 == 0:
            step = nn.PixelShuffle(2), lambda m, xs: m(xs[-1]), (channels // 4, 2 * height, 2 * width)
        elif operation == "pixel unshuffle" and height % 2 == width % 2 == 0:
            step = nn.PixelUnshuffle(2), lambda m, xs: m(xs[-1]), (4 * channels, height // 2, width // 2)
        elif operation == "PReLU":
            step = nn.PReLU(draw(st.sampled_from([1, channels]))), lambda m, xs: m(xs[-1]), self.shapes[-1]
        elif operation == "scale":
            step = Scale(channels, shift=draw(st.booleans())), lambda m, xs: m(xs[-1]), self.shapes[-1]
        elif operation == "padded channels":
            step = nn.Identity(), lambda m, xs: F.pad(xs[-1], (0, 0, 0, 0, 1, 2)), (channels + 3, height, width)
        elif operation == "padded pixels" and min(height, width) >= 2:
            mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
            step = nn.Identity(), lambda m, xs: F.pad(xs[-1], (1, 0, 0, 1), mode), (channels, height + 1, width + 1)
        elif operation == "bn with activation":
            step = NormWithActivation(channels), lambda m, xs: m(xs[-1]), self.shapes[-1]
        elif operation == "again" and other > 0 and fits(self.steps[other - 1], channels):
            step = nn.Identity(), other - 1, None
        elif operation == "map":
            step = conv(channels, 1), lambda m, xs: xs[-1] * m(xs[-1]).mean((2, 3), keepdim=True), self.shapes[-1]
        elif operation == "branches" and self.shapes[other] == self.shapes[-1]:
            module = nn.Conv2d(channels, 2 * channels, 1)
            step = module, lambda m, xs: branches(m, xs[-1], xs[other]), self.shapes[-1]
        elif operation == "recurrent":
            kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
            module = kind(channels, out, batch_first=True, bias=bias, bidirectional=draw(st.booleans()))
            step = module, lambda m, xs: along_the_width(m, xs[-1]), (out * (1 + module.bidirectional), 1, width)
        elif operation == "gated halves" and channels % 2 == 0:
            step = nn.Identity(), lambda m, xs: F.glu(xs[-1], 1), (channels // 2, height, width)
        elif operation == "sizes" and channels > 1:
            first = draw(st.integers(1, channels - 1))
            step = Swapped([first, channels - first]), lambda m, xs: activation(m(xs[-1])), self.shapes[-1]
        elif operation == "product" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: xs[-1] @ xs[other].mT / width, (channels, height, height)
        elif operation == "normalized":
            step = nn.Identity(), lambda m, xs: F.normalize(xs[-1], dim=1, eps=0.1), self.shapes[-1]
        elif operation == "patches" and min(height, width) >= 2:
            sizes = (height - 1, width - 1)
            step = nn.Identity(), lambda m, xs: F.unfold(xs[-1], 2).unflatten(2, sizes), (4 * channels, *sizes)
        elif operation == "instance norm" and height * width > 1:
            step = nn.InstanceNorm2d(channels, eps=0.1), lambda m, xs: m(xs[-1]), self.shapes[-1]
        elif operation == "matrix":
            step = Matrix(channels, out), lambda m, xs: activation(m(xs[-1])), (out, height, width)
        elif operation == "within" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: torch.clamp(xs[-1], max=xs[other]), self.shapes[-1]
        elif operation == "split attention" and channels > 2 and channels % 2 == 0:  # groups of 1 are a depthwise layer
            module = nn.Sequential(conv(channels, 2 * out, groups=2), nn.BatchNorm2d(2 * out))
            step = module, lambda m, xs: activation(m(xs[-1])).unflatten(1, (2, -1)).sum(1), (out, *shrunk)
        elif operation == "sorted":
            step = nn.Identity(), lambda m, xs: xs[-1].sort(2)[0], self.shapes[-1]
        elif operation == "sum of all":
            step = nn.Identity(), lambda m, xs: xs[-1] * xs[-1].sum(1, keepdim=True).sigmoid(), self.shapes[-1]
        elif operation == "spatial attention":
            made = draw(st.lists(st.sampled_from([*OVER_CHANNELS]), min_size=1, max_size=3))
            module = nn.Conv2d(len(made), draw(st.sampled_from([1, channels])), 3, padding=1)
            step = module, lambda m, xs: xs[-1] * m(over_channels(xs[-1], made)).sigmoid(), self.shapes[-1]
        elif operation == "response norm":
            module = nn.LocalResponseNorm(draw(st.integers(1, 4)), alpha=1.0)
            step = module, lambda m, xs: m(xs[-1]), self.shapes[-1]
        else:
            step = nn.Identity(), lambda m, xs: activation(xs[-1]), (channels, height, width)
        module, function, shape = step
        event(operation)
        self.steps.append(module)
        self.functions.append(function)
        if shape is None:
            with torch.no_grad():
                shape = tuple(self.eval().run(torch.zeros(1, 3, 8, 8))[-1].shape[1:])
        self.shapes.append(shape)

    def run(self, x: Tensor) -> list[Tensor]:
        """The input and what each step makes."""
        xs = [x]
        for module, function in zip(self.steps, self.functions, strict=True):
            again = isinstance(function, int)  # an earlier step's module once more
            xs.append(self.steps[function](xs[-1]) if again else function(module, xs))
        return xs

    def forward(self, x: Tensor) -> Tensor:
        x = self.run(x)[-1]
        return self.fc(x.flatten(1) if self.flat else x.mean((2, 3)))


class Scale(nn.Module):
    """A factor, and perhaps a shift, for each channel."""

    def __init__(self, channels: int, shift: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))
        self.shift = nn.Parameter(torch.randn(1, channels, 1, 1)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if self.shift is None else self.shift + x * self.scale


class Swapped(nn.Module):
    """Two parts of the channels, by sizes that the module keeps, in the other order."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.split(self.sizes, 1)
        return torch.cat([second, first], 1)


class Matrix(nn.Module):
    """A matrix of its own, of each pixel's channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) @ self.matrix).permute(0, 3, 1, 2)


class NormWithActivation(nn.BatchNorm2d):
    """BN that runs its activation itself."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Standard(nn.Conv2d):
    """A standardised convolution."""

    @classmethod
    def of(cls, plain: nn.Conv2d) -> Standard:
        """With the options of a plain one."""
        bias = plain.bias is not None
        return cls(plain.in_channels, plain.out_channels, plain.kernel_size, padding=plain.padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.square().mean((1, 2, 3), keepdim=True) + 1e-3).sqrt(), self.bias)


def fits(module: nn.Module, channels: int) -> bool:
    """Whether a module that has been called can be called with so many channels."""
    if isinstance(module, nn.Sequential):
        module = module[0]
    return getattr(module, "in_channels", getattr(module, "num_features", None)) == channels


def along_the_width(recurrent: nn.Module, x: Tensor) -> Tensor:
    """A recurrent layer over the columns of an image, each the mean of its pixels."""
    return recurrent(x.mean(2).mT)[0].mT.unsqueeze(2)


def halves(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """One half goes past, as in ShuffleNet."""
    past, through = x.chunk(2, 1)
    return torch.cat([activation(through), past], 1)


def over_channels(x: Tensor, made: Sequence[str]) -> Tensor:
    """What is made of all channels, as channels."""
    return torch.cat([OVER_CHANNELS[name](x, 1, keepdim=True) for name in made], 1)


def branches(choose: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    """Each channel weighs two branches."""
    both = torch.stack([first, second], 1)
    weights = choose(both.sum(1).mean((2, 3), keepdim=True))
    return (both * weights.unflatten(1, (2, weights.shape[1] // 2)).softmax(1)).sum(1)
