"""All known ATen operations, each with its kind, which is the name of the rule for it.

What isn't in the table has no rule: nothing that passes through it is pruned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from torch import fx


class OperationKind(Enum):
    """What an operation does to channels; `rules_*.py` have a rule for each but the last two."""

    # rules_elementwise.py
    UNARY = "one tensor in, the same shape out, each element from its own element alone"
    CAST = "as unary, and may change the type"
    BINARY = "two tensors, element by element"
    SEVERAL = "several tensors, element by element"
    PRELU = "as unary, with a number per channel"
    POOLING = "over the pixels"
    REDUCTION = "over dimensions that are named"
    SOFTMAX = "over a dimension that is named"
    ALONG = "along a dimension that is named, which stays"
    RESIZING = "along a dimension that is named, which may get another size"
    SAMPLING = "takes pixels from places that another tensor says"
    # rules_shape.py
    MOVE = "moves elements without changing them"
    VIEW = "gives the elements other dimensions, in their order"
    LIKE = "as another tensor's shape"
    CUT = "takes parts"
    PADDING = "puts elements around"
    PIXEL_SHUFFLE = "channels into pixels"
    PIXEL_UNSHUFFLE = "pixels into channels"
    CHANNEL_SHUFFLE = "channels into another order"
    GLU = "one half of the channels, gated by the other"
    PATCHES = "pixels into channels, patch by patch that may overlap, or along a dimension"
    FOLD = "patches back into pixels"
    GETITEM = "one of several outputs"
    # rules_choice.py
    CHOICE = "takes places along a dimension, in an order that another tensor says"
    # rules_layers.py
    CONVOLUTION = "convolution"
    TRANSPOSED = "transposed convolution"
    LINEAR = "linear layer"
    # rules_products.py
    PRODUCT = "product of matrices"
    # rules_columns.py
    RECURRENT = "recurrent layer, or a step of one"
    # rules_layers.py
    BATCH_NORM = "batch norm"
    INSTANCE_NORM = "instance norm"
    GROUP_NORM = "group norm"
    # of no channels
    NEW = "numbers that the forward writes down"
    # without a rule
    OVER_CHANNELS = "makes every channel depend on the others"


_NAMES = {
    OperationKind.UNARY: """
        relu relu6 hardtanh silu gelu sigmoid tanh hardswish hardsigmoid leaky_relu elu selu celu mish softplus
        exp sqrt rsqrt abs neg pow square dropout feature_dropout alpha_dropout clone contiguous detach alias
        identity lift_fresh_copy erf log1p expm1 hardshrink softshrink threshold log_sigmoid rrelu log log2
        log10 exp2 erfc reciprocal sin cos tan sinh cosh asin acos atan asinh acosh atanh logit sinc floor ceil
        round trunc frac sign sgn nan_to_num isnan isinf isfinite logical_not bitwise_not zeros_like ones_like
        full_like zero fill positive deg2rad rad2deg lgamma digamma erfinv i0 special_expit
    """,
    OperationKind.CAST: "to _to_copy type_as",
    OperationKind.BINARY: """
        add sub mul div maximum minimum multiply divide true_divide subtract rsub fmax fmin atan2 remainder fmod
        floor_divide copysign hypot gt ge lt le eq ne greater greater_equal less less_equal not_equal
        logaddexp logaddexp2 xlogy heaviside float_power isclose
        logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor __and __or __xor
    """,
    OperationKind.SEVERAL: "where masked_fill lerp addcmul addcdiv clamp clamp_min clamp_max clip",
    OperationKind.PRELU: "prelu",
    OperationKind.POOLING: """
        max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
        avg_pool1d avg_pool2d avg_pool3d
        adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        upsample_nearest1d upsample_nearest2d upsample_nearest3d
        upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    """,
    OperationKind.REDUCTION: """
        mean sum amax amin var std prod logsumexp linalg_vector_norm norm all any argmax argmin
        var_mean std_mean aminmax median kthvalue quantile
    """,
    OperationKind.ALONG: "cumsum cumprod logcumsumexp",
    OperationKind.RESIZING: "sort topk cummax cummin repeat_interleave",
    OperationKind.SAMPLING: "grid_sampler max_unpool2d max_unpool3d",
    OperationKind.SOFTMAX: "softmax log_softmax",
    OperationKind.MOVE: """
        permute transpose t numpy_T movedim cat concat stack unsqueeze squeeze expand repeat tile flip
        swapaxes swapdims moveaxis mT adjoint roll rot90 broadcast_to hstack vstack dstack
    """,
    OperationKind.LIKE: "expand_as view_as reshape_as",
    OperationKind.VIEW: "view reshape _unsafe_view flatten unflatten ravel",
    OperationKind.CUT: "slice select chunk split split_with_sizes unbind narrow unsafe_chunk unsafe_split tensor_split",
    OperationKind.CHOICE: "index index_select",
    OperationKind.PADDING: """
        pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d
    """,
    OperationKind.PIXEL_SHUFFLE: "pixel_shuffle",
    OperationKind.PIXEL_UNSHUFFLE: "pixel_unshuffle",
    OperationKind.CHANNEL_SHUFFLE: "channel_shuffle",
    OperationKind.GLU: "glu",
    OperationKind.PATCHES: "im2col unfold",
    OperationKind.FOLD: "col2im",
    OperationKind.GETITEM: "getitem",
    OperationKind.CONVOLUTION: "conv1d conv2d conv3d",
    OperationKind.TRANSPOSED: "conv_transpose1d conv_transpose2d conv_transpose3d",
    OperationKind.LINEAR: "linear",
    OperationKind.PRODUCT: "matmul mm bmm einsum",
    OperationKind.RECURRENT: "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    OperationKind.BATCH_NORM: "batch_norm",
    OperationKind.NEW: "zeros ones full new_zeros new_ones new_full arange linspace scalar_tensor eye",
    OperationKind.INSTANCE_NORM: "instance_norm",
    OperationKind.GROUP_NORM: "group_norm",
    OperationKind.OVER_CHANNELS: "layer_norm local_response_norm",
}
KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names.split()}
assert len(KIND_OF) == sum(len(names.split()) for names in _NAMES.values()), "an operation stands twice in the table"

_OF_EXTREMES = {"other": OperationKind.BINARY, "dim": OperationKind.REDUCTION}
_COPIES = ("clone", "contiguous", "detach", "alias", "lift_fresh_copy")
ELEMENTWISE = {OperationKind.UNARY, OperationKind.BINARY, OperationKind.SEVERAL}
_MOVING = {OperationKind.MOVE, OperationKind.VIEW, OperationKind.LIKE, OperationKind.CUT, OperationKind.GETITEM}


def operation(node: fx.Node) -> str:
    """The ATen operation's plain name: `relu_` and `relu.default` are both `relu`."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # operator.getitem and other Python functions
        return getattr(node.target, "__name__", str(node.target))
    return schema.name.split("::")[-1].rstrip("_")


