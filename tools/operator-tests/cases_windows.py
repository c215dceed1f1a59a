"""Pooling, normalisation, resampling, detection, losses, recurrent networks."""
import numpy as np

from testcase import FLOATS, C, Case, R, ops

POOLS = [((1, 2, 6, 6), dict(kernel_shape=[3, 3])), ((1, 2, 6, 7), dict(kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 2])), ((2, 3, 9), dict(kernel_shape=[3], strides=[2])),
         ((1, 2, 4, 5, 4), dict(kernel_shape=[2, 2, 2], pads=[1, 0, 1, 0, 1, 0])), ((1, 2, 7, 6), dict(kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2])),
         ((1, 2, 7, 6), dict(kernel_shape=[2, 2], auto_pad="SAME_LOWER", strides=[2, 2])), ((1, 2, 7, 6), dict(kernel_shape=[3, 3], auto_pad="VALID", strides=[2, 2])),
         ((0, 2, 6, 6), dict(kernel_shape=[3, 3])), ((1, 2, 3, 4, 3, 4), dict(kernel_shape=[2, 2, 2, 2]))]
CEIL = [((1, 2, 6, 7), dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)), ((1, 2, 6, 7), dict(kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1, pads=[1, 1, 1, 1])),
        ((1, 1, 4), dict(kernel_shape=[1], strides=[4], ceil_mode=1)), ((1, 1, 5, 5), dict(kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, pads=[0, 0, 1, 1]))]
DILATED = [((1, 2, 8, 8), dict(kernel_shape=[3, 2], dilations=[2, 3])), ((1, 2, 8, 8), dict(kernel_shape=[3, 2], dilations=[2, 3], strides=[2, 2], pads=[1, 1, 1, 1]))]


@ops("MaxPool")
def max_pool(op):
    for shape, attrs in POOLS + (CEIL + DILATED if op.since >= 10 else []):
        yield Case([R(*shape)], attrs)
        if op.since >= 8 and 0 not in shape:
            yield Case([R(*shape, distinct=True)], attrs, outputs=2, types={"T": FLOATS})
            yield Case([R(*shape, distinct=True)], attrs | dict(storage_order=1), outputs=2, types={"T": FLOATS})


@ops("AveragePool")
def average_pool(op):
    for shape, attrs in POOLS + (CEIL if op.since >= 10 else []) + (DILATED if op.since >= 19 else []):
        for pad in ({}, dict(count_include_pad=1)) if op.since >= 7 else ({},):
            yield Case([R(*shape)], attrs | pad)


@ops("LpPool")
def lp_pool(op):
    for shape, attrs in POOLS + (CEIL + DILATED if op.since >= 18 else []):
        for p in ({}, dict(p=1), dict(p=3)):
            yield Case([R(*shape, lo=0, hi=2)], attrs | p)


@ops("GlobalAveragePool GlobalMaxPool")
def global_pool(op):
    for shape in [(2, 3, 4, 5), (2, 3, 7), (1, 2, 3, 2, 2), (0, 2, 3, 3), (1, 1, 1, 1)]:
        yield Case([R(*shape)])


@ops("GlobalLpPool")
def global_lp_pool(op):
    for shape in [(2, 3, 4, 5), (2, 3, 7), (1, 2, 3, 2, 2)]:
        for p in ({}, dict(p=1), dict(p=3)):
            yield Case([R(*shape, lo=0, hi=2)], p)


@ops("MaxUnpool")
def max_unpool(op):
    idx = np.array([[[[5, 7], [13, 15]]]])
    yield Case([R(1, 1, 2, 2), C(idx, free=True)], dict(kernel_shape=[2, 2], strides=[2, 2]))
    yield Case([R(1, 1, 2, 2), C(idx, free=True), C([1, 1, 5, 5])], dict(kernel_shape=[2, 2], strides=[2, 2]))
    yield Case([R(1, 1, 3), C([[[0, 3, 4]]], free=True)], dict(kernel_shape=[2], strides=[2]))
    yield Case([R(1, 2, 2, 2), C(np.array([[[[0, 3], [8, 11]], [[16, 19], [24, 27]]]]), free=True)], dict(kernel_shape=[2, 2], strides=[2, 2]))


@ops("MaxRoiPool")
def max_roi_pool(op):
    rois = np.array([[0, 0, 0, 3, 3], [1, 1, 1, 5, 4], [0, 2, 2, 7, 7]])
    yield Case([R(2, 3, 8, 8), C(rois, free=True)], dict(pooled_shape=[2, 2]))
    yield Case([R(2, 3, 8, 8), C(rois * np.array([1, 2, 2, 2, 2]), free=True)], dict(pooled_shape=[3, 2], spatial_scale=0.5))


