"""Operators of ONNX Runtime (domain com.microsoft), which exporters and quantisers write; ONNX Runtime gives the answers."""
import numpy as np

from testcase import C, Case, R, ctype, ops

M = "com.microsoft"


def h(*shape, **kw):
    return R(*shape, type="float16", **kw)


def u8(*shape):
    return R(*shape, lo=0, hi=255, type="uint8")


def i8(*shape):
    # ONNX Runtime adds pairs of products in 16 bits on some machines: these do not saturate there.
    return R(*shape, lo=-60, hi=60, type="int8")


@ops("Gelu QuickGelu FastGelu", M)
def gelus(op):
    for shape in [(2, 3), (0, 3), (2, 3, 5)]:
        yield Case([R(*shape)])
    if op.name == "QuickGelu":
        yield Case([R(2, 3)], dict(alpha=0.5))
    if op.name == "FastGelu":
        yield Case([R(2, 3), R(3)])
        yield Case([R(2, 4, 3), R(3)])


@ops("BiasGelu BiasSplitGelu BiasAdd", M)
def bias(op):
    yield Case([R(2, 4, 6), R(6)])


@ops("Inverse", M)
def inverse(op):
    eye = np.eye(4) * 4
    yield Case([C((eye + np.arange(16).reshape(4, 4) / 7), free=True)])
    yield Case([C(np.stack([eye[:3, :3] + 0.5, eye[:3, :3] - 0.25]), free=True)])
    yield Case([C(np.array([[0.0, 1.0], [2.0, 0.5]]), free=True)])
    yield Case([C([[2.0]], free=True)])


@ops("Trilu", M)
def trilu(op):
    for t in ("float", "int64", "bool"):
        yield Case([R(2, 3, 4, type=t)])
        yield Case([R(2, 3, 4, type=t), C(1, type="int64")], dict(upper=0))


@ops("Unique", M)
def unique(op):
    yield Case([R(9, lo=0, hi=2)], outputs=3)
    yield Case([C([3, 1, 3, 2, 1], free=True)], outputs=3)


@ops("ExpandDims", M)
def expand_dims(op):
    yield Case([R(2, 3), C(1, type="int32")])
    yield Case([R(2, 3), C(-1, type="int32")])


@ops("GatherND", M)
def gather_nd(op):
    yield Case([R(3, 4), C([[0, 1], [2, 3]], type="int64", free=True)])
    yield Case([R(3, 4), C([[2], [0]], type="int64", free=True)])


@ops("GridSample", M)
def grid_sample(op):
    for mode in ("bilinear", "nearest", "bicubic"):
        for pad in ("zeros", "border", "reflection"):
            yield Case([R(1, 2, 5, 4), R(1, 3, 6, 2, lo=-1.2, hi=1.2)], dict(mode=mode, padding_mode=pad, align_corners=1))


@ops("Pad", M)
def pad(op):
    for mode in ("constant", "reflect", "edge"):
        yield Case([R(3, 4), C([1, 0, 1, 2], type="int64")] + ([C(1.5)] if mode == "constant" else []), dict(mode=mode))


@ops("NGramRepeatBlock", M)
def ngram(op):
    ids = np.array([[1, 2, 3, 1, 2], [4, 4, 4, 4, 4], [0, 1, 0, 1, 0]])
    for n in (2, 3):
        yield Case([C(ids, type="int64", free=True), R(3, 6)], dict(ngram_size=n))


@ops("CropAndResize", M)
def crop_and_resize(op):
    rois = np.array([[0, 0, 1, 1], [0.2, 0.1, 0.7, 0.8], [-0.2, 0, 1.3, 1]])
    for mode in ("bilinear", "nearest"):
        yield Case([R(2, 3, 5, 6), C(rois, free=True), C([0, 1, 1], type="int32", free=True), C([4, 3], type="int32")], dict(mode=mode, extrapolation_value=0.5))


