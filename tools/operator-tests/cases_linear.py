"""Matrix multiplication and convolution."""
from testcase import C, Case, R, ops

MATMULS = [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 2)), ((0, 4), (4, 5)), ((3, 0), (0, 5)),
           ((1, 2, 1, 2, 1, 2, 3, 4), (2, 1, 2, 1, 4, 2)), ((17, 33), (33, 19)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,)), ((1, 64), (64, 33))]


@ops("MatMul")
def matmul(op):
    for a, b in MATMULS:
        yield Case([R(*a), R(*b)])
    yield Case([R(5, 6), C(R(6, 4).make(op.types["T"], op.rng))])


@ops("Gemm")
def gemm(op):
    integer = not op.types["T"].startswith(("float", "double", "bfloat"))
    for ta in (0, 1):
        for tb in (0, 1):
            for c in ((5,), (3, 5), (3, 1), (), (1, 5), (1,)):
                a, b = ((4, 3) if ta else (3, 4)), ((5, 4) if tb else (4, 5))
                yield Case([R(*a), R(*b), R(*c)], dict(transA=ta, transB=tb, alpha=2.0 if integer else 0.5, beta=3.0 if integer else 0.25))
    yield Case([R(3, 4), R(4, 5), R(5)])
    if op.since >= 11:
        yield Case([R(3, 4), R(4, 5)])
        yield Case([R(3, 4), R(4, 5)], dict(alpha=2.0))
    yield Case([R(0, 4), R(4, 5), R(5)])
    yield Case([R(3, 0), R(0, 5), R(5)])
    yield Case([R(3, 4), R(4, 5), R(5)], dict(beta=0.0))


@ops("Einsum")
def einsum(op):
    for equation, shapes in [("ij,jk->ik", [(3, 4), (4, 5)]), ("ij->ji", [(3, 4)]), ("ii->i", [(4, 4)]), ("ii", [(4, 4)]), ("ij->", [(3, 4)]), ("ij,ij->i", [(3, 4), (3, 4)]), ("i,j->ij", [(3,), (4,)]),
                             ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]), ("bhqd,bhkd->bhqk", [(1, 2, 3, 4), (1, 2, 5, 4)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
                             ("a,b,c->abc", [(2,), (3,), (2,)]), ("...ii->...i", [(2, 3, 3)]), ("ij,kj", [(2, 3), (4, 3)]), (" i j , j k -> i k ", [(2, 3), (3, 4)]), ("iij->j", [(3, 3, 2)]),
                             ("ijk,ljk->il", [(2, 3, 4), (5, 3, 4)]), ("...->...", [(2, 3)]), ("b...,b->...", [(2, 3, 4), (2,)]), ("Ab,bC->AC", [(2, 3), (3, 4)]), ("i,->i", [(3,), ()]), ("...,...", [(2, 3), (3,)]),
                             ("ij,ij->ij", [(2, 3), (1, 3)]) if False else ("ij,jk->ik", [(0, 4), (4, 5)]), ("abcdefgh->hgfedcba", [(1, 2, 1, 2, 1, 2, 1, 2)])]:
        yield Case([R(*s) for s in shapes], dict(equation=equation))


@ops("MatMulInteger")
def matmul_integer(op):
    for a, b in MATMULS:
        yield Case([R(*a, lo=-99, hi=99), R(*b, lo=-99, hi=99)])
    yield Case([R(3, 4, lo=-99, hi=99), R(4, 5, lo=-99, hi=99), C(3)])
    yield Case([R(3, 4, lo=-99, hi=99), R(4, 5, lo=-99, hi=99), C(3), C(2)])
    yield Case([R(3, 4, lo=-99, hi=99), R(4, 5, lo=-99, hi=99), None, C([1, 2, 3, 4, 5])])
    yield Case([R(3, 4, lo=-99, hi=99), R(4, 5, lo=-99, hi=99), C([1, 2, 3]), C([1, 2, 3, 4, 5])])
    yield Case([R(2, 3, 4, lo=-99, hi=99), R(2, 4, 5, lo=-99, hi=99), R(lo=0, hi=9), R(lo=0, hi=9)])
    yield Case([R(2, 3, 4, lo=-99, hi=99), R(2, 4, 5, lo=-99, hi=99), R(2, 3, 1, lo=0, hi=9), R(2, 1, 5, lo=0, hi=9)])


CONVS = [((1, 2, 5, 5), (3, 2, 3, 3), {}), ((2, 4, 6, 5), (4, 2, 3, 2), dict(group=2, strides=[2, 1], pads=[1, 0, 0, 1])), ((1, 3, 7), (2, 3, 3), dict(dilations=[2])),
         ((1, 2, 4, 4, 4), (2, 2, 2, 2, 2), dict(pads=[1] * 6)), ((1, 3, 6, 6), (3, 1, 3, 3), dict(group=3, pads=[1] * 4)), ((1, 2, 7, 6), (2, 2, 3, 3), dict(auto_pad="SAME_UPPER", strides=[2, 2])),
         ((1, 2, 7, 6), (2, 2, 2, 2), dict(auto_pad="SAME_LOWER", strides=[2, 2])), ((1, 2, 7, 6), (2, 2, 3, 3), dict(auto_pad="VALID")), ((0, 2, 5, 5), (3, 2, 3, 3), {}),
         ((1, 2, 8, 8), (3, 2, 3, 3), dict(dilations=[2, 3], pads=[2, 1, 2, 1])), ((1, 2, 5, 5), (3, 2, 1, 1), dict(kernel_shape=[1, 1])), ((1, 2, 3, 3, 3, 3), (2, 2, 2, 2, 2, 2), {}),
         ((1, 16, 9, 9), (16, 16, 3, 3), dict(pads=[1] * 4)), ((1, 4, 6, 6), (8, 1, 3, 3), dict(group=4)), ((1, 1, 3, 3), (1, 1, 3, 3), dict(pads=[2, 2, 2, 2], strides=[3, 3]))]


@ops("Conv")
def conv(op):
    for x, w, attrs in CONVS:
        yield Case([R(*x), R(*w)], attrs)
        yield Case([R(*x), R(*w), R(w[0])], attrs)
    yield Case([R(1, 4, 6, 6), C(R(4, 4, 3, 3).make(op.types["T"], op.rng)), C(R(4).make(op.types["T"], op.rng))], dict(pads=[1] * 4))


@ops("ConvInteger")
def conv_integer(op):
    for x, w, attrs in CONVS:
        yield Case([R(*x, lo=-50, hi=50), R(*w, lo=-50, hi=50)], attrs)
        yield Case([R(*x, lo=-50, hi=50), R(*w, lo=-50, hi=50), C(3)], attrs)
        yield Case([R(*x, lo=-50, hi=50), R(*w, lo=-50, hi=50), C(3), C(2)], attrs)
        yield Case([R(*x, lo=-50, hi=50), R(*w, lo=-50, hi=50), C(3), R(w[0], lo=0, hi=9)], attrs)


@ops("ConvTranspose")
def conv_transpose(op):
    for x, w, attrs in [((1, 2, 3, 3), (2, 3, 3, 3), {}), ((1, 2, 3, 3), (2, 3, 3, 3), dict(strides=[2, 2])), ((1, 2, 3, 3), (2, 3, 3, 3), dict(strides=[2, 2], output_padding=[1, 1])),
                        ((1, 2, 3, 3), (2, 3, 3, 3), dict(strides=[3, 2], output_shape=[10, 8])), ((1, 2, 3, 3), (2, 3, 3, 3), dict(pads=[1, 2, 1, 2], strides=[3, 2])),
                        ((1, 2, 3, 3), (2, 3, 2, 2), dict(dilations=[2, 2])), ((1, 4, 3, 3), (4, 1, 3, 3), dict(group=2)), ((1, 2, 3), (2, 3, 3), {}), ((1, 2, 2, 3, 2), (2, 2, 2, 2, 2), dict(strides=[2, 1, 2])),
                        ((1, 2, 3, 3), (2, 3, 3, 3), dict(auto_pad="SAME_UPPER", strides=[2, 2])), ((1, 2, 3, 3), (2, 3, 3, 3), dict(auto_pad="SAME_LOWER", strides=[2, 2])),
                        ((1, 2, 3, 3), (2, 3, 3, 3), dict(auto_pad="VALID")), ((1, 3, 5, 5), (3, 1, 3, 3), dict(group=3, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])),
                        ((1, 2, 3, 3), (2, 3, 3, 3), dict(strides=[2, 2], output_shape=[7, 7])), ((1, 2, 3, 3), (2, 3, 3, 3), dict(output_shape=[6, 6], output_padding=[1, 1], strides=[2, 2])),
                        ((1, 2, 3, 3), (2, 3, 1, 1), dict(strides=[2, 2])), ((2, 2, 4, 4), (2, 2, 3, 3), dict(strides=[2, 2], output_shape=[8, 8], auto_pad="SAME_LOWER")), ((0, 2, 3, 3), (2, 3, 3, 3), {})]:
        yield Case([R(*x), R(*w)], attrs)
        yield Case([R(*x), R(*w), R(w[1] * attrs.get("group", 1))], attrs)