@ops("BatchNormalization")
def batch_norm(op):
    for shape in [(2, 3, 4, 4), (2, 3), (2, 3, 5), (1, 3, 2, 2, 2), (0, 3, 2)] + ([(5,)] if op.since >= 99 else []):
        c = [R(3), R(3), R(3), R(3, lo=0.5, hi=2)]
        yield Case([R(*shape)] + c)
        yield Case([R(*shape)] + c, dict(epsilon=0.1))
        if op.since >= 14 and 0 not in shape:
            yield Case([R(*shape)] + c, dict(training_mode=1, momentum=0.7), outputs=3)


@ops("InstanceNormalization")
def instance_norm(op):
    for shape in [(2, 3, 4, 4), (2, 3, 5), (1, 3, 2, 2, 2)]:
        yield Case([R(*shape), R(3), R(3)])
        yield Case([R(*shape), R(3), R(3)], dict(epsilon=0.1))


@ops("LayerNormalization")
def layer_norm(op):
    for shape, axis in [((2, 3, 4), None), ((2, 3, 4), 1), ((2, 3, 4), -2), ((2, 3, 4), 0), ((5,), 0), ((2, 1, 2, 3, 2), 3)]:
        a = {} if axis is None else dict(axis=axis)
        s = shape[-1 if axis is None else axis:]
        yield Case([R(*shape), R(*s)], a)
        yield Case([R(*shape), R(*s), R(*s)], a, outputs=3)
        yield Case([R(*shape), R(*s), R(*s)], a | dict(epsilon=0.1), outputs=[True, False, True])
        yield Case([R(*shape), R(*s[-1:]), R(*s[-1:])], a)


@ops("RMSNormalization")
def rms_norm(op):
    for shape, axis in [((2, 3, 4), None), ((2, 3, 4), 1), ((2, 3, 4), -2), ((2, 3, 4), 0), ((5,), 0)]:
        a = {} if axis is None else dict(axis=axis)
        s = shape[-1 if axis is None else axis:]
        yield Case([R(*shape), R(*s)], a)
        yield Case([R(*shape), R(*s)], a | dict(epsilon=0.1))
        yield Case([R(*shape), R(*s[-1:])], a)
        yield Case([R(*shape), R()], a)


@ops("GroupNormalization")
def group_norm(op):
    for shape, g in [((2, 4, 3, 3), 2), ((1, 6, 5), 3), ((2, 4, 2, 2, 2), 1), ((2, 4, 3), 4), ((2, 4), 2)]:
        n = g if op.since < 21 else shape[1]
        yield Case([R(*shape), R(n), R(n)], dict(num_groups=g))
        yield Case([R(*shape), R(n), R(n)], dict(num_groups=g, epsilon=0.1))


@ops("MeanVarianceNormalization")
def mvn(op):
    for shape, axes in [((2, 3, 4, 4), None), ((2, 3, 4), [0, 2]), ((2, 3, 4), [1]), ((2, 3, 4), [-1])]:
        yield Case([R(*shape)], {} if axes is None else dict(axes=axes))


@ops("LRN")
def lrn(op):
    for shape in [(2, 5, 3, 3), (1, 6, 4), (1, 7, 2, 2, 2)]:
        for attrs in (dict(size=3), dict(size=5, alpha=0.1, beta=0.5, bias=2.0), dict(size=4), dict(size=1)):
            yield Case([R(*shape)], attrs)


SIZES = [((1, 2, 3, 4), [1.0, 1.0, 2.0, 2.0]), ((1, 2, 4, 6), [1.0, 1.0, 0.5, 0.6]), ((1, 1, 5, 5), [1.0, 1.0, 1.3, 0.8]), ((1, 2, 5), [1.0, 1.0, 1.7]), ((3, 4), [2.0, 1.5])]


@ops("Upsample")
def upsample(op):
    for shape, scales in SIZES:
        if min(scales) < 1:
            continue
        for mode in ("nearest", "linear"):
            yield Case([R(*shape)], dict(scales=scales, mode=mode)) if op.since < 9 else Case([R(*shape), C(scales)], dict(mode=mode))


