"""Data movement: shapes, slices, gathers, scatters."""
import numpy as np
from onnx import helper, numpy_helper

from testcase import DTYPES, SHAPES, C, Case, R, ctype, ops


@ops("Reshape")
def reshape(op):
    for shape, to in [((2, 3, 4), [4, 6]), ((2, 3, 4), [0, -1]), ((2, 3, 4), [-1]), ((6,), [1, 2, 1, 3, 1, 1, 1, 1]), ((1,), []), ((), [1, 1]), ((0, 3), [3, 0]) if op.since < 14 else ((0, 3), [0, 3]),
                      ((2, 3, 4), [2, 0, 2, 2])]:
        yield Case([R(*shape), C(to, type="int64")])
    if op.since >= 14:
        yield Case([R(0, 3), C([3, 0])], dict(allowzero=1))
        yield Case([R(0, 3), C([0, 0, 7])], dict(allowzero=1))
        yield Case([R(2, 3), C([3, -1])], dict(allowzero=1))


@ops("Transpose")
def transpose(op):
    for shape, perm in [((2, 3), None), ((2, 3, 4), [2, 0, 1]), ((2, 3, 4), [0, 2, 1]), ((), None), ((4,), [0]), ((0, 3), [1, 0]), ((1, 2, 1, 3, 1, 2, 1, 2), [7, 6, 5, 4, 3, 2, 1, 0]),
                        ((2, 2, 2, 2, 2, 2, 2, 2), [1, 0, 3, 2, 5, 4, 7, 6]), ((33, 20), [1, 0])]:
        yield Case([R(*shape)], {} if perm is None else dict(perm=perm))


@ops("Squeeze Unsqueeze")
def squeeze(op):
    for shape, axes in [((1, 3, 1, 2), [0, 2]), ((1, 3), [0]), ((3, 1), [-1]), ((1, 3, 1), [-1, 0]), ((1, 0), [0])]:
        if op.name == "Unsqueeze":
            shape = tuple(s for s in shape if s != 1)
            if not shape:
                continue
        if min(axes) < 0 and op.since < 11:
            continue
        yield Case([R(*shape), C(axes, type="int64")]) if op.since >= 13 else Case([R(*shape)], dict(axes=axes))
    if op.name == "Squeeze":
        yield Case([R(1, 3, 1)])
        yield Case([R(1, 1)])
    else:
        yield Case([R(), C([0], type="int64")]) if op.since >= 13 else Case([R()], dict(axes=[0]))


@ops("Flatten")
def flatten(op):
    for shape, axis in [((2, 3, 4), None), ((2, 3, 4), 0), ((2, 3, 4), 3), ((2, 3, 4), 2), ((5,), 1), ((5,), 0), ((0, 3, 2), 2)] + ([((2, 3, 4), -1), ((2, 3, 4), -3), ((), 0)] if op.since >= 11 else []):
        yield Case([R(*shape)], {} if axis is None else dict(axis=axis))


@ops("Concat")
def concat(op):
    for shapes, axis in [([(2, 3), (2, 4)], 1), ([(2, 3), (1, 3), (3, 3)], 0), ([(4,)], 0), ([(0,), (3,)], 0), ([(2, 0), (2, 3)], 1), ([(2, 2, 1, 2, 1, 1, 2, 1)] * 3, 5)] + (
            [([(2, 3, 4), (2, 3, 1)], -1), ([(2, 3, 4), (2, 1, 4)], -2)] if op.since >= 11 else []):
        yield Case([R(*s) for s in shapes], dict(axis=axis))


@ops("Split")
def split(op):
    for shape, axis, parts in [((6, 2), 0, [2, 4]), ((6, 2), None, [3, 3]), ((2, 6), 1, [1, 2, 3]), ((2, 6), -1, [6]), ((4,), 0, [0, 4]), ((0, 2), 0, [0, 0])]:
        if axis == -1 and op.since < 11:
            continue
        a = {} if axis is None else dict(axis=axis)
        yield Case([R(*shape), C(parts, type="int64")], a, outputs=len(parts)) if op.since >= 13 else Case([R(*shape)], a | dict(split=parts), outputs=len(parts))
    for shape, axis, n in [((6, 2), 0, 3), ((2, 6), 1, 2), ((5,), 0, 1)]:
        yield Case([R(*shape)], dict(axis=axis) | (dict(num_outputs=n) if op.since >= 18 else {}), outputs=n)
    if op.since >= 18:
        yield Case([R(7, 2)], dict(num_outputs=3), outputs=3)
        yield Case([R(2, 7)], dict(num_outputs=4, axis=1), outputs=4)


