#!/usr/bin/env python3
"""Checks that comments are at most 100 columns wide, and that Markdown has one sentence per line.

    tests/checks/wrapping.py          fails on a file with more such lines than wrapping.txt allows
    tests/checks/wrapping.py --write  writes wrapping.txt anew; no file may have more than before

wrapping.txt has what was there before this check: a number and a file on each line. It may only shrink.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = pathlib.Path(__file__).with_name("wrapping.txt")
MAX_COLUMNS = 100
COMMENT = {
    ".rs": r"\s*//",
    ".ts": r"\s*(//|/\*|\*)",
    ".mjs": r"\s*(//|/\*|\*)",
    ".svelte": r"\s*(//|/\*|\*|<!--)",
    ".css": r"\s*(/\*|\*)",
}
HASH = r"\s*#"
HASH_SUFFIXES = ("", ".sh", ".toml", ".yml", ".py", ".service", ".socket")


def wide_comments(suffix, text):
    """Lines that are a comment and too wide. A line with an address cannot be broken.

    >>> wide_comments(".rs", "// " + "word " * 20 + "\\n// short\\nlet x = 1;" + "word " * 20)
    [1]
    >>> wide_comments(".rs", "// https://" + "a" * 100)
    []
    """
    pattern = re.compile(COMMENT.get(suffix, HASH))
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if len(line) > MAX_COLUMNS and pattern.match(line) and "://" not in line]


def crowded_lines(text):
    """Lines of Markdown with more than one sentence; not in fences, tables and HTML.

    >>> crowded_lines("One. Two.\\nOne, e.g. Two.\\n```sh\\nA. B.\\n```\\n| A. B. |\\n`x. Y` is one.")
    [1]
    """
    found, is_fence = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_fence = not is_fence
        if is_fence or line.lstrip().startswith(("|", "<")):
            continue
        words = re.sub(r"`[^`]*`|\b(e\.g|i\.e|etc|vs)\.", "x", line)
        if re.search(r"[a-z)\"”*x][.!?][)\"”*]* +[A-Z*\[`\"x]", words) and not re.match(r"\s*\d+\. \S+$", words):
            found.append(number)
    return found


def findings():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not path.is_file() or path.is_symlink() or name.startswith(("tests/fuzz/corpus/", "tests/fixtures/")):
            continue
        if name == "web/src/protocol/types.ts":
            continue
        if path.suffix == ".md":
            yield name, crowded_lines(path.read_text())
        elif path.suffix in COMMENT or path.suffix in HASH_SUFFIXES:
            yield name, wide_comments(path.suffix, path.read_text(errors="replace"))


def main():
    found = {name: lines for name, lines in findings() if lines}
    assert sum(1 for _ in findings()) > 100, "the files were not found"
    known = {}
    if LIST.exists():
        known = {name: int(count) for count, name in (line.split(" ", 1) for line in LIST.read_text().splitlines())}
    grown = {name: lines for name, lines in found.items() if len(lines) > known.get(name, 0)}
    if "--write" in sys.argv and (not known or not grown):
        LIST.write_text("".join(f"{len(lines)} {name}\n" for name, lines in sorted(found.items())))
        return 0
    for name, lines in grown.items():
        print(f"{name}: {len(lines)} lines, {known.get(name, 0)} allowed; look at {', '.join(map(str, lines))}")
    print(f"{sum(map(len, found.values()))} lines in {len(found)} files; {sum(known.values())} were there before")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