@ops("Resize")
def resize(op):
    if op.since < 11:
        for shape, scales in SIZES:
            for mode in ("nearest", "linear"):
                yield Case([R(*shape), C(scales)], dict(mode=mode))
        return
    roi = [None] if op.since >= 13 else [C([], type="float")]
    transforms = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"] + (["half_pixel_symmetric"] if op.since >= 19 else []) + (["tf_half_pixel_for_nn"] if op.since < 13 else [])
    modes = [dict(mode="nearest", nearest_mode=m) for m in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")] + [dict(mode="linear"), dict(mode="cubic"), dict(mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)]
    if op.since >= 18:
        modes += [dict(mode="linear", antialias=1), dict(mode="cubic", antialias=1)]
    for shape, scales in SIZES:
        for t in transforms:
            for m in modes:
                if m["mode"] == "cubic" and len(shape) == 3:
                    continue
                if t == "tf_half_pixel_for_nn" and m["mode"] != "nearest":
                    continue
                yield Case([R(*shape)] + roi + [C(scales, type="float")], m | dict(coordinate_transformation_mode=t))
                sizes = [max(1, int(n * s)) for n, s in zip(shape, scales)]
                yield Case([R(*shape)] + roi + [C([], type="float") if op.since < 13 else None, C(sizes, type="int64")], m | dict(coordinate_transformation_mode=t))
    for m in (dict(mode="linear"), dict(mode="nearest"), dict(mode="cubic")):
        r = C([0, 0, 0.25, 0.1, 1, 1, 0.9, 0.8], type="float")
        yield Case([R(1, 1, 5, 6), r if op.since < 13 or "T2" not in op.types else C([0, 0, 0.25, 0.1, 1, 1, 0.9, 0.8]), C([], type="float") if op.since < 13 else None, C([1, 1, 4, 7], type="int64")],
                   m | dict(coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0))
        r2 = C([0, 0, -0.25, 0.1, 1, 1, 1.5, 0.8])
        yield Case([R(1, 1, 5, 6), r2, C([], type="float") if op.since < 13 else None, C([1, 1, 4, 7], type="int64")],
                   m | dict(coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0))
    if op.since >= 18:
        for policy in ("stretch", "not_larger", "not_smaller"):
            for m in (dict(mode="linear"), dict(mode="nearest")):
                yield Case([R(1, 2, 5, 6), None, None, C([7, 9], type="int64")], m | dict(axes=[2, 3], keep_aspect_ratio_policy=policy))
                yield Case([R(1, 2, 5, 6), None, None, C([3, 4], type="int64")], m | dict(axes=[3, 2], keep_aspect_ratio_policy=policy))
        yield Case([R(1, 2, 5, 6), None, C([1.5, 2.0], type="float")], dict(axes=[-1, -2], mode="linear"))
        yield Case([R(1, 2, 5, 6), C([0.2, 0.8], shape=(2,)), C([1.5], type="float")], dict(axes=[2], mode="linear", coordinate_transformation_mode="tf_crop_and_resize"))


@ops("GridSample")
def grid_sample(op):
    modes = ("bilinear", "nearest", "bicubic") if op.since < 20 else ("linear", "nearest", "cubic")
    for mode in modes:
        for pad in ("zeros", "border", "reflection"):
            for align in (0, 1):
                attrs = dict(mode=mode, padding_mode=pad, align_corners=align)
                yield Case([R(2, 3, 5, 4), R(2, 3, 6, 2, lo=-1.3, hi=1.3)], attrs)
                if op.since >= 20 and mode != "cubic":
                    yield Case([R(1, 2, 3, 4, 3), R(1, 2, 3, 2, 3, lo=-1.3, hi=1.3)], attrs)
    yield Case([R(2, 3, 5, 4), R(2, 3, 6, 2, lo=-1.3, hi=1.3)])
    yield Case([R(0, 3, 5, 4), R(0, 3, 6, 2)])


@ops("AffineGrid")
def affine_grid(op):
    for align in (0, 1):
        yield Case([R(2, 2, 3), C([2, 3, 4, 5])], dict(align_corners=align))
        yield Case([R(2, 3, 4), C([2, 3, 3, 4, 5])], dict(align_corners=align))


@ops("RoiAlign")
def roi_align(op):
    rois = np.array([[0, 0, 3, 3], [1, 1, 5, 4], [2, 2, 6, 7]])
    for attrs in (dict(output_height=2, output_width=3), dict(output_height=2, output_width=2, sampling_ratio=2), dict(output_height=3, output_width=3, spatial_scale=0.5, mode="max"), {}):
        for extra in ((dict(coordinate_transformation_mode="output_half_pixel"), dict(coordinate_transformation_mode="half_pixel"), {}) if op.since >= 16 else ({},)):
            yield Case([R(2, 3, 8, 8), C(rois, free=True), C([0, 1, 0], free=True)], attrs | extra)


@ops("NonMaxSuppression")
def nms(op):
    b, c, n = 2, 2, 6
    boxes = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [0, 10.1, 1, 11.1], [0, 100, 1, 101]])
    flipped = boxes[:, [2, 3, 0, 1]]
    centers = np.stack([(boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    for x, center in ((boxes, 0), (flipped, 0), (centers, 1)):
        x = np.stack([x, x[::-1]])
        scores = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5, 0.3], [0.1, 0.8, 0.7, 0.2, 0.6, 0.4]]] * b)
        a = dict(center_point_box=1) if center else {}
        for rest in ([C([3]), C([0.5]), C([0.0])], [C([3]), C([0.5]), C([0.4])], [C([1]), C([0.5])], [C([99]), C([0.1])], [C([0])], [], [C(3), C(0.5), C(0.55)], [C([3]), None, C([0.4])]):
            rest = [C(r.values, type="int64" if i == 0 else "float") if r else None for i, r in enumerate(rest)]
            yield Case([C(x, free=True), C(scores, free=True)] + rest, a)


