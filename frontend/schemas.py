#!/usr/bin/env python3
"""Writes src/schemas.txt: what the ONNX standard says of each operator, from the Python package `onnx` (1.23).

One line a version of an operator, newest last:
  DOMAIN NAME SINCE ; INPUT ... ; OUTPUT ... ; ATTRIBUTE ... ; VARIABLE=TYPES ...
An input or output is `VARIABLE` or `=TYPES`, with `?` behind it when optional, `*N` when variadic (at least N), `~` when variadic and of
different types. An attribute is `NAME:KIND`, with `!` behind it when required. TYPES are letters, a letter a type; `-` is a type that is no tensor."""
import onnx, os
letters = dict(bool='b', int2='1', int4='2', int8='3', int16='4', int32='5', int64='6', uint2='7', uint4='8', uint8='9', uint16='t', uint32='u', uint64='v',
               float16='h', bfloat16='g', float='f', double='d', float8e4m3fn='A', float8e4m3fnuz='B', float8e5m2='C', float8e5m2fnuz='D', float8e8m0='E',
               float4e2m1='F', string='s')
kinds = {'INT': 'i', 'FLOAT': 'f', 'STRING': 's', 'TENSOR': 't', 'INTS': 'I', 'FLOATS': 'F', 'STRINGS': 'S', 'GRAPH': 'g', 'TYPE_PROTO': 'y', 'SPARSE_TENSOR': 'p'}
def types(strs):
    return ''.join(sorted({letters.get(t[7:-1], '-') if t.startswith('tensor(') else '-' for t in strs}))
def port(p, variables):
    text = p.type_str if p.type_str in variables else '=' + types(p.types)
    option = p.option.name
    return text + {'Single': '', 'Optional': '?', 'Variadic': f'*{p.min_arity}' + ('' if p.is_homogeneous else '~')}[option]
lines = []
for s in onnx.defs.get_all_schemas_with_history():
    if s.domain not in ('', 'ai.onnx.ml'):
        continue
    variables = [c.type_param_str for c in s.type_constraints]
    ins = ' '.join(port(p, variables) for p in s.inputs)
    outs = ' '.join(port(p, variables) for p in s.outputs)
    attrs = ' '.join(f"{n}:{kinds[a.type.name]}{'!' if a.required else ''}" for n, a in sorted(s.attributes.items()))
    cons = ' '.join(f'{c.type_param_str}={types(c.allowed_type_strs)}' for c in s.type_constraints)
    lines.append((s.domain, s.name, s.since_version, f"{s.domain or 'ai.onnx'} {s.name} {s.since_version};{ins};{outs};{attrs};{cons}"))
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'src', 'schemas.txt'), 'w') as f:
    f.writelines(line[3] + '\n' for line in sorted(lines))
