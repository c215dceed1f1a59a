"""Writes the tests."""
import json
import multiprocessing
import os
import re
import warnings
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import cases_attention  # noqa: F401  each fills TABLE
import cases_control  # noqa: F401
import cases_elementwise  # noqa: F401
import cases_linear  # noqa: F401
import cases_microsoft  # noqa: F401
import cases_movement  # noqa: F401
import cases_quant  # noqa: F401
import cases_reduce  # noqa: F401
import cases_windows  # noqa: F401
from testcase import DTYPES, FLOATS, TABLE, C, Op

FIRST, LAST = 7, 28
SHORT = dict(float="f32", double="f64", float16="f16", bfloat16="bf16")
NATIVE = {np.dtype(t) for t in ("f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
ort.set_default_logger_severity(4)
warnings.filterwarnings("ignore")


def tensor_types(allowed):
    names = [t[7:-1] for t in allowed if t.startswith("tensor(")]
    return [t for t in ("float", "int64", "int32", "bool") if t in names] + sorted(t for t in names if t in DTYPES and t not in ("float", "int64", "int32", "bool"))


def versions(name, domain):
    """(schema, opset) for each version in force at an opset of the range."""
    if domain:
        return [(None, 1)]
    since = sorted({s.since_version for s in defs.get_all_schemas_with_history() if s.name == name and s.domain == domain and not s.deprecated})
    dead = [s.since_version for s in defs.get_all_schemas_with_history() if s.name == name and s.domain == domain and s.deprecated]
    result = []
    for i, v in enumerate(since):
        end = min([LAST] + [n - 1 for n in since[i + 1:i + 2]] + [d - 1 for d in dead if d > v])
        for opset in sorted({max(v, FIRST), end}):
            if max(v, FIRST) <= opset <= end:
                result.append((defs.get_schema(name, opset, domain), opset))
    return result


def choices(schema):
    allowed = {c.type_param_str: tensor_types(c.allowed_type_strs) for c in schema.type_constraints} if schema else {}
    return {k: v for k, v in allowed.items() if v}


def assignments(schema):
    """Element types by variable: the first choice, then each variable through all of its types."""
    allowed = choices(schema)
    first = {k: v[0] for k, v in allowed.items()}
    if schema and schema.name in ("DequantizeLinear", "QuantizeLinear"):
        first[{"DequantizeLinear": "T1", "QuantizeLinear": list(first)[-1]}[schema.name]] = "uint8"
    result = [first]
    for variable, types in allowed.items():
        result += [{**first, variable: t} for t in types if t != first[variable]]
    return result


def port_type(schema, i, types):
    if schema is None:
        return "float"
    port = schema.inputs[min(i, len(schema.inputs) - 1)]
    if port.type_str in types:
        return types[port.type_str]
    return (tensor_types(port.types) or ["float"])[0]


def model_of(name, domain, opset, case, arrays, free):
    """The model, and the names of its inputs."""
    inputs, initializers, names = [], [], []
    for i, x in enumerate(arrays):
        if x is None:
            names.append("")
            continue
        names.append(f"x{i}")
        if isinstance(case.inputs[i], C) and not (free or case.inputs[i].free):
            initializers.append(numpy_helper.from_array(x, names[-1]))
        else:
            inputs.append(helper.make_tensor_value_info(names[-1], helper.np_dtype_to_tensor_dtype(x.dtype), x.shape))
    while names and not names[-1]:
        names.pop()
    wanted = [True] * case.outputs if isinstance(case.outputs, int) else case.outputs
    outs = [f"y{i}" if w else "" for i, w in enumerate(wanted)]
    node = helper.make_node(name, names, outs, domain=domain, **case.attrs)
    values = [onnx.ValueInfoProto(name=o) for o in outs if o]
    graph = helper.make_graph([node], "g", inputs, values, initializers)
    return finish(graph, domain, opset), [i.name for i in inputs]


def finish(graph, domain, opset, functions=()):
    opsets = [helper.make_opsetid("", 21 if domain else opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    version = min(helper.find_min_ir_version_for(opsets[:1]), 13)
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(version, 4), functions=functions)


def by_reference(model, feeds):
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, feeds)]


def by_runtime(model, feeds):
    if any(x.dtype not in NATIVE for x in feeds.values()):
        raise ValueError("an element type that numpy does not know")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    results = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    if not all(isinstance(y, np.ndarray) for y in results):
        raise ValueError("a result that is no tensor")
    return results


def serve(pipe):
    while True:
        model, feeds = pipe.recv()
        try:
            pipe.send(by_runtime(model, feeds))
        except BaseException as e:  # pylint: disable=broad-except  whatever it is, it is not an answer
            pipe.send(str(e) or type(e).__name__)


class Runtime:
    """ONNX Runtime in a process of its own: some models end it."""

    def __init__(self):
        self.process = None

    def __call__(self, model, feeds):
        if self.process is None:
            self.pipe, far = multiprocessing.Pipe()
            self.process = multiprocessing.get_context("fork").Process(target=serve, args=(far,), daemon=True)
            self.process.start()
            far.close()
        try:
            self.pipe.send((model, feeds))
            if not self.pipe.poll(20):
                raise EOFError
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.kill()
            self.process = None
            raise ValueError("ONNX Runtime died") from None
        if isinstance(answer, str):
            raise ValueError(answer)
        return answer


def close(a, b, rtol, atol):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "iub":
        return bool((a == b).all())
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        return bool(((np.abs(a - b) <= atol + rtol * np.abs(a)) | (a == b) | (np.isnan(a) & np.isnan(b))).all())


def tolerance(case, arrays, results):
    """Relative and absolute: the narrowest float there is sets them."""
    names = {str(x.dtype) for x in list(arrays) + list(results) if x is not None}
    narrow = "bfloat16" in names, "float16" in names or any("float8" in n or "float4" in n for n in names)
    rtol, atol = (2e-2, 1e-2) if narrow[0] else (4e-3, 2e-3) if narrow[1] else (1e-4, 1e-5)
    return case.rtol or rtol, case.atol if case.atol is not None else atol


def write(folder, model, feeds, results, rtol, atol):
    data = os.path.join(folder, "test_data_set_0")
    os.makedirs(data, exist_ok=True)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    for kind, arrays in (("input", feeds.values()), ("output", results)):
        for i, x in enumerate(arrays):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(x), f"{kind}{i}").SerializeToString())
    with open(os.path.join(folder, "data.json"), "w") as f:
        json.dump({"rtol": rtol, "atol": atol}, f)


