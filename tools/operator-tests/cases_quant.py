"""Quantised operators."""
import numpy as np

from testcase import C, Case, R, ctype, is_float, is_int, ops


@ops("QuantizeLinear")
def quantize(op):
    t = next(v for k, v in reversed(op.types.items()) if k in ("T2", "T3")) if op.since < 13 else op.types.get("T3", op.types.get("T2"))
    x_type, s_type = op.types["T1"], op.types["T2"] if "T3" in op.types and op.since >= 23 else ("float" if op.since < 19 else op.types["T1"])
    signed = not t.startswith("u")
    lo, hi = (-40, 40) if is_int(t) else (-9, 9)
    for shape, axis in [((3, 4), None), ((), None), ((0, 3), None), ((2, 3, 4), 1), ((2, 3, 4), 2), ((2, 3, 4), -1)]:
        if axis == -1 and op.since < 13 or axis and op.since < 13:
            continue
        a = {} if axis is None else dict(axis=axis)
        n = () if axis is None else (shape[axis],)
        scale = R(*n, lo=0.5, hi=2) if s_type != "float8e8m0" else C(np.full(n, 2.0))
        zp = R(*n, lo=0, hi=2) if is_int(t) else C(np.zeros(n))
        yield Case([R(*shape, lo=lo, hi=hi), scale, zp], a)
        if t == "uint8":
            yield Case([R(*shape, lo=lo, hi=hi), scale], a)
        if op.since >= 21:
            if is_int(t) or op.since >= 23:
                yield Case([R(*shape, lo=lo, hi=hi), scale], a | dict(output_dtype=ctype(t)))
        if op.since >= 19 and not is_int(t):
            yield Case([R(*shape, lo=-1000, hi=1000), scale, zp], a | dict(saturate=0))
    if op.since >= 21:
        for shape, axis, block in [((4, 6), 1, 3), ((4, 6), 0, 2), ((2, 6, 3), -2, 2), ((4, 7), 1, 3)]:
            s = list(shape)
            s[axis] = -(-s[axis] // block)
            scale = R(*s, lo=0.5, hi=2) if s_type != "float8e8m0" else C(np.full(s, 2.0))
            yield Case([R(*shape, lo=lo, hi=hi), scale, R(*s, lo=0, hi=2) if is_int(t) else C(np.zeros(s))], dict(axis=axis, block_size=block))
    if op.since >= 23:
        for p in ("float", "float16", "bfloat16", "double"):
            if p != "double":
                yield Case([R(3, 4, lo=lo, hi=hi), R(lo=0.5, hi=2) if s_type != "float8e8m0" else C(2.0), C(0)], dict(precision=ctype(p)))


@ops("DequantizeLinear")
def dequantize(op):
    t = op.types["T1"] if "T1" in op.types else op.types["T"]
    s_type = op.types.get("T2", "float")
    for shape, axis in [((3, 4), None), ((), None), ((0, 3), None), ((2, 3, 4), 1), ((2, 3, 4), 2), ((2, 3, 4), -1)]:
        if axis and op.since < 13:
            continue
        a = {} if axis is None else dict(axis=axis)
        n = () if axis is None else (shape[axis],)
        scale = R(*n, lo=0.5, hi=2) if s_type != "float8e8m0" else C(np.full(n, 2.0))
        x = R(*shape, lo=-99, hi=99) if is_int(t) else R(*shape)
        extra = {}
        if op.since >= 23 and s_type == "float8e8m0":
            extra = dict(output_dtype=1)
        if t != "int32":
            yield Case([x, scale, R(*n, lo=0, hi=3) if is_int(t) else C(np.zeros(n))], a | extra)
        yield Case([x, scale], a | extra)
        if op.since >= 23:
            for o in (1, 10, 16):
                yield Case([x, scale], a | dict(output_dtype=o))
    if op.since >= 21:
        for shape, axis, block in [((4, 6), 1, 3), ((4, 6), 0, 2), ((2, 6, 3), -2, 2), ((4, 7), 1, 3)]:
            s = list(shape)
            s[axis] = -(-s[axis] // block)
            scale = R(*s, lo=0.5, hi=2) if s_type != "float8e8m0" else C(np.full(s, 2.0))
            yield Case([R(*shape, lo=-99, hi=99), scale] + ([R(*s, lo=0, hi=2)] if is_int(t) and t != "int32" else []), dict(axis=axis, block_size=block) | (dict(output_dtype=1) if s_type == "float8e8m0" else {}))


@ops("DynamicQuantizeLinear")
def dynamic_quantize(op):
    for shape in [(3, 4), (), (5,), (1, 2, 3, 2, 1)]:
        yield Case([R(*shape)], outputs=3)
        yield Case([R(*shape, lo=1, hi=3)], outputs=3)
        yield Case([R(*shape, lo=-3, hi=-1)], outputs=3)
    yield Case([C(np.zeros(4), free=True)], outputs=3)


@ops("QLinearMatMul")
def qlinear_matmul(op):
    q = dict(lo=-9, hi=9)

    def s(*n):
        return R(*n, lo=0.01, hi=0.1)

    for a, b in [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((0, 4), (4, 5))]:
        yield Case([R(*a, **q), s(), C(1), R(*b, **q), s(), C(2), R(lo=0.2, hi=0.4), C(3)])
    yield Case([R(3, 4, **q), s(), C(1), R(4, 5, **q), s(5), R(5, lo=0, hi=3), R(lo=0.2, hi=0.4), C(3)])
    yield Case([R(3, 4, **q), s(3), R(3, lo=0, hi=3), R(4, 5, **q), s(5), R(5, lo=0, hi=3), R(3, lo=0.2, hi=0.4), R(3, lo=0, hi=3)])
    yield Case([R(2, 3, 4, **q), s(2, 3, 1), R(2, 3, 1, lo=0, hi=3), R(2, 4, 5, **q), s(2, 1, 5), R(2, 1, 5, lo=0, hi=3), R(2, 3, 1, lo=0.2, hi=0.4), R(2, 3, 1, lo=0, hi=3)])


@ops("QLinearConv")
def qlinear_conv(op):
    q = dict(lo=-9, hi=9)
    for x, w, attrs in [((1, 2, 5, 5), (3, 2, 3, 3), {}), ((2, 4, 6, 5), (4, 2, 3, 2), dict(group=2, strides=[2, 1], pads=[1, 0, 0, 1])), ((1, 3, 7), (2, 3, 3), dict(dilations=[2])),
                        ((1, 2, 7, 6), (2, 2, 3, 3), dict(auto_pad="SAME_UPPER", strides=[2, 2])), ((1, 3, 6, 6), (3, 1, 3, 3), dict(group=3, pads=[1] * 4)), ((1, 2, 4, 4, 4), (2, 2, 2, 2, 2), dict(pads=[1] * 6))]:
        rest = [R(lo=0.2, hi=0.4), C(3)]
        yield Case([R(*x, **q), C(0.05), C(2), R(*w, **q), C(0.03), C(1)] + rest, attrs)
        yield Case([R(*x, **q), C(0.05), C(2), R(*w, **q), R(w[0], lo=0.01, hi=0.05), C([0] * w[0])] + rest, attrs)
        yield Case([R(*x, **q), C(0.05), C(2), R(*w, **q), C(0.03), C(1)] + rest + [R(w[0], lo=-99, hi=99, type="int32")], attrs)
