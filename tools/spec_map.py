#!/usr/bin/env python3
"""Checks that each function and each test named in docs/specification.md exists."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
source = "\n".join(path.read_text() for path in ROOT.glob("src/*/*.c"))
tests = "\n".join(path.read_text() for path in ROOT.glob("tests/functional/test_*.py"))
missing = []
for line in (ROOT / "docs/specification.md").read_text().splitlines():
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    if len(cells) != 3 or cells[0] in ("clause", "---"):
        continue
    functions, names = (re.findall(r"`(\w+)`", cell) for cell in cells[1:])
    missing += [f"function {name}" for name in functions if not re.search(rf"^\w.*\b{name}\(", source, re.M)]
    missing += [f"test {name}" for name in names if f"def test_{name}(" not in tests]
    if not functions or not names:
        missing.append(f"a function or a test for {cells[0]}")
print("\n".join(f"docs/specification.md: there is no {name}" for name in missing) or "the map is true")
sys.exit(1 if missing else 0)