@ops("DeformConv")
def deform_conv(op):
    for n, c, h, w, o, k, attrs in [(1, 2, 5, 5, 3, 3, {}), (2, 4, 5, 6, 4, 2, dict(group=2, offset_group=2, pads=[1, 0, 0, 1])), (1, 2, 6, 6, 2, 3, dict(strides=[2, 2], pads=[1] * 4)),
                                    (1, 2, 7, 7, 2, 3, dict(dilations=[2, 2]))]:
        s, d, p, og = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1]), attrs.get("pads", [0] * 4), attrs.get("offset_group", 1)
        oh = (h + p[0] + p[2] - d[0] * (k - 1) - 1) // s[0] + 1
        ow = (w + p[1] + p[3] - d[1] * (k - 1) - 1) // s[1] + 1
        x = [R(n, c, h, w), R(o, c // attrs.get("group", 1), k, k), R(n, og * 2 * k * k, oh, ow, lo=-1.5, hi=1.5)]
        yield Case(x, attrs)
        yield Case(x + [R(o)], attrs)
        yield Case(x + [R(o), R(n, og * k * k, oh, ow, lo=0, hi=1)], attrs)
        yield Case(x + [None, R(n, og * k * k, oh, ow, lo=0, hi=1)], attrs)


@ops("CausalConvWithState")
def causal_conv(op):
    for attrs in ({}, dict(activation="silu"), dict(activation="swish"), dict(activation="none")):
        for n, c, length, k in [(2, 3, 6, 3), (1, 2, 1, 4), (1, 2, 5, 1)]:
            x = [R(n, c, length), R(c, 1, k)]
            yield Case(x, attrs, outputs=2)
            yield Case(x + [R(c)], attrs, outputs=2)
            yield Case(x + [R(c), R(n, c, k - 1)], attrs, outputs=2)
            yield Case(x + [None, R(n, c, k - 1)], attrs, outputs=1)