@ops("Slice")
def slices(op):
    rows = [((5, 6), [1, 2], [4, 5], None, None), ((5, 6), [1], [-1], [1], None), ((5, 6), [-3], [99], [0], None), ((5, 6, 7), [0, 1], [3, 4], [2, 0], None), ((5,), [3], [1], [0], None),
            ((2, 2, 2, 2, 2, 2, 2, 2), [1, 0], [2, 1], [3, 7], None)]
    if op.since >= 10:
        rows += [((5, 6), [4, 5], [0, 0], [0, 1], [-1, -2]), ((9,), [0], [9], [0], [3]), ((9,), [-1], [-99], [-1], [-1]), ((9,), [99], [-99], [0], [-4]), ((0, 3), [0], [5], [0], [1]),
                 ((9,), [0], [2**62], [0], [2]), ((4, 5), [2**31 - 1], [-(2**63)], [1], [-1]), ((9,), [5], [2], [0], [1]), ((9,), [2], [5], [0], [-1])]
    for shape, starts, ends, axes, steps in rows:
        if op.since < 10:
            yield Case([R(*shape)], dict(starts=starts, ends=ends) | ({} if axes is None else dict(axes=axes)))
        else:
            small = max(map(abs, starts + ends)) < 2**31
            for t in (("int64", "int32") if small else ("int64",)):
                if op.types["Tind"] == t:
                    yield Case([R(*shape), C(starts), C(ends)] + ([] if axes is None and steps is None else [C(axes)]) + ([] if steps is None else [C(steps)]))
    if op.since >= 10:
        yield Case([R(5, 6), C([4, 1]), C([1, 5]), None, C([-1, 2])])


@ops("Pad")
def pad(op):
    modes = ["constant", "reflect", "edge"] + (["wrap"] if op.since >= 19 else [])
    rows = [((3, 4), [1, 0, 2, 1]), ((4,), [2, 1]), ((2, 3, 4), [0, 1, 1, 0, 1, 2]), ((3, 4), [0, 0, 0, 0]), ((4, 4), [-1, 1, 2, -2]), ((2, 1, 3, 1, 2), [0, 0, 1, 0, 1, 0, 0, 1, 0, 0])]
    for shape, pads in rows:
        for mode in modes:
            if op.since < 11:
                yield Case([R(*shape)], dict(mode=mode, pads=pads) | (dict(value=1.5) if mode == "constant" else {}))
            elif mode == "constant":
                yield Case([R(*shape), C(pads)])
                yield Case([R(*shape), C(pads), C(1)], dict(mode=mode))
                if op.since >= 18:
                    n = len(shape)
                    for axes in ([n - 1], [-1], list(range(n))[::-1]):
                        yield Case([R(*shape), C([1, 2] if len(axes) == 1 else pads), C(1), C(axes)], dict(mode=mode))
                        yield Case([R(*shape), C([1, 2] if len(axes) == 1 else pads), None, C(axes)], dict(mode=mode))
            else:
                yield Case([R(*shape), C(pads)], dict(mode=mode))
    if op.since >= 11:
        yield Case([R(0, 3), C([1, 0, 1, 0])])
        yield Case([R(), C([], type="int64")])
        if op.since >= 19:
            yield Case([R(3, 4), C([4, 5, 7, 9])], dict(mode="wrap"))


@ops("Expand")
def expand(op):
    for shape, to in [((3, 1), [3, 4]), ((3, 1), [2, 1, 6]), ((), [2, 3]), ((1,), [0]), ((2, 3), [1]), ((2, 3), []), ((1, 2, 1, 3), [2, 1, 3, 1, 2, 2, 3])]:
        yield Case([R(*shape), C(to, type="int64")])


@ops("Tile")
def tile(op):
    for shape, reps in [((2, 3), [2, 1]), ((2, 3), [1, 3]), ((3,), [4]), ((2, 3), [0, 2]), ((), []), ((1, 2, 1, 2, 1, 2, 1, 2), [2, 1, 1, 2, 1, 1, 3, 1])]:
        yield Case([R(*shape), C(reps, type="int64")])


