"""The command."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
from pathlib import Path

from scripts.odd_input import KINDS, __doc__, table, trial
from scripts.odd_input.world import MEMORY, ROOT, World


def main() -> int:
    parser = argparse.ArgumentParser("python -m scripts.odd_input", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of every kind's inputs, evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=int, default=120, help="seconds that an input may take")
    parser.add_argument("--out", type=Path, help="keep counts and what went badly as JSON")
    options = parser.parse_args()
    kinds = options.only.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--only takes some of {', '.join(KINDS)}, not '{unknown[0]}'.")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from harness.machine.libraries import quiet

    quiet()
    with tempfile.TemporaryDirectory(prefix="odd-input-") as folder:
        os.chdir(folder)
        world = World(Path(folder), options.seed)
        say = lambda text: print(re.sub(r"[^\x20-\x7e]", "?", text)[:600], file=sys.stderr, flush=True)
        found = trial(world, kinds, options.share, options.patience, say)
        os.chdir(ROOT)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    return 1 if any(one.get("badly") for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
