"""Operators that reduce, scan or sort along axes."""
from testcase import FLOATS, C, Case, R, ops


def axes_cases(op, names_axes):
    """Axes as an attribute or as an input."""
    shapes = [((3, 2, 4), [1]), ((3, 2, 4), [-1]), ((3, 2, 4), None), ((3, 2, 4), [0, 2]), ((5,), [0]), ((2, 1, 3, 1, 2, 1, 2, 2), [1, -2, 4]), ((4, 33), [1]),
              ((33, 4), [0]), ((), None)]
    lo, hi = (1, 3) if "Log" in op.name else (-2, 2)
    for shape, axes in shapes:
        for keep in ({}, dict(keepdims=0)):
            if names_axes:
                yield Case([R(*shape, lo=lo, hi=hi)] + ([] if axes is None else [C(axes, type="int64")]), keep)
            else:
                yield Case([R(*shape, lo=lo, hi=hi)], keep | ({} if axes is None else dict(axes=axes)))
    if names_axes:
        yield Case([R(3, 2, lo=lo, hi=hi), C([], type="int64")], dict(noop_with_empty_axes=1))
        yield Case([R(3, 2, lo=lo, hi=hi)], dict(noop_with_empty_axes=1))
        yield Case([R(3, 2, lo=lo, hi=hi), C([], type="int64")], dict(keepdims=0))
        yield Case([R(3, 2, lo=lo, hi=hi), C([], type="int64")], dict(noop_with_empty_axes=0, keepdims=1))
        yield Case([R(lo=lo, hi=hi), C([], type="int64")], {})
    if op.opset >= 18 and op.name not in ("ReduceMean",):
        for shape, axes in [((2, 0, 4), [1]), ((2, 0, 4), [0]), ((0,), [0])]:
            yield Case([R(*shape), C(axes, type="int64")], {})
    elif op.name in ("ReduceSum", "ReduceL1", "ReduceSumSquare"):
        yield Case([R(2, 0, 4)] + ([C([1], type="int64")] if names_axes else []), {} if names_axes else dict(axes=[1]))


@ops("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare")
def reductions(op):
    return axes_cases(op, op.opset >= (13 if op.name == "ReduceSum" else 18))


@ops("ArgMax ArgMin")
def arg(op):
    for shape, axis in [((3, 4), 0), ((3, 4), 1), ((2, 3, 4), -1), ((2, 3, 4), -2), ((5,), 0), ((2, 1, 3, 1, 2, 1, 2, 2), 2), ((4, 40), 1), ((40, 4), 0)]:
        for keep in ({}, dict(keepdims=0)):
            yield Case([R(*shape, lo=-2, hi=2)], dict(axis=axis) | keep)
            if op.opset >= 12:
                yield Case([R(*shape, lo=-2, hi=2)], dict(axis=axis, select_last_index=1) | keep)
    yield Case([R(3, 4)])
    yield Case([R(0, 4)], dict(axis=1))


@ops("CumSum CumProd")
def cumulative(op):
    for shape, axis in [((3, 4), 0), ((3, 4), 1), ((2, 3, 4), -2), ((5,), 0), ((2, 0), 1), ((0, 2), 1), ((1, 2, 1, 3, 1, 2, 1, 2), 3)]:
        for attrs in ({}, dict(exclusive=1), dict(reverse=1), dict(exclusive=1, reverse=1)):
            yield Case([R(*shape, lo=1, hi=2), C(axis)], attrs)
    yield Case([R(3, 4), C([1])], {})


@ops("TopK")
def top_k(op):
    for shape, axis, k in [((3, 7), 1, 3), ((3, 7), 0, 2), ((2, 3, 5), -2, 3), ((9,), -1, 9), ((4, 50), -1, 1), ((3, 4), 1, 0), ((0, 4), 1, 2),
                           ((1, 2, 1, 5, 1, 2), 3, 4)]:
        for attrs in ({}, dict(largest=0), dict(sorted=0, largest=1)):
            if op.since < 10:
                yield Case([R(*shape, distinct=True)], dict(axis=axis, k=k), outputs=2)
                break
            if op.since < 11:
                attrs = {}
            n = shape[axis]
            yield Case([R(*shape, distinct=attrs.get("sorted") != 0 or True), C([k])], dict(axis=axis) | {k: v for k, v in attrs.items() if k != "sorted" or n}, outputs=2)
            yield Case([R(*shape, lo=0, hi=3), C([k])], dict(axis=axis) | {k: v for k, v in attrs.items() if k == "largest"}, outputs=2)