@ops("FusedConv", M)
def fused_conv(op):
    for act, params in [("Relu", None), ("LeakyRelu", [0.2]), ("Sigmoid", None), ("Tanh", None), ("Clip", [-0.5, 0.5]), ("HardSigmoid", [0.2, 0.5])]:
        a = dict(activation=act, pads=[1, 1, 1, 1]) | ({} if params is None else dict(activation_params=[float(p) for p in params]))
        yield Case([R(1, 2, 5, 5), R(3, 2, 3, 3)], a)
        yield Case([R(1, 2, 5, 5), R(3, 2, 3, 3), R(3)], a)
        yield Case([R(1, 2, 5, 5), R(3, 2, 3, 3), R(3), R(1, 3, 5, 5)], a)


@ops("FusedGemm", M)
def fused_gemm(op):
    for act in ("Relu", "Sigmoid", "Tanh", "LeakyRelu"):
        yield Case([R(3, 4), R(4, 5), R(5)], dict(activation=act) | (dict(activation_alpha=0.2) if act == "LeakyRelu" else {}))
        yield Case([R(4, 3), R(5, 4), R(3, 5)], dict(activation=act, transA=1, transB=1, alpha=0.5, beta=2.0))


@ops("FusedMatMul TransposeMatMul", M)
def fused_matmul(op):
    for a in ({}, dict(alpha=0.5), dict(transA=1), dict(transB=1), dict(transA=1, transB=1, alpha=2.0)):
        for lead in ((), (2,), (2, 3)):
            x, y = ((4, 3) if a.get("transA") else (3, 4)), ((5, 4) if a.get("transB") else (4, 5))
            yield Case([R(*lead, *x), R(*lead, *y)], a)
    if op.name == "FusedMatMul":
        yield Case([R(3, 2, 4), R(2, 4, 5)], dict(transBatchA=1))
        yield Case([R(2, 3, 4), R(4, 2, 5)], dict(transBatchB=1))
        yield Case([R(4, 2, 3), R(4, 2, 5)], dict(transBatchA=1, transBatchB=1, transA=1))
        yield Case([R(4), R(4, 5)])


@ops("FusedMatMulActivation", M)
def fused_matmul_activation(op):
    for act in ("Relu", "Tanh", "Sigmoid"):
        yield Case([R(3, 4), R(4, 5)], dict(activation=act))


@ops("GemmFastGelu", M)
def gemm_fast_gelu(op):
    yield Case([R(2, 3, 4), R(4, 5)])
    yield Case([R(2, 3, 4), R(4, 5), R(5)])


@ops("SkipLayerNormalization", M)
def skip_layer_norm(op):
    x = [R(2, 3, 8), R(2, 3, 8), R(8)]
    yield Case(x)
    yield Case(x + [R(8)])
    yield Case(x + [R(8), R(8)], dict(epsilon=0.1), outputs=[True, False, False, True])
    yield Case([R(2, 3, 8), R(3, 8), R(8), R(8)])
    yield Case([R(2, 3, 8), R(1, 3, 8), R(8), R(8)])
    yield Case([R(6, 8), R(6, 8), R(8), R(8)])


@ops("SkipSimplifiedLayerNormalization", M)
def skip_simplified(op):
    x = [R(2, 3, 8), R(2, 3, 8), R(8)]
    yield Case(x)
    yield Case(x + [R(8)], outputs=[True, False, False, True])


@ops("EmbedLayerNormalization", M)
def embed(op):
    ids, seg = R(2, 4, lo=0, hi=8, type="int32"), R(2, 4, lo=0, hi=1, type="int32")
    tables = [R(9, 6), R(7, 6), R(2, 6), R(6), R(6)]
    yield Case([ids, seg] + tables, outputs=2)
    yield Case([ids, None, tables[0], tables[1], None, R(6), R(6)], outputs=2)
    yield Case([ids, seg] + tables + [C([[1, 1, 1, 0], [1, 1, 0, 0]], type="int32", free=True)], outputs=2)
    yield Case([ids, seg] + tables + [None, C([[0, 2, 1, 3], [3, 2, 1, 0]], type="int32", free=True)], outputs=2)
    yield Case([ids, seg] + tables + [C([[1, 1, 1, 0], [1, 1, 0, 0]], type="int32", free=True)], dict(epsilon=0.1), outputs=3)


@ops("BiasSoftmax", M)
def bias_softmax(op):
    yield Case([R(2, 3, 4, 5), R(2, 1, 1, 5)], dict(axis=3, is_inner_broadcast=0))
    yield Case([R(4, 3, 5), R(1, 3, 5)], dict(axis=2, is_inner_broadcast=1))


