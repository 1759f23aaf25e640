"""Kills of bulk compression and mutated inputs of the decoders: ``python -m benchmarks.faults``.

Runs ``tests.faults.kill`` and ``tests.faults.fuzz``, each in a process of its own, and writes what they counted to
benchmarks/results/faults.json. The exit status is 1 where either found something wrong; nothing is written then.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.measure.machine import record

RESULT = Path("benchmarks/results/faults.json")


def main() -> int:
    """Run both and write the result; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=150, help="How long inputs are mutated.")
    options = parser.parse_args()
    lines = []
    for module, number in (("kill", options.kills), ("fuzz", options.seconds)):
        done = subprocess.run(
            [sys.executable, "-m", f"tests.faults.{module}", str(number)], capture_output=True, text=True
        )
        print(done.stdout + done.stderr, end="")
        if done.returncode:
            return 1
        lines.append(done.stdout.strip().splitlines()[-1])
    kills, rounds = counted(r"(\d+) kills \(.*\), (\d+) rounds", lines[0])
    mutations, accepted = counted(r"(\d+) executions .* (\d+) accepted", lines[1])
    facts = {"kills": kills, "rounds": rounds, "mutations": mutations, "accepted": accepted, "seconds": options.seconds}
    RESULT.write_text(json.dumps(record(**facts), indent=1) + "\n")
    return 0


def counted(pattern: str, line: str) -> list[int]:
    """The numbers that a line states; raises ValueError where it is another line."""
    match = re.search(pattern, line)
    if match is None:
        raise ValueError(f"unexpected output: {line}")
    return [int(n) for n in match.groups()]


if __name__ == "__main__":
    sys.exit(main())
