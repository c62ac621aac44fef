#!/usr/bin/env python3
"""embed.py OUTPUT ENGINE/NNNN_name.sql...: the migrations as a C table, in the order of their
numbers; each has the same name in the folder of every engine."""
import pathlib
import sys

ENGINES = ("sqlite", "postgres")


def literal(text):
    """C string literals, a line each: short enough for every compiler."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(f'        "{line}\\n"' for line in escaped.splitlines())


output, *sources = map(pathlib.Path, sys.argv[1:])
texts = {(path.parent.name, path.name): path.read_text() for path in sources}
names = sorted({path.name for path in sources})
missing = [f"{engine}/{name}" for name in names for engine in ENGINES if (engine, name) not in texts]
if missing:
    sys.exit(f"embed.py: no {missing}")
rows = [
    f"    {{{int(name.split('_')[0])},\n" + ",\n".join(literal(texts[engine, name]) for engine in ENGINES) + "},\n"
    for name in names
]
output.write_text(
    '#include "db/db.h"\n\n'
    "extern const struct db_migration meta_migrations[];\n"
    "extern const size_t meta_n_migrations;\n\n"
    f"const struct db_migration meta_migrations[] = {{\n{''.join(rows)}}};\n"
    f"const size_t meta_n_migrations = {len(names)};\n"
)
