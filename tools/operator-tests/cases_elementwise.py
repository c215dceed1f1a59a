"""Element-wise operators."""
import numpy as np

from testcase import FLOATS, PAIRS, SHAPES, C, Case, R, Special, bounds, ctype, is_float, is_int, ops

DOMAIN = dict(Acos=(-1, 1), Asin=(-1, 1), Acosh=(1, 9), Atanh=(-0.9, 0.9), Log=(0.1, 9), Sqrt=(0, 9), Reciprocal=(0.5, 3))
NO_NAN = ("Sign", "Relu", "HardSigmoid", "HardSwish", "Selu", "Elu", "Celu", "ThresholdedRelu", "Shrink", "Mish", "Gelu", "Swish", "Softplus", "Softsign", "LeakyRelu")


@ops("Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor HardSwish Log Mish Neg Not Reciprocal Relu Round Sigmoid Sign Sin Sinh Softplus "
     "Softsign Sqrt Tan Tanh BitwiseNot IsNaN Identity Size NonZero")
def unary(op):
    lo, hi = DOMAIN.get(op.name, (-3, 3))
    for shape in SHAPES:
        yield Case([R(*shape, lo=lo, hi=hi)])
        if shape == ():
            yield Case([Special(nan=op.name not in NO_NAN)])


@ops("IsInf")
def is_inf(op):
    for attrs in ({}, dict(detect_negative=0), dict(detect_positive=0), dict(detect_positive=0, detect_negative=0)):
        yield Case([Special()], attrs)
    yield Case([R()])


def with_attributes(op, choices):
    for shape, attrs in zip(SHAPES + SHAPES, choices + choices):
        yield Case([R(*shape)], attrs)
    yield Case([Special(nan=False)], choices[-1])


@ops("Celu")
def celu(op):
    return with_attributes(op, [{}, dict(alpha=0.5), dict(alpha=2.0)])


@ops("Elu LeakyRelu")
def elu(op):
    return with_attributes(op, [{}, dict(alpha=0.25), dict(alpha=-1.0), dict(alpha=0.0)])


@ops("ThresholdedRelu")
def thresholded(op):
    return with_attributes(op, [{}, dict(alpha=0.25), dict(alpha=-1.0)])


@ops("HardSigmoid")
def hard_sigmoid(op):
    return with_attributes(op, [{}, dict(alpha=0.5, beta=0.25), dict(beta=-0.5)])


@ops("Selu")
def selu(op):
    return with_attributes(op, [{}, dict(alpha=2.0, gamma=0.5)])


@ops("Shrink")
def shrink(op):
    return with_attributes(op, [{}, dict(lambd=1.5), dict(lambd=1.0, bias=1.0), dict(lambd=1.5, bias=-0.5)])


@ops("Gelu")
def gelu(op):
    return with_attributes(op, [{}, dict(approximate="tanh"), dict(approximate="none")])


@ops("Swish")
def swish(op):
    return with_attributes(op, [{}, dict(alpha=0.5), dict(alpha=-1.0)])


@ops("SwiGLU")
def swiglu(op):
    for shape, attrs in zip(SHAPES, [{}, dict(alpha=0.5), dict(alpha=1.75)] * 3):
        yield Case([R(*shape), R(*shape)], attrs)


@ops("Add Sub Mul And Or Xor BitwiseAnd BitwiseOr BitwiseXor Equal Less Greater LessOrEqual GreaterOrEqual")
def binary(op):
    for a, b in PAIRS:
        yield Case([R(*a, lo=0 if op.name == "Sub" and op.types["T"].startswith("u") else -3), R(*b)])
        if a == (2, 3) and b == (3,):
            yield Case([Special(), Special()])
    if op.since >= 7:
        s = Special().make(op.types["T"], op.rng)
        yield Case([C(s[:, None], free=True), C(s, free=True)])


@ops("Div")
def divide(op):
    for a, b in PAIRS:
        yield Case([R(*a, lo=-99, hi=99), R(*b, lo=1, hi=7)])
    if not op.types["T"].startswith("u"):
        yield Case([R(4, 5, lo=-99, hi=99), R(5, lo=-7, hi=-1)])


@ops("Mod")
def modulo(op):
    t = op.types["T"]
    for fmod in ((1,) if is_float(t) and op.opset < 28 else (0, 1)):
        for a, b in PAIRS:
            yield Case([R(*a, lo=-99, hi=99), R(*b, lo=1, hi=7)], dict(fmod=fmod))
        if not t.startswith("u"):
            yield Case([R(4, 5, lo=-99, hi=99), R(5, lo=-7, hi=-1)], dict(fmod=fmod))
        if is_float(t):
            x = Special().make(t, op.rng)
            yield Case([C(x[:, None], free=True), C(x, free=True)], dict(fmod=fmod))


@ops("Pow")
def power(op):
    for a, b in PAIRS:
        yield Case([R(*a, lo=0, hi=3), R(*b, lo=0, hi=3)])
    yield Case([R(3, 4, lo=-3, hi=3), C([0, 1, 2, 3])])
    if is_float(op.types["T"]):
        yield Case([R(3, 4, lo=1, hi=3), C([-2, -1, 2, 0.5])], types={"T1": FLOATS})


@ops("BitShift")
def shift(op):
    for direction in ("LEFT", "RIGHT"):
        for a, b in PAIRS:
            yield Case([R(*a, lo=0, hi=99), R(*b, lo=0, hi=6)], dict(direction=direction))
        if not op.types["T"].startswith("u"):
            yield Case([R(4, 5, lo=-99, hi=99), R(4, 5, lo=0, hi=6)], dict(direction=direction))


