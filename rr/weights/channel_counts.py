"""What modules know of their own widths, brought in line with their tensors."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from rr.weights.plain_layers import update_mark

# A recurrent layer's parameters (and those of a single step of one) with a column for each input.
INPUT_WEIGHTS = ("weight_ih_l0", "weight_ih_l0_reverse", "weight_ih")


def count_channels(module: nn.Module) -> None:
    """Set `out_channels`, `groups`, `num_features` and the like by the shapes that the module's tensors have now.

    Groups go as a whole, a convolution's (those of a depthwise one, too) and a norm's. Other kinds of modules stay as
    they are.
    """
    if isinstance(module, _ConvTransposeNd):  # weight: [in, out / groups, *kernel]
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _ConvNd):  # weight: [out, in / groups, *kernel]
        if module.groups > 1:
            module.groups = module.groups * module.weight.shape[0] // module.out_channels
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        update_mark(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        first = module.weight_ih_l0 if isinstance(module, nn.RNNBase) else module.weight_ih  # [gates x hidden, in]
        module.input_size = first.shape[1]
    elif isinstance(module, _NormBase):
        tensors = [module.running_mean, module.weight]
        module.num_features = next((len(own) for own in tensors if own is not None), module.num_features)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:  # groups of as many channels as before
        module.num_groups = len(module.weight) * module.num_groups // module.num_channels
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