class Writer:
    def __init__(self, args):
        os.makedirs(args.out, exist_ok=True)
        self.out, self.lost, self.disputed, self.written = args.out, 0, 0, 0
        self.runtime = Runtime()
        self.files = {k: open(os.path.join(args.out, f"{k}.jsonl"), "w", buffering=1) for k in ("index", "lost")}

    def lose(self, name, why):
        self.lost += 1
        self.files["lost"].write(json.dumps({"name": name, "why": why}) + "\n")

    def put(self, name, op, model, feeds, case, arrays, static):
        answers, why = [], []
        for who, way in (("reference", by_reference), ("ONNX Runtime", self.runtime)):
            try:
                answers.append(way(model, feeds))
            except BaseException as e:  # pylint: disable=broad-except  whatever a reference dies of
                answers.append(None)
                why.append(f"{who}: {str(e).splitlines()[0][:150] if str(e) else type(e).__name__}")
        reference, runtime = answers
        first = reference if reference is not None else runtime
        if first is None:
            self.lose(name, why)
            return
        rtol, atol = tolerance(case, arrays, first)
        twins = [(name, first)]
        if reference is not None and runtime is not None:
            same = len(reference) == len(runtime) and all(close(a, b, 2 * rtol, 2 * atol) for a, b in zip(reference, runtime))
            if not same:
                self.disputed += 1
                twins.append((name + ".ort", runtime))
        for n, results in twins:
            try:
                write(os.path.join(self.out, n), model, feeds, results, rtol, atol)
            except Exception as e:  # pylint: disable=broad-except  the answer is no tensor
                self.lose(n, [str(e)[:150]])
                continue
            self.files["index"].write(json.dumps({"name": n, "op": op, "static": static, "disputed": len(twins) > 1}) + "\n")
            self.written += 1

    def close(self):
        for f in self.files.values():
            f.close()
        print(f"{self.written} tests; {self.disputed} cases disputed; {self.lost} without an answer (lost.jsonl)")


def run(args):
    writer = Writer(args)
    for (domain, name), family in sorted(TABLE.items()):
        if not re.search(args.only, (domain + "." if domain else "") + name):
            continue
        if getattr(family, "whole", False):
            for label, opset, model, feeds, static in family(np.random.default_rng(args.seed)):
                writer.put(f"{name}_{opset}_{label}", name, model, feeds, family.case, list(feeds.values()), static)
            continue
        for schema, opset in versions(name, domain):
            for nth, types in enumerate(assignments(schema)):
                seed = zlib.crc32(f"{name} {opset} {types} {args.seed}".encode())
                rng = np.random.default_rng(seed)
                op = Op(name, schema.since_version if schema else 1, opset, types, rng, choices(schema))
                try:
                    cases = list(family(op))
                except Exception as e:
                    raise RuntimeError(f"the cases of {name} at opset {opset} with {types}") from e
                label = "_".join(SHORT.get(t, t) for t in types.values()) or "any"
                for k, case in enumerate(cases):
                    insists = all(types.get(v) in (t if isinstance(t, tuple) else (t,)) for v, t in case.types.items() if v in types)
                    if not case.since <= opset <= case.until or not insists or (nth and k >= args.cases and not getattr(family, "all_types", False)):
                        continue
                    arrays = [x if x is None else x if isinstance(x, np.ndarray) else x.make(port_type(schema, i, types), rng) for i, x in enumerate(case.inputs)]
                    # The first constants are also given as inputs once: sizes then depend on data.
                    for free in (False, True) if nth == 0 and k < 3 and any(isinstance(x, C) and not x.free for x in case.inputs) else (False,):
                        try:
                            model, names = model_of(name, domain, opset, case, arrays, free)
                        except Exception as e:
                            raise RuntimeError(f"case {k} of {name} at opset {opset} with {types}") from e
                        given = [x for i, x in enumerate(arrays) if x is not None and f"x{i}" in names]
                        static = not free and not any(isinstance(x, C) and x.free for x in case.inputs)
                        writer.put(f"{name}_{opset}_{label}_{k}{'_free' if free else ''}", (domain + "." if domain else "") + name, model, dict(zip(names, given)), case, arrays, static)
    writer.close()
    return 0