@ops("Gather")
def gather(op):
    neg = op.since >= 11
    for shape, idx, axis in [((5, 3), [0, 4, 2], 0), ((5, 3), [[0, 2], [1, 1]], 1), ((5, 3), 1, 0), ((5,), 3, 0), ((2, 3, 4), [[1]], -1), ((2, 3, 4), [0, 1, 1], -2), ((5, 3), [], 0), ((5, 0), [1], 0),
                             ((2, 2, 2, 1, 2, 2), [[1, 0]], 3 if False else 4)] + ([((5, 3), [-1, -5], 0), ((2, 3, 4), [[-1, -3]], 1)] if neg else []):
        yield Case([R(*shape), C(idx)], dict(axis=axis))
        yield Case([R(*shape), C(idx, free=True)], dict(axis=axis))
    yield Case([R(5, 3), C([0, 2])])


@ops("GatherElements")
def gather_elements(op):
    for shape, idx, axis in [((3, 4), (2, 4), 0), ((3, 4), (3, 2), 1), ((5,), (7,), 0), ((2, 3, 4), (2, 3, 1), -1), ((2, 3, 4), (1, 3, 2), -2), ((3, 4), (0, 4), 0)]:
        n = shape[axis]
        yield Case([R(*shape), R(*idx, lo=-n, hi=n - 1)], dict(axis=axis))
    yield Case([R(3, 4), R(3, 4, lo=0, hi=2)])


@ops("GatherND")
def gather_nd(op):
    for shape, idx, batch in [((2, 3, 4), [[0, 1], [1, 2]], 0), ((2, 3, 4), [[[1]], [[0]]], 0), ((2, 3, 4), [[1, 2, 3]], 0), ((2, 3, 4), [[1], [0]], 1), ((2, 3, 4), [[[1, 2]], [[0, 0]]], 1),
                              ((5,), [[4], [0]], 0), ((2, 2, 4), [[[1], [2]], [[0], [3]]], 2), ((2, 3), [[-1, -1]], 0), ((2, 3), [0, 1], 0)]:
        if batch and op.since < 12:
            continue
        yield Case([R(*shape), C(idx, free=True)], dict(batch_dims=batch) if batch else {})


REDUCTIONS = {16: ["add", "mul"], 18: ["add", "mul", "min", "max"]}


@ops("ScatterElements Scatter")
def scatter_elements(op):
    kinds = [None] + next((v for k, v in sorted(REDUCTIONS.items(), reverse=True) if op.since >= k), [])
    for kind in kinds:
        for shape, idx, axis in [((3, 4), (2, 4), 0), ((3, 4), (3, 2), 1), ((5,), (4,), 0), ((2, 3, 4), (2, 3, 1), -1), ((2, 3, 4), (1, 3, 2), -2), ((3, 4), (0, 4), 0)]:
            n = shape[axis]
            if axis < 0 and op.since < 11:
                axis += len(shape)
            a = dict(axis=axis) | ({} if kind is None else dict(reduction=kind))
            lo = -n if op.since >= 11 else 0
            if kind is None:  # each place once, else the order would count
                x = np.stack([op.rng.permutation(n)[: idx[axis]] for _ in range(int(np.prod([s for i, s in enumerate(idx) if i != axis % len(idx)])))]) if idx[axis] and idx[axis] <= n else np.zeros(0)
                idx_values = np.moveaxis(x.reshape([s for i, s in enumerate(idx) if i != axis % len(idx)] + [idx[axis]]), -1, axis) if x.size else np.zeros(idx)
                yield Case([R(*shape), C(idx_values, free=True), R(*idx)], a)
            else:
                yield Case([R(*shape), R(*idx, lo=lo, hi=n - 1), R(*idx)], a)


@ops("ScatterND")
def scatter_nd(op):
    kinds = [None] + next((v for k, v in sorted(REDUCTIONS.items(), reverse=True) if op.since >= k), [])
    for kind in kinds:
        a = {} if kind is None else dict(reduction=kind)
        for shape, idx in [((5,), [[1], [4], [0]]), ((3, 4), [[0, 1], [2, 3]]), ((3, 4), [[2], [0]]), ((2, 3, 4), [[[0, 1], [1, 2]], [[1, 0], [0, 0]]]), ((3, 4), [[-1, -1]])]:
            idx = np.array(idx)
            yield Case([R(*shape), C(idx, free=True), R(*idx.shape[:-1], *shape[idx.shape[-1]:])], a)
        if kind:
            yield Case([R(5), C([[1], [1], [1]], free=True), R(3)], a)
        yield Case([R(3, 4), C(np.zeros((0, 1)), free=True), R(0, 4)], a)


