"""Attention and its relatives."""
import numpy as np

from testcase import C, Case, R, ops

TYPES = [dict(), dict(is_causal=1), dict(scale=0.3), dict(softcap=2.0), dict(qk_matmul_output_mode=1), dict(qk_matmul_output_mode=2), dict(qk_matmul_output_mode=3), dict(softmax_precision=1)]


@ops("Attention")
def attention(op):
    b, length, total, d, e = 2, 3, 5, 4, 6
    u = op.types["U"]
    for heads, kv in ((2, 2), (4, 2), (3, 1)):
        for flat in (False, True):
            q = R(b, length, heads * d) if flat else R(b, heads, length, d)
            k = R(b, total, kv * d) if flat else R(b, kv, total, d)
            v = R(b, total, kv * e) if flat else R(b, kv, total, e)
            a = dict(q_num_heads=heads, kv_num_heads=kv) if flat else {}
            for extra in TYPES:
                outs = [True, False, False, True] if "qk_matmul_output_mode" in extra else 1
                yield Case([q, k, v], a | extra, outputs=outs)
                yield Case([q, k, v, R(length, total)], a | extra, outputs=outs)
                yield Case([q, k, v, R(b, 1, length, total)], a | extra | dict(is_causal=1), outputs=outs)
                yield Case([q, k, v, R(b, heads, length, total)], a | extra, outputs=outs)
                past = 2
                pk, pv = R(b, kv, past, d), R(b, kv, past, e)
                yield Case([q, k, v, None, pk, pv], a | extra, outputs=[True, True, True] + ([True] if outs != 1 else []))
                yield Case([q, k, v, R(length, total + past), pk, pv], a | extra | dict(is_causal=1), outputs=[True, True, True] + ([True] if outs != 1 else []))
                if op.since >= 24:
                    yield Case([q, k, v, None, None, None, C([3, 5], free=True)], a | extra, outputs=outs)
                    yield Case([q, k, v, R(length, total), None, None, C([4, 2], free=True)], a | extra | dict(is_causal=1), outputs=outs)
                    yield Case([q, k, v, R(length, total - 1)], a | extra, outputs=outs)
                if op.since >= 25:
                    for w in (dict(left_window_size=1), dict(right_window_size=0), dict(left_window_size=1, right_window_size=1), dict(left_window_size=2, is_causal=1), dict(left_window_size=0, right_window_size=0)):
                        yield Case([q, k, v], a | extra | w, outputs=outs)
                        yield Case([q, k, v, R(length, total + past), pk, pv], a | extra | w, outputs=[True, True, True])
                        yield Case([q, k, v, None, None, None, C([3, 5], free=True)], a | extra | w, outputs=outs)


@ops("RotaryEmbedding")
def rotary(op):
    b, n, s, h = 2, 3, 4, 8
    for flat in (False, True):
        x = R(b, s, n * h) if flat else R(b, n, s, h)
        for a in ({}, dict(interleaved=1), dict(rotary_embedding_dim=4), dict(rotary_embedding_dim=4, interleaved=1)):
            a = a | (dict(num_heads=n) if flat else {})
            half = a.get("rotary_embedding_dim", h) // 2
            yield Case([x, R(9, half, lo=-1, hi=1), R(9, half, lo=-1, hi=1), R(b, s, lo=0, hi=8)], a)
            yield Case([x, R(b, s, half, lo=-1, hi=1), R(b, s, half, lo=-1, hi=1)], a)


@ops("LinearAttention")
def linear_attention(op):
    b, t, dk, dv = 2, 4, 3, 5
    for heads, kv in ((2, 2), (4, 2), (2, 1)):
        for rule in ("linear", "gated", "delta", "gated_delta"):
            for per_key in (False, True):
                for past in (False, True):
                    for one in (False, True):
                        gated, delta = "gated" in rule, "delta" in rule
                        x = [R(b, t, heads * dk, lo=-1, hi=1), R(b, t, kv * dk, lo=-1, hi=1), R(b, t, kv * dv, lo=-1, hi=1), R(b, kv, dk, dv, lo=-1, hi=1) if past else None,
                             R(b, t, kv * dk if per_key else kv, lo=-1, hi=0) if gated else None, R(b, t, 1 if one else kv, lo=0, hi=1) if delta else None]
                        while x[-1] is None:
                            x.pop()
                        yield Case(x, dict(q_num_heads=heads, kv_num_heads=kv, update_rule=rule) | (dict(scale=0.7) if one else {}), outputs=2)