@ops("Max Min Sum Mean")
def many(op):
    for a, b in PAIRS:
        yield Case([R(*a), R(*b)])
    yield Case([R(2, 3)])
    yield Case([R(3), R(2, 1), R(4, 1, 1), R()])
    if op.name in ("Max", "Min"):
        yield Case([Special(), Special()])
        x = Special(nan=False).make(op.types["T"], op.rng)
        yield Case([C(x[:, None], free=True), C(x, free=True)])


@ops("PRelu")
def prelu(op):
    for a, b in [((2, 3), (3,)), ((2, 3, 4), (3, 1)), ((), ()), ((0, 3), (1,)), ((2, 3), (1, 1)), ((1, 2, 1, 3, 1, 2, 1, 2), (2,))]:
        yield Case([R(*a), R(*b)])


@ops("Where")
def where(op):
    for a, b in PAIRS:
        yield Case([R(*a), R(*b), R(*a)])
        yield Case([R(*b), R(*a), R()])
    yield Case([R(3, 1, 1), R(4, 1), R(5)])


@ops("Clip")
def clip(op):
    if op.since < 11:
        return with_attributes(op, [{}, dict(min=-1.0), dict(max=1.0), dict(min=-0.5, max=0.5), dict(min=2.0, max=-2.0)])

    def cases():
        for shape in SHAPES:
            yield Case([R(*shape), C(0 if op.types["T"].startswith("u") else -1), C(2)])
            yield Case([R(*shape), R(lo=0, hi=0), R(lo=2, hi=2)])
        yield Case([R(5)])
        yield Case([R(5), None, C(1)])
        yield Case([R(5), C(1)])
        yield Case([R(5), C(2), C(1)])
        yield Case([Special(), C(1), C(2)])
        yield Case([Special(), C(1)])
        yield Case([Special(), None, C(1)])

    return cases()


@ops("Cast")
def cast(op):
    source = op.types["T1"]
    if op.nth_of_variable("T2"):
        return
    for target in op.allowed("T2"):
        if "float8e8m0" in (source, target) and op.opset < 24:
            continue
        attrs = dict(to=ctype(target))
        # What a float beyond the range of an integer becomes is not defined.
        lo, hi = bounds(target) if is_float(source) and is_int(target) else (-300, 300)
        yield Case([R(4, 5, lo=max(-300, lo), hi=min(300, hi))], attrs)
        if op.opset != 28:
            continue
        yield Case([R(3, 4)], attrs)
        ends = is_float(source) and (is_int(target) or target == "bool")
        yield Case([Special()] if not ends else [R(7, lo=0, hi=1)], attrs)
        yield Case([R()], attrs)
        yield Case([R(0, 3)], attrs)
        if "float8" in target and is_float(source) and op.opset >= 19:
            yield Case([Special()], {**attrs, "saturate": 0})
            yield Case([R(4, 50, lo=-70000, hi=70000)], {**attrs, "saturate": 0})
            yield Case([R(4, 50, lo=-70000, hi=70000)], attrs)
        if target == "float8e8m0" and op.opset >= 24 and is_float(source):
            for mode in ("up", "down", "nearest"):
                yield Case([R(4, 9, lo=0.01, hi=300)], {**attrs, "round_mode": mode})
                yield Case([R(4, 9, lo=0.01, hi=300)], {**attrs, "round_mode": mode, "saturate": 0})


cast.all_types = True


@ops("CastLike")
def cast_like(op):
    source, target = op.types["T1"], op.types["T2"]
    if "float8e8m0" in (source, target) and op.opset < 24:
        return
    least = 0 if is_float(source) and target.startswith("u") else -3
    yield Case([R(3, 4, lo=least), R(1)])
    yield Case([R(lo=least), R(2, 2)])
    yield Case([R(0, 2), R()])
    if "float8" in target and is_float(source):
        yield Case([R(4, 50, lo=-70000, hi=70000), R(1)], dict(saturate=0))


BITS = dict(bool=8, bfloat16=16, float=32, double=64)


def width(t):
    if t in BITS:
        return BITS[t]
    if t.startswith("float"):
        return {"float16": 16, "float4e2m1": 4}.get(t, 8)
    return int("".join(c for c in t if c.isdigit()))


@ops("BitCast")
def bitcast(op):
    if op.nth_of_variable("T2"):
        return
    source = op.types["T1"]
    for target in op.allowed("T2"):
        if width(target) == width(source) and "bool" not in (source, target):
            for shape in ((2, 3), (), (0,)):
                yield Case([R(*shape)], dict(to=ctype(target)))


bitcast.all_types = True


@ops("Dropout")
def dropout(op):
    if op.since < 12:
        yield Case([R(2, 3)])
        yield Case([R(2, 3)], dict(ratio=0.3))
        return
    yield Case([R(2, 3)])
    yield Case([R(2, 3), C(0.5)], types={"T1": ("float", "float16", "double")})
    yield Case([R(), C(0.5), C(False)])
    yield Case([R(2, 3), None, C(False)], outputs=2)


@ops("Trilu")
def trilu(op):
    for shape in [(4, 5), (2, 3, 3), (0, 3), (1, 2, 1, 3, 4, 2), (3, 0)]:
        for upper in (0, 1):
            yield Case([R(*shape)], dict(upper=upper))
            for k in (-1, 2, 9, -9):
                yield Case([R(*shape), C(k)], dict(upper=upper))