@ops("TensorScatter")
def tensor_scatter(op):
    for shape, new, at, attrs in [((2, 6, 3), (2, 2, 3), [1, 3], dict(axis=1)), ((2, 4, 6, 3), (2, 4, 1, 3), [0, 5], {}), ((2, 6, 3), (2, 2, 3), None, dict(axis=-2)),
                                  ((2, 6, 3), (2, 4, 3), [4, 1], dict(axis=1, mode="circular")), ((3, 5), (3, 2), [0, 1, 3], dict(axis=-1)), ((2, 3, 4), (2, 0, 4), [0, 1], dict(axis=1))]:
        yield Case([R(*shape), R(*new)] + ([] if at is None else [C(at, free=True)]), attrs)


@ops("DepthToSpace")
def depth_to_space(op):
    for shape, b in [((1, 8, 2, 3), 2), ((2, 4, 1, 1), 2), ((1, 9, 2, 2), 3), ((0, 4, 2, 2), 2), ((1, 3, 2, 2), 1)]:
        for mode in ({}, dict(mode="CRD"), dict(mode="DCR")) if op.since >= 11 else ({},):
            yield Case([R(*shape)], dict(blocksize=b) | mode)


@ops("SpaceToDepth")
def space_to_depth(op):
    for shape, b in [((1, 2, 4, 6), 2), ((2, 1, 3, 3), 3), ((0, 1, 2, 2), 2), ((1, 3, 2, 2), 1)]:
        yield Case([R(*shape)], dict(blocksize=b))
        if op.since >= 28:
            for mode in ("DCR", "CRD"):
                yield Case([R(*shape)], dict(blocksize=b, mode=mode))


@ops("EyeLike")
def eye_like(op):
    if "T2" in op.types and op.nth_of_variable("T2"):
        return
    for shape in ((3, 4), (4, 3), (0, 2)):
        for k in (None, 1, -1, 9):
            yield Case([R(*shape)], {} if k is None else dict(k=k))
        for t in op.allowed("T2"):
            yield Case([R(*shape)], dict(dtype=ctype(t), k=1))


eye_like.all_types = True


@ops("ConstantOfShape")
def constant_of_shape(op):
    t = op.types["T2"]
    for shape in ([2, 3], [], [0, 4], [1, 2, 1, 3, 1, 2, 1, 2]):
        yield Case([C(shape, type="int64")], dict(value=numpy_helper.from_array(np.array([2 if t != "bool" else 1]).astype(DTYPES[t]))))
    yield Case([C([2, 3], type="int64")])


@ops("Constant")
def constant(op):
    t = op.types[list(op.types)[0]]
    for shape in ((2, 3), (), (0, 2)):
        yield Case([], dict(value=numpy_helper.from_array(R(*shape).make(t, op.rng))))
    if op.since >= 12:
        yield Case([], dict(value_float=1.5))
        yield Case([], dict(value_int=-7))
        yield Case([], dict(value_ints=[1, 2, 3]))
        yield Case([], dict(value_floats=[1.5, 2.5]))
    if op.since >= 11:
        values = helper.make_tensor("v", ctype("float"), [3], [1.0, 2.0, 3.0])
        yield Case([], dict(sparse_value=helper.make_sparse_tensor(values, helper.make_tensor("i", ctype("int64"), [3], [1, 4, 7]), [3, 4])))
        yield Case([], dict(sparse_value=helper.make_sparse_tensor(values, helper.make_tensor("i", ctype("int64"), [3, 2], [0, 1, 1, 2, 2, 3]), [3, 4])))


@ops("Shape")
def shape_of(op):
    for shape in SHAPES:
        yield Case([R(*shape)])
        if op.since >= 15:
            for attrs in (dict(start=1), dict(end=-1), dict(start=-2, end=9), dict(start=2, end=1), dict(start=-99, end=99)):
                yield Case([R(*shape)], attrs)


