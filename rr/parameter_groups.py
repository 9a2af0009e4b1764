"""A model's parameters in groups with the paper's settings (section 4.1)."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rr.compactors import find_compactors


def param_groups(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, bias_lr_factor: float = 2.0
) -> list[dict[str, object]]:
    """Parameters of a model without its compactors by kind: weights, BN weights, biases; frozen ones are left out.

    Weight decay is for conv and linear weights alone; biases learn at `bias_lr_factor` times the rate.

    Args:
        model: with compactors or without.
        lr, momentum, weight_decay: of torch.optim.SGD.
        bias_lr_factor: learning rate of biases, relative to the others'.

    Returns:
        Parameter groups for the optimiser, each with a `name`; a kind without parameters has none.
    """
    seen = {id(compactor.pwc.weight) for compactor in find_compactors(model).values()}
    kinds: dict[str, list[nn.Parameter]] = {"weights": [], "norms": [], "biases": []}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            if name.endswith("bias"):
                kinds["biases"].append(parameter)
            else:
                kinds["norms" if isinstance(module, _BatchNorm) else "weights"].append(parameter)
    settings = {
        "weights": {"lr": lr, "weight_decay": weight_decay},
        "norms": {"lr": lr, "weight_decay": 0.0},
        "biases": {"lr": lr * bias_lr_factor, "weight_decay": 0.0},
    }
    return [
        {"params": parameters, "momentum": momentum, "name": kind, **settings[kind]}
        for kind, parameters in kinds.items()
        if parameters
    ]