@ops("GroupNorm SkipGroupNorm", M)
def group_norm(op):
    for act in (0, 1):
        yield Case([R(2, 4, 4, 8), R(8), R(8)] + ([R(2, 4, 4, 8)] if op.name[0] == "S" else []), dict(groups=4, activation=act, channels_last=1))


@ops("NhwcMaxPool", M)
def nhwc_max_pool(op):
    for t in (u8, i8):
        yield Case([t(1, 6, 6, 3)], dict(kernel_shape=[2, 2], strides=[2, 2]))
        yield Case([t(1, 6, 6, 3)], dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        yield Case([t(1, 7, 6, 3)], dict(kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2], dilations=[1, 1]))


@ops("NhwcConv NhwcFusedConv", M)
def nhwc_conv(op):
    t = "float" if op.name == "NhwcConv" else "float16"
    yield Case([R(1, 5, 6, 2, type=t), R(3, 3, 3, 2, type=t) if op.name == "NhwcConv" else R(3, 2, 3, 3, type=t), R(3, type=t)], dict(pads=[1, 1, 1, 1]) | ({} if op.name == "NhwcConv" else dict(activation="Relu")))


@ops("ComplexMul ComplexMulConj", M)
def complex_mul(op):
    yield Case([R(3, 4, 2), R(3, 4, 2)])


@ops("CDist", M)
def cdist(op):
    for metric in ("euclidean", "sqeuclidean"):
        yield Case([R(4, 6), R(5, 6)], dict(metric=metric), atol=1e-4)


@ops("IsAllFinite", M)
def finite(op):
    yield Case([R(3), R(2, 2)])
    yield Case([C([1, np.inf], free=True), R(2)])


@ops("Range", M)
def ranges(op):
    yield Case([C(0.0), C(5.0), C(0.5)])
    yield Case([C(1.0), C(5.0)])