@ops("Softmax LogSoftmax Hardmax")
def softmax(op):
    for shape, axis in [((3, 4), None), ((3, 4), 0), ((2, 3, 4), 1), ((2, 3, 4), -1), ((5,), 0), ((2, 3, 2, 2), 2), ((0, 3), 1), ((1, 2, 1, 3, 1, 2, 1, 2), 3),
                        ((4, 100), 1), ((100, 4), 0)]:
        yield Case([R(*shape)], {} if axis is None else dict(axis=axis))
    yield Case([R(3, 4, lo=-500, hi=500)], {})


@ops("LpNormalization")
def lp_norm(op):
    for shape, axis in [((3, 4), -1), ((3, 4), 0), ((2, 3, 4), 1), ((5,), 0), ((2, 0), 0)]:
        for p in (1, 2):
            yield Case([R(*shape)], dict(axis=axis, p=p))
    yield Case([R(3, 4)])
    yield Case([R(3, 4, lo=0, hi=0)])


@ops("Unique")
def unique(op):
    for shape, axis in [((9,), None), ((3, 4), None), ((5, 2), 0), ((2, 6), 1), ((2, 6), -1), ((3, 2, 2), -2), ((0,), None)]:
        for s in (1, 0):
            yield Case([R(*shape, lo=0, hi=2)], dict(sorted=s) | ({} if axis is None else dict(axis=axis)), outputs=4)
    yield Case([R(7, lo=0, hi=2)])
    yield Case([R(7, lo=0, hi=2)], outputs=[True, False, True])
    yield Case([R(7, lo=0, hi=2)], outputs=[True, False, False, True])


@ops("Compress")
def compress(op):
    yield Case([R(3, 4), C([True, False, True])], dict(axis=0))
    yield Case([R(3, 4), C([False, True, True])], dict(axis=1))
    yield Case([R(3, 4), C([True, False, True])], dict(axis=-2))
    yield Case([R(3, 4), C([True, False, True, True, False])])
    yield Case([R(3, 4), C([False] * 3)], dict(axis=0))
    yield Case([R(0, 4), C([], type="bool")], dict(axis=0))
    yield Case([R(3, 4), R(12)], {})


@ops("OneHot")
def one_hot(op):
    for shape, axis in [((4,), None), ((2, 3), 0), ((2, 3), 1), ((2, 3), -2), ((), None), ((0, 2), -1)]:
        a = {} if axis is None else dict(axis=axis)
        yield Case([C(op.rng.integers(0, 5, shape), free=True), C(5), R(2, lo=0, hi=1)], a)
        if not op.types["T1"].startswith("u"):
            yield Case([C(op.rng.integers(-7, 7, shape), free=True), C([5]), C([2, 3])], a)


@ops("Det")
def det(op):
    for shape in [(2, 2), (3, 3), (2, 4, 4), (1, 1), (2, 1, 3, 3), (0, 2, 2), (6, 6)]:
        yield Case([R(*shape)])
    yield Case([C([[1, 2], [2, 4]], free=True)])


@ops("ReverseSequence")
def reverse_sequence(op):
    yield Case([R(4, 3), C([1, 4, 2], free=True)])
    yield Case([R(4, 3, 2), C([1, 4, 0], free=True)], dict(time_axis=0, batch_axis=1))
    yield Case([R(3, 4, 2), C([1, 4, 2], free=True)], dict(time_axis=1, batch_axis=0))
    yield Case([R(3, 4), C([1, 4, 2])], dict(time_axis=1, batch_axis=0))
