"""The aten operators that exported programs may call: functions of their arguments alone, with
bounds checked by PyTorch. None draws at random, opens a file or reaches into storage.
"""

_SKIPPED = """
_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range
sym_constrain_range_for_size
"""
_RUN = """
_log_softmax _softmax _to_copy _unsafe_view abs add addmm alias amax amin any arange argmax
avg_pool1d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm cat celu chunk clamp
clamp_max clamp_min clone concat contiguous conv1d cos cumsum detach div dropout einsum elu
embedding eq erf exp expand expm1 eye flatten floor floor_divide fmod full full_like gather ge
gelu glu group_norm gt hardsigmoid hardswish hardtanh index_select instance_norm isfinite isinf
isnan layer_norm le leaky_relu lerp lift_fresh_copy linear log log1p log_softmax logical_and
logical_not logical_or logsigmoid logsumexp lt masked_fill matmul max maximum mean min minimum
mish mm mul mv nan_to_num narrow native_layer_norm ne neg new_full new_ones new_zeros norm
one_hot ones ones_like outer permute pow prelu prod reciprocal relu relu6 remainder repeat
reshape round rsqrt rsub scalar_tensor scaled_dot_product_attention select selu sigmoid sign
silu sin sinh slice softmax softplus softsign split split_with_sizes sqrt square squeeze stack
std sub sum sym_size t tan tanh threshold tile to topk transpose tril triu type_as unbind
unflatten unsqueeze var view where zeros zeros_like
"""

SKIPPED = frozenset(_SKIPPED.split())
"""They give nothing; what they assert of shapes holds for any batch."""

OPERATORS = SKIPPED | frozenset(_RUN.split())

PYTHON_OPERATORS = frozenset({"add", "floordiv", "getitem", "mul", "neg", "sub"})
"""On sizes, and to pick one of several results."""