def kind_of(node: fx.Node) -> OperationKind | None:
    """The operation's kind, None for one that isn't known."""
    name = operation(node)
    if name in ("max", "min"):  # three operations of one name
        return _OF_EXTREMES.get(getattr(node.target, "_overloadname", None))
    return KIND_OF.get(name)


def has_rule(node: fx.Node) -> bool:
    """Whether channels may pass through the operation; elsewhere nothing prunable does."""
    return kind_of(node) not in (None, OperationKind.OVER_CHANNELS) and "out" not in node.kwargs


def is_assertion(node: fx.Node) -> bool:
    """Whether the operation only checks something, and gives nothing back."""
    return operation(node).startswith("_assert")


def is_dropout(node: fx.Node) -> bool:
    """Whether the operation leaves elements out at random."""
    return operation(node).endswith("dropout")


def is_in_place(node: fx.Node) -> bool:
    """Whether the operation writes into its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def writes_to_part(node: fx.Node) -> bool:
    """Whether the operation writes through a view into a tensor that others read, or into another one (`out=`)."""
    if "out" in node.kwargs:
        return True
    if not is_in_place(node):
        return False
    source = node.args[0]
    while source.op == "call_function" and _is_view(source) and source.all_input_nodes:
        source = source.all_input_nodes[0]
        if len(source.users) > 1:
            return True
    return False


def chosen_along(node: fx.Node) -> tuple[int, fx.Node | None]:
    """The dimension along which an operation chooses, and the tensor of places; None for several of them."""
    if operation(node) == "index_select":
        return node.args[1] % node.args[0].meta["val"].dim(), node.args[2]
    given = [(dim, index) for dim, index in enumerate(node.args[1]) if index is not None]
    return given[0] if len(given) == 1 else (0, None)


def only_choose(readers: Iterable[fx.Node]) -> bool:
    """Whether what reads a tensor does nothing but take places by it, all of them among as many."""
    ends = [end for reader in readers for end in _ends(reader)]
    if any(kind_of(end) is not OperationKind.CHOICE for end in ends):
        return False
    return len({end.args[0].meta["val"].shape[chosen_along(end)[0]] for end in ends}) == 1


def _ends(reader: fx.Node) -> Iterator[fx.Node]:
    """What computes with the values that an operation reads."""
    if has_same_values(reader):
        for user in reader.users:
            yield from _ends(user)
    elif not is_assertion(reader):
        yield reader


def has_same_values(node: fx.Node) -> bool:
    """Whether the operation gives the values that it reads, of another type perhaps."""
    return node.op == "call_function" and (kind_of(node) is OperationKind.CAST or operation(node) in _COPIES)


def _is_view(node: fx.Node) -> bool:
    """Whether an operation's output may be the memory of its first input."""
    return kind_of(node) in _MOVING or operation(node) in ("detach", "alias")
