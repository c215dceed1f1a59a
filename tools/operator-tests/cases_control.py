"""Control flow and functions of the model: whole models, written in ONNX's text form."""
import numpy as np
import onnx
from onnx import parser

from testcase import Case, ops


def whole(name):
    def put(f):
        f.whole, f.case = True, Case([])
        return ops(name)(f)

    return put


def models(rng, rows):
    for opsets, label, text, feeds, static in rows:
        for opset in opsets:
            version = 13 if opset > 23 else 10 if opset > 20 else 8 if opset > 14 else 7
            model = parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}, "local" : 1]>\n' + text)
            for o in model.graph.output:
                o.ClearField("type")
            yield label, opset, model, {k: v for k, v in feeds.items()}, static


def f32(rng, *shape):
    return rng.uniform(-2, 2, shape).astype(np.float32)


ALL = (7, 8, 11, 13, 16, 19, 21, 23, 24, 25)


@whole("If")
def branches(rng):
    rows = []
    for c in (True, False):
        for k, (then, other, static) in enumerate([
                ("y = Add(x, w)", "y = Mul(x, w)", True),
                ("y = Identity(x)", "y = Neg(w)", True),
                ("y = Exp(x)", "t = Abs(x)\n z = Add(t, w)\n y = Sqrt(z)", True)]):
            rows.append((ALL, f"{k}_{c}", f"""g (bool c, float[2,3] x, float[2,3] w) => (float[2,3] r, float[2,3] s) {{
                y0 = If(c) <then_branch = t () => (float[2,3] y) {{ {then} }}, else_branch = e () => (float[2,3] y) {{ {other} }}>
                r = Abs(y0)
                s = Add(y0, x)
            }}""", dict(c=np.array(c), x=f32(rng, 2, 3), w=f32(rng, 2, 3)), static))
        rows.append((ALL[2:], f"shapes_{c}", """g (bool c, float[2,3] x) => (r) {
            y0 = If(c) <then_branch = t () => (y) { k = Constant<value = int64[1] {1}>() y = ReduceSum<keepdims=0>(x) }, else_branch = e () => (y) { y = Transpose(x) }>
            r = Neg(y0)
        }""".replace("=> (r)", "=> (float r)").replace("=> (y)", "=> (float y)"), dict(c=np.array(c), x=f32(rng, 2, 3)), False))
        rows.append((ALL[2:], f"nested_{c}", """g (bool c, bool d, float[3] x) => (float[3] r) {
            r = If(c) <then_branch = t () => (float[3] y) {
                    y = If(d) <then_branch = tt () => (float[3] z) { z = Neg(x) }, else_branch = te () => (float[3] z) { z = Exp(x) }>
                }, else_branch = e () => (float[3] y) { y = Add(x, x) }>
        }""", dict(c=np.array(c), d=np.array(not c), x=f32(rng, 3)), True))
        rows.append((ALL[2:], f"two_{c}", """g (bool[1] c, float[3] x) => (float[3] r, int64[2] s) {
            r, s = If(c) <then_branch = t () => (float[3] y, int64[2] z) { y = Neg(x) z = Constant<value = int64[2] {1, 2}>() },
                          else_branch = e () => (float[3] y, int64[2] z) { y = Add(x, x) z = Constant<value = int64[2] {3, 4}>() }>
        }""", dict(c=np.array([c]), x=f32(rng, 3)), True))
    return models(rng, rows)


