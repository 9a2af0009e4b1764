"""The compactor layer (section 3.2 of the paper) and its place behind a convolution, its BN or a linear layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from rr.errors import InputError

CHILD = "compactor"  # a host module holds its compactor under this name, as in the original's weight files
WEIGHT_SUFFIX = f".{CHILD}.pwc.weight"
MASK_SUFFIX = f".{CHILD}.mask"


HOOK_KINDS = (  # attributes of a module
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
Hook = TypeVar("Hook", bound=Callable[..., Any])
_OWN_HOOKS: list[Callable[..., Any]] = []


class Compactor(nn.Module):
    """A 1x1 convolution without bias, the identity at the start: y = Q x over the channels.

    Args:
        channels: D.
        channel_dim: where the channels are: 1 behind a convolution ([N, D, ...]), -1 behind a linear layer ([..., D]).
        groups: 1 for a dense Q; G for a block-diagonal one, behind a convolution of G groups; D for a diagonal one,
            behind a layer that keeps its channels apart, or where channels are only to be silenced.
        pixel_dims: behind a convolution, how many dimensions its images have; None elsewhere.
        device, dtype: of its parameter and its mask.

    Attributes:
        pwc: the convolution; its weight, [D, D / groups, 1, 1], is the matrix Q, of which row i makes channel i.
        mask: [D], 1 = keep the row, 0 = forget it (its task gradient is reset; section 3.3).
        channel_dim, pixel_dims: as given.
        bypassed: whether it is left out of the forward pass (a retired one, which is the identity; any, while a model
            is traced).
        image_products: of each backward pass since it was emptied, [N, D]: <dL/dq_i, q_i> of each image alone; None
            where nobody asks for that.
    """

    def __init__(
        self,
        channels: int,
        channel_dim: int = 1,
        groups: int = 1,
        *,
        pixel_dims: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        assert groups in (1, channels) or channel_dim == 1, "behind a linear layer there are no blocks"
        self.pwc = nn.Conv2d(channels, channels, 1, groups=groups, bias=False, device=device, dtype=dtype)
        nn.init.dirac_(self.pwc.weight, groups)
        self.register_buffer("mask", torch.ones(channels, device=device, dtype=dtype))
        self.channel_dim, self.pixel_dims = channel_dim, pixel_dims
        self.bypassed = False
        self.image_products: list[torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bypassed:
            return x
        if x.dim() - 1 == self.pixel_dims:  # a single image, without a batch
            return self(x[None])[0]
        y = self._product(x)
        if self.image_products is not None and y.requires_grad:
            self._watch(x.detach(), y)
        return y

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if self.pwc.groups == self.pwc.out_channels > 1:
            return self._scaled(x)
        if self.channel_dim == -1:
            return F.linear(x, self.matrix)  # [..., D]
        if x.dim() == 4:
            return self.pwc(x)  # [N, D, H, W]
        y = self.pwc(x.reshape(*x.shape[:2], -1, 1))  # [N, D], [N, D, L] or [N, D, T, H, W]
        return y.reshape(len(x), y.shape[1], *x.shape[2:])  # of a narrowed network: fewer rows than columns

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        """A diagonal Q: a factor for each channel, at which convolutions are slow."""
        factors = self.pwc.weight.flatten()
        if self.channel_dim == -1:
            return x * factors.to(x.dtype)
        # A BN of mean 0 and variance 1: its backward pass needs no x dL/dy of the size of x, as that of a product does.
        zeros, ones = torch.zeros_like(factors), torch.ones_like(factors)
        return F.batch_norm(x, zeros, ones, factors, training=False, eps=0.0)

    @torch.compiler.disable  # in a compiled network it stands between two graphs
    def _watch(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Keep, in the backward pass, <dL/dq_i, q_i> of each image: the sum over its pixels of dL/dy_i y_i.

        y is computed once more, since an activation behind may have overwritten it.
        """

        @torch.no_grad()
        def keep(gradient: torch.Tensor) -> None:
            products = gradient * self._product(x)  # [N, D, ...], or [N, ..., D]
            images = products.movedim(self.channel_dim, 1).flatten(2) if products.dim() > 2 else products[..., None]
            self.image_products.append(images.sum(2, dtype=self.pwc.weight.dtype))

        y.register_hook(keep)

    @property
    def matrix(self) -> torch.Tensor:
        """Q as a [D, D / groups] view of the parameter: each row's own columns."""
        return self.pwc.weight.flatten(1)


