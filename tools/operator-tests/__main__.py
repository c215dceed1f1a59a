"""Tests of single operators, made from the schemas of ONNX: every operator x every version x every element type x attributes x shapes.

  python tools/operator-tests generate OUT [--only REGEX] [--cases N] [--seed N]   write folders `OUT/<operator>_<opset>_<types>_<n>`
  python tools/operator-tests check OUT [--only REGEX] [-- PROGRAM ARG...]          run `dnnc check` over them, sum up by operator

A folder is laid out as ONNX's backend tests are: model.onnx, test_data_set_0/input_N.pb, output_N.pb, data.json. What is expected is the answer of
`onnx.reference`, or that of ONNX Runtime where there is none. Where the two differ beyond the tolerance, a twin `<name>.ort` holds the other answer:
one of the two fails then, and the text of the specification says which may. NOTES.md says where it was read so far.
A test whose shapes follow from its inputs' shapes alone has "static": true in OUT/index.jsonl; `check --static` runs only these (for `--backend object`).

Needs the Python packages onnx (1.23), onnxruntime and numpy; ml_dtypes comes with onnx. The operators are in cases_*.py, a family a file.
"""
import argparse
import sys

import check
import generate

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
sub = ap.add_subparsers(required=True)
g = sub.add_parser("generate")
g.add_argument("out")
g.add_argument("--only", default="", help="operators whose name matches")
g.add_argument("--cases", type=int, default=4, help="cases an operator has for an element type that is not its first")
g.add_argument("--seed", type=int, default=1)
g.set_defaults(run=generate.run)
c = sub.add_parser("check")
c.add_argument("out")
c.add_argument("--only", default="", help="tests whose name matches")
c.add_argument("--static", action="store_true", help="only tests whose shapes are known without values")
c.add_argument("--sample", type=int, default=1, help="every N-th test")
c.add_argument("--list", help="write the verdicts to this file, a JSON object a line")
c.add_argument("--lines", type=int, default=3, help="failures printed an operator")
c.set_defaults(run=check.run)
argv, _, program = " ".join(sys.argv[1:]).partition(" -- ")
args = ap.parse_args(argv.split())
args.program = program.split() or ["target/release/dnnc", "check"]
sys.exit(args.run(args))
