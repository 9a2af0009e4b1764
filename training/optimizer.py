"""Which parameter gets which learning rate and weight decay."""

from typing import Any

from torch import nn


def plain_param_groups(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, bias_lr_factor: float = 2.0
) -> list[dict[str, Any]]:
    """Three groups for torch.optim.SGD: conv and linear weights with decay; BN weights without; biases at
    lr * bias_lr_factor without decay. (A group per tensor would cost a kernel launch per tensor and step.)
    """
    decayed, scales, biases = [], [], []
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            biases.append(parameter)
        else:
            (decayed if parameter.ndim > 1 else scales).append(parameter)
    groups = [
        {"params": decayed, "lr": lr, "momentum": momentum, "weight_decay": weight_decay},
        {"params": scales, "lr": lr, "momentum": momentum, "weight_decay": 0.0},
        {"params": biases, "lr": lr * bias_lr_factor, "momentum": momentum, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