@ops("RotaryEmbedding", M)
def rotary(op):
    b, n, s, d = 2, 3, 4, 8
    for x, extra in ((R(b, s, n * d), {}), (R(b, n, s, d), {})):
        for inter in (0, 1):
            for scale in ({}, dict(scale=0.5)):
                a = dict(interleaved=inter) | extra
                yield Case([x, R(b, s, lo=0, hi=9, type="int64"), R(10, d // 2, lo=-1, hi=1), R(10, d // 2, lo=-1, hi=1)], a)
                yield Case([x, C([2], type="int64", free=True), R(10, d // 2, lo=-1, hi=1), R(10, d // 2, lo=-1, hi=1)], a)
    yield Case([R(b, s, n * d), C([2], type="int64", free=True), R(10, 2, lo=-1, hi=1), R(10, 2, lo=-1, hi=1)], dict(rotary_embedding_dim=4, num_heads=n))
    yield Case([R(b, s, n * d), C([[0, 1, 2, 3], [1, 2, 3, 4]], type="int64", free=True), R(10, 2, lo=-1, hi=1), R(10, 2, lo=-1, hi=1)], dict(rotary_embedding_dim=4, num_heads=n, interleaved=1))


@ops("Attention", M)
def attention(op):
    b, s, d, n = 2, 4, 8, 2
    x = [R(b, s, d), R(d, 3 * d), R(3 * d)]
    for a in ({}, dict(unidirectional=1), dict(scale=0.3), dict(mask_filter_value=-1000.0)):
        a = dict(num_heads=n) | a
        yield Case(x, a)
        yield Case(x[:2], a)
        yield Case(x + [C([[1, 1, 1, 0], [1, 1, 1, 1]], type="int32", free=True)], a)
        yield Case(x + [C([3, 4], type="int32", free=True)], a)
        yield Case(x + [C([3, 4, 1, 0], type="int32", free=True)], a)
        yield Case(x + [R(b, s, s, lo=0, hi=1, type="int32")], a)
        yield Case(x + [None, R(2, b, n, 3, d // n)], a, outputs=2)
        yield Case(x + [R(b, s, s + 3, lo=0, hi=1, type="int32"), R(2, b, n, 3, d // n)], a, outputs=2)
        yield Case(x + [C([[1, 1, 1, 0] + [1] * 3, [1] * 7], type="int32", free=True), R(2, b, n, 3, d // n)], a, outputs=2)
        yield Case(x + [None, None, R(b, n, s, s)], a)
        yield Case(x + [None, None, R(1, n, s, s)], a)
        yield Case(x + [None, None, R(1, 1, s, s)], a)
    yield Case([R(b, s, d), R(d, 8 + 8 + 12), R(28)], dict(num_heads=n, qkv_hidden_sizes=[8, 8, 12]))
    yield Case(x, dict(num_heads=n, do_rotary=1))
    shared = R(2, b, n, 9, d // n)
    yield Case(x + [None, shared, None, C([2], type="int32", free=True)], dict(num_heads=n, past_present_share_buffer=1), outputs=2)


@ops("MultiHeadAttention", M)
def mha(op):
    b, s, t, n, d = 2, 3, 5, 2, 4
    q, k, v = R(b, s, n * d), R(b, t, n * d), R(b, t, n * d)
    for a in ({}, dict(unidirectional=1), dict(scale=0.3), dict(mask_filter_value=-1000.0)):
        a = dict(num_heads=n) | a
        yield Case([q, k, v], a)
        yield Case([q, k, v, R(3 * n * d)], a)
        yield Case([q, k, v, None, C([3, 5], type="int32", free=True)], a)
        yield Case([q, k, v, None, C([[1, 1, 1, 0, 0], [1] * 5], type="int32", free=True)], a)
        yield Case([q, k, v, None, R(b, s, t, lo=0, hi=1, type="int32")], a)
        yield Case([q, k, v, None, None, R(b, n, s, t)], a)
        yield Case([q, k, v, None, None, R(1, n, s, t)], a)
        yield Case([q, k, v, None, None, R(1, 1, s, t)], a)
        yield Case([q, R(b, s, n * d), R(b, s, n * d), None, None, None, R(b, n, 2, d), R(b, n, 2, d)], a, outputs=3)
        yield Case([q, R(b, s, n * d), R(b, s, n * d), R(3 * n * d), None, R(b, n, s, s + 2), R(b, n, 2, d), R(b, n, 2, d)], a, outputs=3)
        yield Case([q, R(b, n, t, d), R(b, n, t, d)], a)
        yield Case([R(b, s, n, 3, d)], a)
        yield Case([q, R(b, t, n, 2, d)], a)
        yield Case([q, k, v], a, outputs=[True, False, False, True])
        yield Case([q, k, R(b, t, n * 6)], a)
        yield Case([q, k, v], a, outputs=3)


@ops("DecoderMaskedMultiHeadAttention", M)
def decoder_mha(op):
    b, n, d, most = 2, 2, 4, 6
    q = R(b, 1, n * d)
    yield Case([q, q, q, None, None, R(b, n, most, d), R(b, n, most, d), C([3], type="int32", free=True)], dict(num_heads=n, past_present_share_buffer=1), outputs=3)


@ops("GroupQueryAttention", M)
def gqa(op):
    b, n, g, d, most = 2, 4, 2, 16, 10
    for s, past in ((3, 0), (1, 4), (2, 3)):
        for packed in (False, True):
            for a in ({}, dict(do_rotary=1), dict(do_rotary=1, rotary_interleaved=1), dict(scale=0.3), dict(local_window_size=2), dict(softcap=3.0), dict(smooth_softmax=1)):
                total = s + past
                for lens in ([total] * b, [total - 1, total]):
                    if lens[0] != lens[1] and s != 1:
                        continue
                    if lens[0] <= 0:
                        continue
                    ends = C([n - 1 for n in lens], type="int32", free=True)
                    x = [R(b, s, (n + 2 * g) * d), None, None] if packed else [R(b, s, n * d), R(b, s, g * d), R(b, s, g * d)]
                    kv = [None, None] if not past else [R(b, g, past, d), R(b, g, past, d)]
                    rot = [R(most, d // 2, lo=-1, hi=1), R(most, d // 2, lo=-1, hi=1)] if a.get("do_rotary") else []
                    yield Case(x + kv + [ends, C(total, type="int32")] + rot, dict(num_heads=n, kv_num_heads=g) | a, outputs=3)
    x = [R(b, 3, n * d), R(b, 3, g * d), R(b, 3, g * d)]
    ends, total = C([1, 2], type="int32", free=True), C(3, type="int32")
    yield Case(x + [None, None, ends, total], dict(num_heads=n, kv_num_heads=g), outputs=3)
    yield Case(x + [None, None, C([2, 2], type="int32", free=True), total, None, None, None, R(b, 1, 3, 3)], dict(num_heads=n, kv_num_heads=g), outputs=3)
    yield Case(x + [None, None, C([2, 2], type="int32", free=True), total, None, None, None, None, R(n)], dict(num_heads=n, kv_num_heads=g), outputs=3)
    yield Case(x + [None, None, C([2, 2], type="int32", free=True), total, R(9, 8, lo=-1, hi=1), R(9, 8, lo=-1, hi=1), C([[0, 1, 2], [0, 1, 2]], type="int64", free=True)], dict(num_heads=n, kv_num_heads=g, do_rotary=1), outputs=3)


@ops("DynamicQuantizeLSTM", M)
def dq_lstm(op):
    t, b, i, hid = 3, 2, 4, 5
    for direction in ("forward", "reverse", "bidirectional"):
        d = 2 if direction == "bidirectional" else 1
        for q in ("int8", "uint8"):
            w, r = C(R(d, i, 4 * hid, lo=-60, hi=60).make(q, op.rng), type=q), C(R(d, hid, 4 * hid, lo=-60, hi=60).make(q, op.rng), type=q)
            for n in ((d,), (d, 4 * hid)):
                s, z = C(np.full(n, 0.01)), C(np.zeros(n), type=q)
                yield Case([R(t, b, i), w, r, R(d, 8 * hid), None, R(d, b, hid), R(d, b, hid), None, s, z, s, z], dict(hidden_size=hid, direction=direction), outputs=3, rtol=1e-3, atol=2e-2)


@ops("DynamicQuantizeMatMul", M)
def dq_matmul(op):
    for q in ("int8", "uint8"):
        b = R(4, 5, lo=-60, hi=60, type=q)
        yield Case([R(3, 4), b, C(0.02)], atol=1e-3)
        yield Case([R(3, 4), b, C(0.02), C(2, type=q)], atol=1e-3)
        yield Case([R(2, 3, 4), b, C([0.02] * 5), C([2] * 5, type=q), R(5)], atol=1e-3)


@ops("MatMulIntegerToFloat", M)
def matmul_to_float(op):
    for ta in ("uint8", "int8"):
        for tb in ("uint8", "int8"):
            a, b = R(3, 4, lo=-99, hi=99, type=ta), R(4, 5, lo=-99, hi=99, type=tb)
            yield Case([a, b, C(0.1), C(0.02)])
            yield Case([a, b, C(0.1), C(0.02), C(2, type=ta), C(3, type=tb)])
            yield Case([a, b, C(0.1), C([0.02] * 5), C(2, type=ta), C([3] * 5, type=tb), R(5)])


@ops("MatMulInteger16", M)
def matmul16(op):
    yield Case([R(3, 4, lo=-99, hi=99, type="int16"), R(4, 5, lo=-99, hi=99, type="int16")])


@ops("MatMulNBits", M)
def matmul_nbits(op):
    n, k = 5, 40
    for bits in (2, 4, 8):
        for block in (16, 32):
            blocks = -(-k // block)
            b = R(n, blocks, block * bits // 8, lo=0, hi=255, type="uint8")
            scale = R(n * blocks, lo=0.1, hi=1)
            zp = -(-blocks * bits // 8)
            a = dict(K=k, N=n, bits=bits, block_size=block)
            yield Case([R(3, k), b, scale], a, rtol=1e-3, atol=1e-3)
            yield Case([R(2, 3, k), b, R(n, blocks, lo=0.1, hi=1)], a, rtol=1e-3, atol=1e-3)
            yield Case([R(3, k), b, scale, R(n * zp, lo=0, hi=255, type="uint8")], a, rtol=1e-3, atol=1e-3)
            yield Case([R(3, k), b, scale, R(n, zp, lo=0, hi=255, type="uint8")], a, rtol=1e-3, atol=1e-3)
            yield Case([R(3, k), b, scale, R(n * blocks, lo=0, hi=7)], a, rtol=1e-3, atol=1e-3)
            yield Case([R(3, k), b, scale, None, None, R(n)], a, rtol=1e-3, atol=1e-3)
            if bits != 4:
                continue
            yield Case([R(3, k), b, scale, None, C(np.arange(blocks * block) // block % blocks, type="int32")], a, rtol=1e-3, atol=1e-3)
            yield Case([R(3, k), b, scale, None, C((np.arange(blocks * block) * 7 // 3) % blocks, type="int32")], a, rtol=1e-3, atol=1e-3)


@ops("MoE", M)
def mixture_of_experts(op):
    e, h, i = 4, 8, 6
    for dims in ((5,), (2, 3)):
        router = R(int(np.prod(dims)), e)
        for k in (1, 2, 4):
            yield Case([R(*dims, h), router, R(e, i, h), R(e, i), R(e, h, i), R(e, h)], dict(k=k))
            yield Case([R(*dims, h), router, R(e, i, h), None, R(e, h, i)], dict(k=k, normalize_routing_weights=1))
    for activation in ("gelu", "silu", "identity"):
        yield Case([R(5, h), R(5, e), R(e, i, h), R(e, i), R(e, h, i), R(e, h)], dict(k=2, activation_type=activation))
    for more in (dict(), dict(activation_alpha=1.702, activation_beta=1.0, swiglu_limit=0.5)):
        yield Case([R(5, h), R(5, e), R(e, 2 * i, h), R(e, 2 * i), R(e, h, i), R(e, h)], dict(k=2, activation_type="swiglu", swiglu_fusion=1, **more))


@ops("QMoE", M)
def quantised_mixture_of_experts(op):
    e, h, i, n = 4, 32, 32, 5
    byte = lambda *shape: R(*shape, lo=0, hi=255, type="uint8")
    scale = lambda *shape: R(*shape, lo=0.01, hi=0.1)
    for bits in (2, 4, 8):
        for block in (0, 16):
            blocks = [h // block] if block else []
            zeros = [byte(e, h, max(1, 2 * bits // 8)) if block else byte(e, h * bits // 8)] * 2
            a = dict(k=2, expert_weight_bits=bits, **(dict(block_size=block) if block else {}))
            tolerance = dict(rtol=1e-2, atol=2) if bits == 8 and block else dict(rtol=1e-3, atol=1e-3)
            weights = [byte(e, i, h * bits // 8), scale(e, i, *blocks), R(e, i), byte(e, h, i * bits // 8), scale(e, h, *blocks), R(e, h)]
            yield Case([R(n, h), R(n, e), *weights], a, **tolerance)
            yield Case([R(n, h), R(n, e), *weights, None, None, None, *zeros], a, **tolerance)
    weights = [byte(e, i, h // 2), scale(e, i), None, byte(e, h, i // 2), scale(e, h)]
    router = [None] * 7 + [R(n, e, lo=0.1, hi=1)]
    for normalise in (0, 1):
        yield Case([R(n, h), R(n, e), *weights, *router], dict(k=2, normalize_routing_weights=normalise), rtol=1e-3, atol=1e-3)
    fused = [byte(e, 2 * i, h // 2), scale(e, 2 * i), R(e, 2 * i), byte(e, h, i // 2), scale(e, h), R(e, h)]
    yield Case([R(n, h), R(n, e), *fused], dict(k=2, activation_type="swiglu", swiglu_fusion=1, swiglu_limit=2.0), rtol=1e-3, atol=1e-3)


@ops("MatMulBnb4", M)
def matmul_bnb4(op):
    n, k = 6, 32
    for quant_type in (0, 1):
        yield Case([R(3, k), R(n * k // 2, lo=0, hi=255, type="uint8"), R(n * k // 16, lo=0.1, hi=1)], dict(K=k, N=n, block_size=16, quant_type=quant_type), atol=1e-3)


@ops("MulInteger", M)
def mul_integer(op):
    yield Case([u8(3, 4), C(3, type="uint8"), u8(4), C(2, type="uint8")])


@ops("ReduceSumInteger", M)
def reduce_sum_integer(op):
    yield Case([u8(3, 4)], dict(axes=[1], keepdims=1))


def scale_zero(t, s=0.05, z=3):
    return [C(s), C(z, type=t)]


@ops("QLinearAdd QLinearMul", M)
def qlinear_binary(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        for a, b in [((3, 4), (3, 4)), ((3, 4), (4,)), ((), (3, 4)), ((2, 1, 4), (3, 1)), ((5, 33), (5, 33))]:
            yield Case([x(*a), *scale_zero(t), x(*b), *scale_zero(t, 0.03, 7), *scale_zero(t, 0.1, 5)], atol=1.0)
        yield Case([x(3, 4), C(0.05), None, x(3, 4), C(0.03), None, C(0.1)], atol=1.0)


@ops("QLinearSigmoid QLinearLeakyRelu", M)
def qlinear_unary(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        yield Case([x(3, 50), *scale_zero(t), *scale_zero(t, 0.01, 0)], dict(alpha=0.2) if op.name[-1] == "u" else {}, atol=1.0)
        yield Case([x(3, 50), C(0.05), None, C(0.02)], dict(alpha=0.2) if op.name[-1] == "u" else {}, atol=1.0)


@ops("QLinearGlobalAveragePool", M)
def qlinear_global(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        yield Case([x(2, 3, 4, 5), *scale_zero(t), *scale_zero(t, 0.03, 1)], atol=1.0)
        yield Case([x(2, 4, 5, 3), *scale_zero(t), *scale_zero(t, 0.03, 1)], dict(channels_last=1), atol=1.0)


@ops("QLinearAveragePool", M)
def qlinear_average(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        for a in (dict(kernel_shape=[2, 2]), dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]), dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), dict(kernel_shape=[3, 2], ceil_mode=1, strides=[2, 2])):
            yield Case([x(1, 2, 6, 7), *scale_zero(t), *scale_zero(t, 0.04, 1)], a, atol=1.0)
        yield Case([x(1, 6, 7, 2), *scale_zero(t), *scale_zero(t, 0.04, 1)], dict(kernel_shape=[2, 2], channels_last=1), atol=1.0)


@ops("QLinearConcat", M)
def qlinear_concat(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        yield Case([*scale_zero(t), x(2, 3), *scale_zero(t, 0.03, 1), x(2, 4), *scale_zero(t, 0.07, 2)], dict(axis=1), atol=1.0)
        yield Case([*scale_zero(t), x(2, 3), *scale_zero(t, 0.03, 1), x(1, 3), *scale_zero(t, 0.07, 2), x(3, 3), *scale_zero(t)], dict(axis=-2), atol=1.0)


@ops("QLinearSoftmax", M)
def qlinear_softmax(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        for opset in (12, 13):
            yield Case([x(2, 3, 5), *scale_zero(t), C(1 / 256), C(0 if t == "uint8" else -128, type=t)], dict(axis=1, opset=opset), atol=1.0)


@ops("QLinearWhere", M)
def qlinear_where(op):
    for t, x in (("uint8", u8), ("int8", i8)):
        yield Case([R(3, 4, type="bool"), x(3, 4), *scale_zero(t), x(4), *scale_zero(t, 0.03, 1), *scale_zero(t, 0.07, 2)], atol=1.0)


@ops("QLinearReduceMean", M)
def qlinear_reduce(op):
    yield Case([u8(2, 3, 4), *scale_zero("uint8"), *scale_zero("uint8", 0.03, 1)], dict(axes=[1], keepdims=1), atol=1.0)


@ops("QLinearConv", M)
def qlinear_conv(op):
    for last in (0, 1):
        x = u8(1, 6, 5, 2) if last else u8(1, 2, 6, 5)
        w = R(3, 2, 3, 3, lo=-60, hi=60, type="int8")
        yield Case([x, C(0.05), C(99, type="uint8"), w, C(0.01), C(0, type="int8"), C(0.2), C(99, type="uint8"), R(3, lo=-99, hi=99, type="int32")], dict(channels_last=last, pads=[1, 1, 1, 1]), atol=1.0)
        yield Case([x, C(0.05), C(99, type="uint8"), w, C([0.01, 0.02, 0.03]), C([0, 0, 0], type="int8"), C(0.2), C(99, type="uint8")], dict(channels_last=last, strides=[2, 2]), atol=1.0)


@ops("QGemm", M)
def qgemm(op):
    for ta in (0, 1):
        for tb in (0, 1):
            a, b = u8(*((4, 3) if ta else (3, 4))), R(*((5, 4) if tb else (4, 5)), lo=-60, hi=60, type="int8")
            at = dict(transA=ta, transB=tb, alpha=0.5)
            yield Case([a, *scale_zero("uint8"), b, *scale_zero("int8", 0.02, 0), R(5, lo=-99, hi=99, type="int32"), *scale_zero("uint8", 0.3, 9)], at, atol=1.0)
            yield Case([a, *scale_zero("uint8"), b, C([0.02] * 5), C([0] * 5, type="int8"), R(3, 5, lo=-99, hi=99, type="int32")], at)
            yield Case([a, *scale_zero("uint8"), b, *scale_zero("int8", 0.02, 0), None], at)


@ops("QAttention", M)
def qattention(op):
    b, s, d, n = 2, 4, 8, 2
    for w in (i8, u8):
        t = "int8" if w is i8 else "uint8"
        x = [u8(b, s, d), w(d, 3 * d), R(3 * d), C(0.02), C(0.01)]
        z = [C(99, type="uint8"), C(3, type=t)]
        for a in ({}, dict(unidirectional=1)):
            a = dict(num_heads=n) | a
            yield Case(x + [None] + z, a, atol=1e-3)
            yield Case(x + [C([3, 4], type="int32", free=True)] + z, a, atol=1e-3)
            yield Case(x + [C([[1, 1, 1, 0], [1] * 4], type="int32", free=True)] + z, a, atol=1e-3)
            yield Case(x + [None] + z + [R(2, b, n, 3, d // n)], a, outputs=2, atol=1e-3)


@ops("QEmbedLayerNormalization", M)
def qembed(op):
    ids, seg = R(2, 4, lo=0, hi=8, type="int32"), R(2, 4, lo=0, hi=1, type="int32")
    s, z = [C(0.02)] * 5, [C(99, type="uint8")] * 5
    yield Case([ids, seg, u8(9, 6), u8(7, 6), u8(2, 6), u8(6), u8(6), None] + s + z, outputs=2)
    yield Case([ids, seg, u8(9, 6), u8(7, 6), u8(2, 6), u8(6), u8(6), C([[1, 1, 1, 0], [1, 1, 0, 0]], type="int32", free=True)] + s + z, outputs=2)


@ops("QuantizeLinear", M)
def quantize(op):
    for t in ("uint8", "int8", "uint16", "int16", "uint4", "int4"):
        yield Case([R(3, 4, lo=-9, hi=9), C(0.1), C(3, type=t)])
        yield Case([R(3, 4, lo=-9, hi=9), R(4, lo=0.1, hi=1), C([3] * 4, type=t)], dict(axis=1))


@ops("DequantizeLinear", M)
def dequantize(op):
    for t in ("uint8", "int8", "uint16", "int16", "int32", "uint4", "int4"):
        yield Case([R(3, 4, lo=-9, hi=9, type=t), C(0.1)] + ([] if t == "int32" else [C(3, type=t)]))
        yield Case([R(3, 4, lo=-9, hi=9, type=t), R(4, lo=0.1, hi=1)] + ([] if t == "int32" else [C([3] * 4, type=t)]), dict(axis=1))


@ops("GatherBlockQuantized", M)
def gather_block(op):
    for t in ("uint4", "int4"):
        for gather_axis, quant_axis in ((0, 1), (0, 2), (1, 2), (2, 2) if False else (0, 2)):
            yield Case([R(3, 4, 32, lo=-8, hi=15, type=t), C([[1, 0], [2, 1]], type="int64", free=True), R(3, 4, 2, lo=0.1, hi=1) if quant_axis == 2 else R(3, 1, 32, lo=0.1, hi=1)] +
                       ([R(3, 4, 2, lo=0, hi=7, type=t)] if quant_axis == 2 else []), dict(gather_axis=gather_axis, quantize_axis=quant_axis, block_size=16))
    yield Case([u8(5, 16), C([1, 4], type="int64", free=True), R(5, 2, lo=0.1, hi=1)], dict(gather_axis=0, quantize_axis=1, block_size=16, bits=4))
    yield Case([u8(5, 32), C([1, 4], type="int64", free=True), R(5, 2, lo=0.1, hi=1)], dict(gather_axis=0, quantize_axis=1, block_size=16, bits=8))
