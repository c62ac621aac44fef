#!/usr/bin/env python3
"""embed.py OUTPUT NNNN_name.sql...: the migrations as a C table, in the order of their numbers."""
import pathlib
import sys


def literal(text):
    """C string literals, a line each: short enough for every compiler."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(f'    "{line}\\n"' for line in escaped.splitlines())


output, *sources = map(pathlib.Path, sys.argv[1:])
sources.sort(key=lambda path: path.name)
rows = [f"    {{{int(path.name.split('_')[0])},\n{literal(path.read_text())}}},\n" for path in sources]
output.write_text(
    '#include "db/db.h"\n\n'
    "extern const struct db_migration meta_migrations[];\n"
    "extern const size_t meta_n_migrations;\n\n"
    f"const struct db_migration meta_migrations[] = {{\n{''.join(rows)}}};\n"
    f"const size_t meta_n_migrations = {len(sources)};\n"
)