@whole("Loop")
def loops(rng):
    rows = []
    body = """(int64 i, bool c, float[3] a) => (bool d, float[3] b, float[3] s) { d = Identity(c) t = Mul(a, w) b = Add(t, w) s = Neg(b) }"""
    for n in (0, 1, 5):
        rows.append((ALL[2:], f"trip_{n}", f"g (int64 n, float[3] x, float[3] w) => (float[3] y, float[k,3] z) {{ y, z = Loop(n, , x) <body = b {body}> }}",
                     dict(n=np.array(n), x=f32(rng, 3), w=f32(rng, 3)), False))
        rows.append((ALL[2:], f"fixed_{n}", f"g (float[3] x, float[3] w) => (float[3] y, float[k,3] z) {{ n = Constant<value = int64 {{{n}}}>() y, z = Loop(n, , x) <body = b {body}> }}",
                     dict(x=f32(rng, 3), w=f32(rng, 3)), True))
        rows.append((ALL[2:], f"cond_{n}", """g (int64 n, bool c, float x, float w) => (float y, float[k] z) { y, z = Loop(n, c, x) <body = b (int64 i, bool c0, float a) => (bool d, float b, float s) {
            b = Add(a, w) lim = Constant<value = float {6.0}>() d = Less(b, lim) s = Mul(b, b) }> }""", dict(n=np.array(n), c=np.array(True), x=np.float32(0), w=np.float32(2.5)), False))
        rows.append((ALL[2:], f"grow_{n}", """g (int64 n, float[2] x) => (float[k] y) { y = Loop(n, , x) <body = b (int64 i, bool c0, float[m] a) => (bool d, float[p] b) { d = Identity(c0) b = Concat<axis=0>(a, a) }> }""",
                     dict(n=np.array(n), x=f32(rng, 2)), False))
    rows.append((ALL[2:], "while", """g (bool c, int64 x) => (int64 y, int64[k] z) { y, z = Loop( , c, x) <body = b (int64 i, bool c0, int64 a) => (bool d, int64 b, int64 s) {
        one = Constant<value = int64 {3}>() b = Add(a, one) lim = Constant<value = int64 {17}>() d = Less(b, lim) s = Mul(b, i) }> }""", dict(c=np.array(True), x=np.array(1)), False))
    rows.append((ALL[2:], "nested", """g (int64 n, int64 m, float[2] x) => (float[2] y, float[k,l,2] z) { y, z = Loop(n, , x) <body = b (int64 i, bool c0, float[2] a) => (bool d, float[2] b, float[q,2] s) {
        d = Identity(c0) b, s = Loop(m, , a) <body = bb (int64 j, bool c1, float[2] e) => (bool f, float[2] g2, float[2] h) { f = Identity(c1) g2 = Add(e, x) h = Mul(g2, a) }> }> }""",
                 dict(n=np.array(3), m=np.array(2), x=f32(rng, 2)), False))
    rows.append((ALL[2:], "never", "g (bool c, float[3] x, float[3] w) => (float[3] y, float[k,3] z) { n = Constant<value = int64 {4}>() y, z = Loop(n, c, x) <body = b " + body + "> }",
                 dict(c=np.array(False), x=f32(rng, 3), w=f32(rng, 3)), False))
    rows.append((ALL[2:], "slices", """g (float[4,3] x, float[3] a0) => (float[3] y, float[k,3] z) { n = Constant<value = int64 {4}>() y, z = Loop(n, , a0) <body = b (int64 i, bool c0, float[3] a) => (bool d, float[3] b, float[3] s) {
        d = Identity(c0) row = Gather<axis=0>(x, i) b = Add(a, row) s = Identity(b) }> }""", dict(x=f32(rng, 4, 3), a0=f32(rng, 3)), True))
    return models(rng, rows)


