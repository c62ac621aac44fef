#!/usr/bin/env python3
"""Checks src/LAYERS, which room may include which, against the #include lines."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "src"
INCLUDE = re.compile(r'^#include "([a-z_]+)/([a-z0-9_.]+)"', re.MULTILINE)


def read_layers():
    """Room -> the rooms it may include; a room may only name those that stand above it."""
    layers = {}
    for line in (ROOT / "LAYERS").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        room, _, below = line.partition(":")
        unknown = [name for name in below.split() if name not in layers]
        if unknown:
            sys.exit(f"LAYERS: {room} names {unknown}, which do not stand above it")
        layers[room] = set(below.split())
    return layers


def complaints(layers):
    for path in sorted(ROOT.glob("*/*.[ch]")):
        room = path.parent.name
        if room not in layers:
            yield f"{path.relative_to(ROOT)}: room {room} is not in LAYERS"
            continue
        for target, header in INCLUDE.findall(path.read_text()):
            if target == room:
                continue
            if target not in layers[room]:
                yield f"{path.relative_to(ROOT)}: {room} may not include {target}"
            elif target != "base" and header not in (f"{target}.h", "settings.def"):
                yield f"{path.relative_to(ROOT)}: includes {target}/{header}, not {target}/{target}.h"


found = list(complaints(read_layers()))
print("\n".join(found) or "every #include follows LAYERS")
sys.exit(1 if found else 0)
