"""Runs `dnnc check` over the tests and sums up."""
import collections
import json
import os
import re
import subprocess


def verdicts(program, folders):
    """A verdict a folder; when the program dies, each is run alone to find which it was."""
    p = subprocess.run(program + ["--json"] + folders, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        rows = json.loads(p.stdout)
        if len(rows) == len(folders):
            return [(r["verdict"], r["reason"]) for r in rows]
    except ValueError:
        pass
    if len(folders) == 1:
        return [("CRASH", f"status {p.returncode}: " + p.stderr.decode("utf8", "replace").replace("\n", " ")[-300:])]
    half = len(folders) // 2
    return verdicts(program, folders[:half]) + verdicts(program, folders[half:])


def run(args):
    rows = [json.loads(line) for line in open(os.path.join(args.out, "index.jsonl"))]
    rows = [r for r in rows if re.search(args.only, r["name"]) and (r["static"] or not args.static)]
    chosen = set(sorted({r["name"].removesuffix(".ort") for r in rows})[::args.sample])
    rows = [r for r in rows if r["name"].removesuffix(".ort") in chosen]
    found = []
    for at in range(0, len(rows), 100):
        part = rows[at:at + 100]
        found += zip(part, verdicts(args.program, [os.path.join(args.out, r["name"]) for r in part]))
    by_name = {r["name"]: v for r, v in found}
    bad, total = collections.defaultdict(list), collections.Counter()
    for r, (verdict, reason) in found:
        base = r["name"].removesuffix(".ort")
        twins = [by_name[n][0] for n in (base, base + ".ort") if n in by_name]
        if r["disputed"] and "PASS" in twins:
            verdict = "PASS" if r["name"] == base else None
        if verdict:
            total[verdict] += 1
        if verdict not in ("PASS", None):
            bad[r["op"]].append((verdict, r["name"], reason))
    for op, list_ in sorted(bad.items()):
        print(f"{op}: {len(list_)}")
        for verdict, name, reason in list_[:args.lines]:
            print(f"    {verdict} {name}: {reason[:240]}")
    if args.list:
        with open(args.list, "w") as f:
            f.writelines(json.dumps({"name": r["name"], "op": r["op"], "verdict": v, "reason": why}) + "\n" for r, (v, why) in found)
    print(f"{len(found)} run: " + ", ".join(f"{n} {v}" for v, n in sorted(total.items())))
    return 0 if set(total) <= {"PASS"} else 1
