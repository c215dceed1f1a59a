"""Test cases: shapes and values of inputs, and the table of operators."""
import ml_dtypes
import numpy as np
from onnx import helper

DTYPES = dict(
    bool=np.bool_, int8=np.int8, int16=np.int16, int32=np.int32, int64=np.int64, uint8=np.uint8, uint16=np.uint16, uint32=np.uint32, uint64=np.uint64,
    float16=np.float16, bfloat16=ml_dtypes.bfloat16, float=np.float32, double=np.float64, float8e4m3fn=ml_dtypes.float8_e4m3fn,
    float8e4m3fnuz=ml_dtypes.float8_e4m3fnuz, float8e5m2=ml_dtypes.float8_e5m2, float8e5m2fnuz=ml_dtypes.float8_e5m2fnuz,
    float8e8m0=ml_dtypes.float8_e8m0fnu, float4e2m1=ml_dtypes.float4_e2m1fn, int4=ml_dtypes.int4, uint4=ml_dtypes.uint4, int2=ml_dtypes.int2,
    uint2=ml_dtypes.uint2)
FLOATS = ("float", "double", "float16", "bfloat16")


def is_int(t):
    return t.startswith(("int", "uint"))


def is_float(t):
    return "float" in t or t == "double"


def bounds(t):
    bits = int("".join(c for c in t if c.isdigit()))
    return (0, 2**bits - 1) if t.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


class R:
    """Random values in [lo, hi], of the type of its port."""

    def __init__(self, *shape, lo=-3, hi=3, type=None, distinct=False):
        self.shape, self.lo, self.hi, self.type, self.distinct = shape, lo, hi, type, distinct

    def make(self, t, rng):
        t = self.type or t
        if t == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        if self.distinct:
            n = int(np.prod(self.shape))
            x = rng.permutation(n).reshape(self.shape) - (0 if t.startswith("u") else n // 2)
            return x.astype(DTYPES[t])
        if is_int(t):
            least, most = bounds(t)
            lo, hi = max(least, int(np.ceil(self.lo))), min(most, int(np.floor(self.hi)))
            return np.array(rng.integers(min(lo, hi), max(lo, hi) + 1, self.shape)).astype(DTYPES[t])
        x = rng.uniform(self.lo, self.hi, self.shape)
        # Numbers that every float type holds exactly make ties and equal values likely, and keep rounding out of sums.
        x = np.round(x * 8) / 8 if rng.integers(2) and self.hi - self.lo >= 1 else x
        x = np.clip(x, self.lo, self.hi)
        if t == "float8e8m0":
            x = np.abs(x) + 2.0**-20
        return np.asarray(x).astype(DTYPES[t])


class C:
    """These values, of the type of its port; a constant of the model unless `free`."""

    def __init__(self, values, type=None, shape=None, free=False):
        self.values, self.type, self.shape, self.free = values, type, shape, free

    def make(self, t, rng):
        x = np.asarray(self.values)
        x = x.astype(DTYPES[self.type or t])
        return x if self.shape is None else x.reshape(self.shape)


class Special(R):
    """The values where an element type ends: infinities, NaN, zeros, least and most."""

    def __init__(self, nan=True, shape=None):
        self.nan, self.special_shape, self.type = nan, shape, None

    def make(self, t, rng):
        if is_int(t):
            lo, hi = bounds(t)
            x = np.array([lo, hi, 0, 1, hi - 1, lo + 1] + ([-1] if lo < 0 else [2]), dtype=object).astype(np.int64 if lo < 0 else np.uint64)
            return x.astype(DTYPES[t])
        if t == "bool":
            return np.array([True, False])
        x = np.array(([np.nan] if self.nan else []) + [np.inf, -np.inf, 0.0, -0.0, 1, -1, 1e-3, 0.5, 1.5, 2.5, -0.5, -2.5, 3, 88, -88])
        with np.errstate(all="ignore"):
            return x.astype(DTYPES[t])


class Case:
    """One use of an operator: attributes, inputs (R, C, an array, None), which outputs are wanted, the element types it insists on."""

    def __init__(self, inputs, attrs=None, outputs=1, types=None, rtol=None, atol=None, since=0, until=99):
        self.inputs, self.attrs, self.outputs, self.types = inputs, attrs or {}, outputs, types or {}
        self.rtol, self.atol, self.since, self.until = rtol, atol, since, until


class Op:
    """What a family's function is told: version of the operator, opset in force, element types by variable."""

    def __init__(self, name, since, opset, types, rng, choices):
        self.name, self.since, self.opset, self.types, self.rng, self.choices = name, since, opset, types, rng, choices

    def allowed(self, variable):
        """Element types that a variable may have, the first choice first."""
        return self.choices[variable]

    def nth_of_variable(self, variable):
        """Where the element type of a variable stands among those it may have."""
        return self.choices[variable].index(self.types[variable])


# Operator -> function(Op) -> cases.
TABLE = {}


def ops(names, domain=""):
    def put(f):
        for name in names.split():
            assert (domain, name) not in TABLE, name
            TABLE[domain, name] = f
        return f

    return put


# Shapes for element-wise operators: scalars, nothing, rank 8.
SHAPES = [(2, 3), (), (5,), (0, 3), (1, 2, 3, 4, 2), (1, 2, 1, 3, 1, 2, 1, 2), (37,), (1,)]
# Pairs that broadcast.
PAIRS = [((2, 3), (2, 3)), ((2, 3), (3,)), ((), (2, 3)), ((2, 1, 4), (3, 1)), ((), ()), ((0, 3), (1, 3)), ((1, 2, 1, 3, 1, 2, 1, 2), (2, 1, 2, 1, 3, 1, 2, 1)),
         ((1,), (0,)), ((5,), ()), ((4, 1, 33), (1, 5, 33)), ((3, 1, 5), (1, 4, 1))]


def ctype(t):
    """Number of an element type in the ONNX format."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[t]))