@whole("Scan")
def scans(rng):
    body = "(float[2] s, float[2] x) => (float[2] t, float[2] y) { t = Add(s, x) y = Mul(t, w) }"
    rows = [(ALL[2:], "sum", f"g (float[2] s0, float[5,2] x0, float[2] w) => (float[2] s1, float[5,2] y0) {{ s1, y0 = Scan<num_scan_inputs=1, body = b {body}>(s0, x0) }}",
             dict(s0=f32(rng, 2), x0=f32(rng, 5, 2), w=f32(rng, 2)), True)]
    for k, attrs in enumerate(["scan_input_directions = [1]", "scan_output_directions = [1]", "scan_input_directions = [1], scan_output_directions = [1]"]):
        rows.append((ALL[2:], f"direction_{k}", f"g (float[2] s0, float[5,2] x0, float[2] w) => (float[2] s1, float[5,2] y0) {{ s1, y0 = Scan<num_scan_inputs=1, {attrs}, body = b {body}>(s0, x0) }}",
                     dict(s0=f32(rng, 2), x0=f32(rng, 5, 2), w=f32(rng, 2)), True))
    rows.append((ALL[2:], "axes", f"g (float[2] s0, float[2,5] x0, float[2] w) => (float[2] s1, float[2,5] y0) {{ s1, y0 = Scan<num_scan_inputs=1, scan_input_axes = [1], scan_output_axes = [1], body = b {body}>(s0, x0) }}",
                 dict(s0=f32(rng, 2), x0=f32(rng, 2, 5), w=f32(rng, 2)), True))
    rows.append((ALL[2:], "negative", f"g (float[2] s0, float[2,5] x0, float[2] w) => (float[2] s1, float[2,5] y0) {{ s1, y0 = Scan<num_scan_inputs=1, scan_input_axes = [-1], scan_output_axes = [-1], body = b {body}>(s0, x0) }}",
                 dict(s0=f32(rng, 2), x0=f32(rng, 2, 5), w=f32(rng, 2)), True))
    rows.append((ALL[2:], "two", """g (float[5] x0, float[5,2] z0) => (float[5] y0, float[5,2] y1) { y0, y1 = Scan<num_scan_inputs=2, body = b (float x, float[2] z) => (float y, float[2] v) { y = Exp(x) v = Mul(z, x) }>(x0, z0) }""",
                 dict(x0=f32(rng, 5), z0=f32(rng, 5, 2)), True))
    rows.append(((8,), "eight", "g (float[2,3] s0, float[2,4,3] x0) => (float[2,3] s1, float[2,4,3] y0) { s1, y0 = Scan<num_scan_inputs=1, body = b (float[3] s, float[3] x) => (float[3] t, float[3] y) { t = Add(s, x) y = Mul(t, x) }>( , s0, x0) }",
                 dict(s0=f32(rng, 2, 3), x0=f32(rng, 2, 4, 3)), True))
    rows.append(((8,), "lengths", "g (int64[2] n, float[2,3] s0, float[2,4,3] x0) => (float[2,3] s1, float[2,4,3] y0) { s1, y0 = Scan<num_scan_inputs=1, body = b (float[3] s, float[3] x) => (float[3] t, float[3] y) { t = Add(s, x) y = Mul(t, x) }>(n, s0, x0) }",
                 dict(n=np.array([2, 4]), s0=f32(rng, 2, 3), x0=f32(rng, 2, 4, 3)), False))
    return models(rng, rows)


def functions(rng):
    x = f32(rng, 2, 3)
    imports = '<opset_import: ["" : 18, "local" : 1], domain: "local"'
    rows = [
        ((18,), "plain", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.twice(x) }}\n{imports}> twice (a) => (b) {{ b = Add(a, a) }}", dict(x=x), True),
        ((18,), "nested", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.four(x) }}\n{imports}> twice (a) => (b) {{ b = Add(a, a) }}\n{imports}> four (a) => (b) {{ t = local.twice(a) b = local.twice(t) }}", dict(x=x), True),
        ((18,), "attribute", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.leaky<al = 0.3>(x) }}\n{imports}> leaky <al> (a) => (b) {{ b = LeakyRelu<alpha : float = @al>(a) }}", dict(x=x), True),
        ((18,), "default", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.leaky(x) }}\n{imports}> leaky <al : float = 0.7> (a) => (b) {{ b = LeakyRelu<alpha : float = @al>(a) }}", dict(x=x), True),
        ((18,), "deep", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.outer<k = 1>(x) }}\n{imports}> inner <axis> (a) => (b) {{ b = Softmax<axis : int = @axis>(a) }}\n{imports}> outer <k> (a) => (b) {{ t = local.inner<axis : int = @k>(a) b = Neg(t) }}", dict(x=x), True),
        ((18,), "results", f"g (float[2,3] x) => (float[2,3] y, float[2,3] z) {{ y, z = local.both(x) }}\n{imports}> both (a) => (b, c) {{ b = Neg(a) c = Exp(a) }}", dict(x=x), True),
        ((18,), "branches", f"g (bool c, float[2,3] x) => (float[2,3] y) {{ y = local.choose(c, x) }}\n{imports}> choose (c, a) => (b) {{ b = If(c) <then_branch = t () => (float[2,3] u) {{ u = Neg(a) }}, else_branch = e () => (float[2,3] u) {{ u = Exp(a) }}> }}", dict(c=np.array(True), x=x), True),
        ((18,), "constant", f"g (float[2,3] x) => (float[2,3] y) {{ y = local.shift<by = [1.0, 2.0, 3.0]>(x) }}\n{imports}> shift <by> (a) => (b) {{ k = Constant<value_floats : floats = @by>() b = Add(a, k) }}", dict(x=x), True),
    ]
    return models(rng, rows)


whole("Function")(functions)