@ops("Range")
def ranges(op):
    for a, b, d in [(0, 5, 1), (2, 11, 3), (5, 0, -2), (0, 0, 1), (3, 1, 1), (-3, 4, 2)]:
        yield Case([C(a), C(b), C(d)])
    if "float" in op.types["T"] or op.types["T"] == "double":
        yield Case([C(0.5), C(3.3), C(0.25)])
        yield Case([C(0.1), C(-3.3), C(-0.7)])
        if op.since >= 27:
            yield Case([C(0.5), C(9.3), C(0.3)], dict(stash_type=1))
            yield Case([C(0.5), C(9.3), C(0.3)], dict(stash_type=0))


@ops("CenterCropPad")
def center_crop_pad(op):
    for shape, to, axes in [((5, 6), [3, 8], None), ((4, 5, 3), [6, 2], [0, 1]), ((4, 5, 3), [7], [-1]), ((4, 5, 3), [4, 6], [-1, 0]), ((3,), [3], None), ((3, 3), [0, 4], None), ((5, 4), [2, 1], [1, 0])]:
        yield Case([R(*shape), C(to)], {} if axes is None else dict(axes=axes))


@ops("Col2Im")
def col2im(op):
    yield Case([R(1, 4, 4), C([4, 4]), C([2, 2])], dict(strides=[2, 2]))
    yield Case([R(1, 4, 9), C([4, 4]), C([2, 2])])
    yield Case([R(2, 8, 25), C([4, 4]), C([2, 2])], dict(pads=[1, 1, 1, 1]))
    yield Case([R(1, 4, 4), C([4, 4]), C([2, 2])], dict(dilations=[2, 2]))
    yield Case([R(1, 8, 8), C([3, 3, 3]), C([2, 2, 2])])
    yield Case([R(1, 6, 4), C([5]), C([2])])


@ops("BlackmanWindow HannWindow HammingWindow")
def window(op):
    if op.nth_of_variable("T2"):
        return
    for n in (10, 1, 7, 0):
        yield Case([C(n)])
        yield Case([C(n)], dict(periodic=0))
    for t in op.allowed("T2"):
        yield Case([C(10)], dict(output_datatype=ctype(t)))
        yield Case([C(9)], dict(output_datatype=ctype(t), periodic=0))


window.all_types = True


@ops("MelWeightMatrix")
def mel(op):
    if op.nth_of_variable("T3"):
        return
    for t in op.allowed("T3"):
        yield Case([C(8), C(16), C(8192), C(0.0), C(4000.0)], dict(output_datatype=ctype(t)))
    yield Case([C(5), C(64), C(16000), C(20.0), C(8000.0)])


@ops("DFT")
def dft(op):
    for shape in [(1, 10, 1), (2, 8, 2), (2, 5, 7, 1), (1, 5, 7, 2), (3, 1, 1), (2, 3, 4, 5, 2)]:
        rank = len(shape)
        for axis in sorted({1, rank - 2}):
            for attrs in ({}, dict(inverse=1), dict(onesided=1), dict(inverse=1, onesided=1)):
                if attrs.get("inverse") and attrs.get("onesided") and (shape[-1] == 1 or op.since < 20):
                    continue
                if attrs == dict(onesided=1) and shape[-1] == 2:
                    continue
                for length in (None, shape[axis] - 2, shape[axis] + 3):
                    if length is not None and length < 1:
                        continue
                    x = [R(*shape)] + ([None] if length is None else [C(length)])
                    if op.since < 20:
                        yield Case(x if length is not None else x[:1], dict(axis=axis) | attrs, atol=1e-4)
                    else:
                        yield Case(x + [C(axis, type="int64")], attrs, atol=1e-4)
                        yield Case(x + [C(axis - rank, type="int64")], attrs, atol=1e-4)


@ops("STFT")
def stft(op):
    for shape, step, win, length in [((1, 32, 1), 8, None, 16), ((2, 30, 1), 5, 8, None), ((1, 32, 1), 8, 16, 16), ((1, 32, 2), 8, 16, None), ((1, 20, 1), 3, 7, 7)]:
        for onesided in (1, 0):
            if onesided and shape[-1] == 2:
                continue
            yield Case([R(*shape), C(step), None if win is None else R(win, lo=0, hi=1)] + ([] if length is None else [C(length)]), dict(onesided=onesided), atol=1e-4)