def insert_compactors(
    model: nn.Module, hosts: Mapping[str, int], groups: Mapping[str, int] | None = None
) -> dict[str, Compactor]:
    """Put an identity compactor behind each host module, in place.

    A host inside a BN module (the activation that timm's BN runs itself) has its compactor before it, since that is
    behind the BN. No output changes, no name of the model's own parameters changes, and the model's own checkpoints
    load (strictly) before and after.

    Args:
        model: the model, changed in place.
        hosts: host name -> number of channels.
        groups: host name -> groups of its compactor, where that isn't dense.

    Returns:
        The compactors by host name.

    Raises:
        InputError: for a host that the model lacks or that has a compactor already.
    """
    modules = dict(model.named_modules())
    for name in hosts:
        if name not in modules:
            raise InputError(f"no module {name!r} in the model to put a compactor behind")
        if CHILD in dict(modules[name].named_children()):
            raise InputError(f"module {name!r} has a compactor already: insert once per model")
    for name, channels in hosts.items():
        host = modules[name]
        anchor = next(chain(host.parameters(), model.parameters()))  # a BN without affine has none of its own
        channel_dim = -1 if _is_linear(host) else 1
        options = {"pixel_dims": _pixel_dims(host), "device": anchor.device, "dtype": anchor.dtype}
        compactor = Compactor(channels, channel_dim, (groups or {}).get(name, 1), **options)
        is_before = acts_before(host, modules[name.rpartition(".")[0]])
        host.add_module(CHILD, compactor)
        if is_before:
            host.register_forward_pre_hook(_compactor_first)
        else:
            host.register_forward_hook(_through_compactor)
    if hosts and not _load_hook_ids(model):
        model.register_load_state_dict_pre_hook(_identity_for_plain_checkpoints)
    return {name: getattr(modules[name], CHILD) for name in hosts}


def _is_linear(host: nn.Module) -> bool:
    """Whether it is, or holds, torch's linear layer, or one of a user's own with a weight of two dimensions."""
    for module in host.modules():  # itself first: a convolution of a user's own may hold a linear layer
        if isinstance(module, nn.Linear | _ConvNd):
            return isinstance(module, nn.Linear)
    dims = {sum(size > 1 for size in parameter.shape) for parameter in host.parameters()}  # [C, 1] is a vector
    return max(dims, default=0) == 2 and all(parameter.dim() <= 2 for parameter in host.parameters())


def _pixel_dims(host: nn.Module) -> int | None:
    """Behind a convolution, the dimensions of its images."""
    return next((len(module.kernel_size) for module in host.modules() if isinstance(module, _ConvNd)), None)


def acts_before(host: nn.Module, parent: nn.Module) -> bool:
    """Whether a compactor of the host acts before it: of an activation that a layer or norm runs itself.

    Args:
        host: without a compactor.
        parent: the module that holds it.
    """
    return isinstance(parent, _BatchNorm) or not host.state_dict()


def find_compactors(model: nn.Module) -> dict[str, Compactor]:
    """The compactors in `model`, by the name of the host module behind which they sit."""
    return {
        name.removesuffix(CHILD).removesuffix("."): module
        for name, module in model.named_modules()
        if isinstance(module, Compactor)
    }


def remove_compactors(model: nn.Module) -> None:
    """Take every compactor, and the hooks that came with it, out of `model`; what they computed goes with them."""
    modules = dict(model.named_modules())
    for name in find_compactors(model):
        host = modules[name]
        delattr(host, CHILD)
        for hooks in (host._forward_hooks, host._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if hook in (_through_compactor, _compactor_first)]:
                del hooks[key]
    for key in _load_hook_ids(model):
        del model._load_state_dict_pre_hooks[key]


def hooks_of_users(module: nn.Module) -> dict[str, dict[int, Any]]:
    """The hooks on a module's passes that aren't the library's, by attribute; empty where there are none."""
    found = {}
    for kind in HOOK_KINDS:
        hooks = vars(module)[kind]
        others = ((key, hook) for key, hook in hooks.items() if hook not in _OWN_HOOKS)
        found[kind] = type(hooks)(others)
    return found if any(found.values()) else {}


@contextmanager
def compactors_bypassed(model: nn.Module) -> Iterator[None]:
    """Within the context the model computes what it would without compactors."""
    compactors = {compactor: compactor.bypassed for compactor in find_compactors(model).values()}
    for compactor in compactors:
        compactor.bypassed = True
    try:
        yield
    finally:
        for compactor, bypassed in compactors.items():
            compactor.bypassed = bypassed


def own_hook(hook: Hook) -> Hook:
    """Decorator: the hook is the library's, so none that is carried over as a user's."""
    _OWN_HOOKS.append(hook)
    return hook


@own_hook
def _through_compactor(host: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
    return getattr(host, CHILD)(output)


@own_hook
def _compactor_first(host: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (getattr(host, CHILD)(inputs[0]), *inputs[1:])


def _identity_for_plain_checkpoints(
    model: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *_: object
) -> None:
    """A checkpoint without a single compactor is the plain model's: the compactors become the identity again."""
    if any(name.endswith(WEIGHT_SUFFIX) for name in state_dict):
        return
    for name, compactor in find_compactors(model).items():
        identity = nn.init.dirac_(torch.empty_like(compactor.pwc.weight), compactor.pwc.groups)
        state_dict[f"{prefix}{name}{WEIGHT_SUFFIX}"] = identity
        state_dict[f"{prefix}{name}{MASK_SUFFIX}"] = torch.ones_like(compactor.mask)


def _load_hook_ids(model: nn.Module) -> list[int]:
    hooks = model._load_state_dict_pre_hooks
    return [key for key, hook in hooks.items() if getattr(hook, "hook", None) is _identity_for_plain_checkpoints]
