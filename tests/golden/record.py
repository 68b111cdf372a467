"""Writes `hashes.json`: what the tiny runs come to with the code as it is. From the root of the repository:

    PYTHONPATH=tests:tests/method python tests/golden/record.py

With `--dump FOLDER` it writes what the hashes are made of instead, one JSON file per run, so that the files of two
versions of the code can be laid side by side; `--only NAME ...` restricts that to some runs.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from golden.runs import RUNS, canary, hashes, readings

HASHES = Path(__file__).parent / "hashes.json"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Records what the tiny runs come to.")
    parser.add_argument("--dump", type=Path, metavar="FOLDER", help="write what the hashes are made of instead")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")
    arguments = parser.parse_args()
    if arguments.dump is None and len(arguments.only) < len(RUNS):
        parser.error("--only goes with --dump; hashes are recorded of all runs at once")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in arguments.only:
            parts = RUNS[name](Path(folder) / name, Path(folder) / "scene")
            runs[name] = hashes(parts)
            if arguments.dump is not None:
                arguments.dump.mkdir(parents=True, exist_ok=True)
                text = json.dumps(readings(parts), indent=1, sort_keys=True)
                (arguments.dump / f"{name}.json").write_text(text + "\n")
    if arguments.dump is None:
        HASHES.write_text(json.dumps({"canary": canary(), "runs": runs}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
