"""`python -m tests.fuzz.run --count N --seed S`: differential fuzz of the engine against the interpreter."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from promql.builder import ParserOptions
from promql.parser import parse
from tests.fuzz.coverage import EVERYTHING, contents
from tests.fuzz.differ import Fuzz


def main() -> int:
    """Run cases; print differences and the command that repeats each; 1 if there was any."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="number of random queries")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--show", type=int, default=10, help="how many differences to print")
    args = parser.parse_args()
    fuzz = Fuzz(args.seed)
    started = time.monotonic()
    found = 0
    covered: Counter[str] = Counter()
    for number in range(args.first, args.first + args.count):
        case = fuzz.case(number)
        covered.update(contents(parse(case.query, ParserOptions.everything())))
        try:
            difference = fuzz.compare(case)
            text = "" if difference is None else str(difference)
        except Exception:
            text = f"case {args.seed}:{number} {case.query!r}\n{traceback.format_exc(limit=-2)}"
        if not text:
            continue
        found += 1
        if found <= args.show:
            print(text)
            print(f"  repeat: python -m tests.fuzz.run --seed {args.seed} --first {number} --count 1")
    seconds = time.monotonic() - started
    kinds: dict[str, list[str]] = {}
    for item in sorted(EVERYTHING):
        kind, _, name = item.partition(" ")
        kinds.setdefault(kind, []).append(f"{name} {covered[item]}")
    for kind, counts in kinds.items():
        print(f"queries by {kind}: {', '.join(counts)}")
    for reason, count in fuzz.skipped.most_common():
        print(f"not compared: {count} x {reason}")
    print(f"{args.count} queries, {found} differences, seed {args.seed}, {seconds:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