@ops("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss")
def loss(op):
    two = [1]
    if op.name.startswith("Soft"):
        two = [1, 2]
    for shape in [(3, 5), (2, 4, 3), (2, 3, 2, 2), (2, 3, 1, 2, 2)]:
        for reduction in ("none", "mean", "sum"):
            for extra in ({}, dict(ignore_index=1), dict(ignore_index=-1)):
                target = op.rng.integers(0, shape[1], (shape[0],) + shape[2:])
                if extra.get("ignore_index") == -1:
                    target.flat[0] = -1
                for outputs in two:
                    yield Case([R(*shape), C(target, free=True)], dict(reduction=reduction) | extra, outputs=outputs)
                    yield Case([R(*shape), C(target, free=True), R(shape[1], lo=0.5, hi=2)], dict(reduction=reduction) | extra, outputs=outputs)


DIRECTIONS = ("forward", "reverse", "bidirectional")


def recurrent(op, gates, states):
    acts = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Softsign"], "LSTM": ["HardSigmoid", "Softsign", "Affine"]}[op.name]
    for direction in DIRECTIONS:
        d = 2 if direction == "bidirectional" else 1
        t, b, i, h = 4, 3, 2, 5
        base = dict(hidden_size=h, direction=direction)
        extras = [{}, dict(clip=0.5), dict(activations=acts * d)]
        extras.append(dict(activations=acts * d, activation_alpha=[0.3] * len(acts) * d, activation_beta=[0.4] * len(acts) * d))
        if op.name == "RNN":
            extras += [dict(activations=[a] * d) for a in ("Sigmoid", "Elu", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "Softplus", "Softsign", "Affine", "HardSigmoid")]
        if op.name == "GRU":
            extras += [dict(linear_before_reset=1), dict(linear_before_reset=1, clip=0.5)]
        if op.name == "LSTM":
            extras += [dict(input_forget=1)]
        for extra in extras:
            for layout in ((0, 1) if op.opset >= 14 else (0,)):
                a = base | extra | (dict(layout=1) if layout else {})
                x = R(b, t, i, lo=-1, hi=1) if layout else R(t, b, i, lo=-1, hi=1)
                state = (b, d, h) if layout else (d, b, h)
                w, r, bias = R(d, gates * h, i, lo=-1, hi=1), R(d, gates * h, h, lo=-1, hi=1), R(d, 2 * gates * h, lo=-1, hi=1)
                outs = 1 + states
                init = [R(*state, lo=-1, hi=1) for _ in range(states)]
                lens = C([4, 2, 3], type="int32", free=True)
                tol = dict(rtol=1e-3, atol=1e-4) if op.types["T"] == "float" else {}
                yield Case([x, w, r], a, outputs=outs, **tol)
                yield Case([x, w, r, bias], a, outputs=outs, **tol)
                yield Case([x, w, r, bias, lens], a, outputs=outs, **tol)
                yield Case([x, w, r, bias, lens] + init, a, outputs=outs, **tol)
                yield Case([x, w, r, None, None] + init, a, outputs=[False, True], **tol)
                if op.name == "LSTM":
                    yield Case([x, w, r, bias, None] + init + [R(d, 3 * h, lo=-1, hi=1)], a, outputs=outs, **tol)
                    yield Case([x, w, r, bias, lens] + init + [R(d, 3 * h, lo=-1, hi=1)], a, outputs=[True, False, True], **tol)


@ops("RNN")
def rnn(op):
    return recurrent(op, 1, 1)


@ops("GRU")
def gru(op):
    return recurrent(op, 3, 1)


@ops("LSTM")
def lstm(op):
    return recurrent(op, 4, 2)
