#!/usr/bin/env python3
"""Finds circles between the files and the folders of each crate and of web/src.

    tests/checks/circles.py          fails on a circle that circles.txt does not list, and on a listed one that is gone
    tests/checks/circles.py --write  writes circles.txt anew, to take out what is gone

An import goes from one file to another. Not counted, because they are not layers:
- between a module and its own descendants (`x.rs` and `x/...`): Rust makes the child see its parent's private items;
- from tests;
- type-only imports of TypeScript, which are gone at run time.

Folders are compared level by level: in each folder, its entries (`x.rs` with `x/` is one) must not form a circle.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = pathlib.Path(__file__).with_name("circles.txt")
CRATES = re.findall(r'"([^"]+)"', re.search(r"^members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.M | re.S)[1])

# --- Rust -----------------------------------------------------------------------------------------


def without_comments_and_texts(source):
    r"""Blanks comments, string literals and character literals, so that words in them are not taken for paths.

    >>> without_comments_and_texts("use crate::a; // use crate::b;").split()
    ['use', 'crate::a;']
    >>> without_comments_and_texts("f('\"', r#\"use crate::b;\"#, &'a str) + crate::c").split()
    ['f(', ',', ',', "&'a", 'str)', '+', 'crate::c']
    """
    pattern = r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\\n])\''
    return re.sub(pattern, " ", source, flags=re.S)


def without_tests(source):
    """Removes items under `#[cfg(test)]`: a whole block, or up to the semicolon.

    >>> without_tests("a #[cfg(test)] mod tests { use b; fn c() {} } d #[cfg(test)] use e; f").split()
    ['a', 'd', 'f']
    """
    while match := re.search(r"#\[cfg\(test\)\]", source):
        index, depth = match.end(), 0
        while index < len(source):
            character = source[index]
            depth += (character == "{") - (character == "}")
            index += 1
            if depth == 0 and character in ";}":
                break
        source = source[: match.start()] + source[index:]
    return source


def use_paths(tree, prefix=()):
    """The paths of a `use` tree.

    >>> use_paths("crate::{a::{self, B}, c::*, d as e}")
    [('crate', 'a'), ('crate', 'a', 'B'), ('crate', 'c'), ('crate', 'd')]
    """
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        words = [word.strip() for word in re.split(r"\bas\b", tree)[0].split("::")]
        return [prefix + tuple(word for word in words if word not in ("", "self", "*"))]
    prefix += tuple(word.strip() for word in head.split("::") if word.strip())
    body, parts, depth, start = rest.rsplit("}", 1)[0], [], 0, 0
    for index, character in enumerate(body):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(body[start:index])
            start = index + 1
    parts.append(body[start:])
    return [path for part in parts if part.strip() for path in use_paths(part, prefix)]


def is_test(path):
    return path.name in ("tests.rs", "test.rs") or "tests" in path.parts[1:]


def rust_graph(crate):
    source = ROOT / crate / "src"
    files = [path for path in source.rglob("*.rs") if not is_test(path.relative_to(source))]
    modules = {}
    for path in files:
        parts = path.relative_to(source).with_suffix("").parts
        modules[() if parts in (("lib",), ("main",)) else parts] = parts
    name = re.search(r'^name = "(.*)"', (ROOT / crate / "Cargo.toml").read_text(), re.M)[1].replace("-", "_")
    graph = {}
    for path in files:
        own = path.relative_to(source).with_suffix("").parts
        module = () if own in (("lib",), ("main",)) else own
        text = without_tests(without_comments_and_texts(path.read_text()))
        targets = set()
        for tree in re.findall(r"\buse\s+([^;]+);", text):
            targets.update(use_paths(tree))
        inline = re.sub(r"\buse\s+[^;]+;", " ", text)
        targets.update(tuple(match.split("::")) for match in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", inline))
        # A path may begin with a name that a `use` brought in; those were counted there.
        graph[own] = set()
        for target in targets:
            words, base = list(target), None
            if not words:
                continue
            if words[0] in ("crate", name):
                base, words = (), words[1:]
            elif words[0] in ("self", "super"):
                base = module
                while words and words[0] in ("self", "super"):
                    base, words = (base if words[0] == "self" else base[:-1]), words[1:]
            elif (*module, words[0]) in modules:
                base = module
            else:
                continue
            found = base
            for word in words:
                if (*found, word) not in modules:
                    break
                found = (*found, word)
            # What the crate's root defines itself is not part of it.
            if found in modules and modules[found] != own:
                graph[own].add(modules[found])
    return {key: {to for to in value if not is_family(key, to)} for key, value in graph.items()}


def is_family(one, other):
    """Whether one module is the other's descendant; `lib` and `main` are everybody's ancestors."""
    one, other = (() if path in (("lib",), ("main",)) else path for path in (one, other))
    return one[: len(other)] == other or other[: len(one)] == one


# --- TypeScript and Svelte ------------------------------------------------------------------------


def web_graph():
    source = ROOT / "web/src"
    files = {path for path in source.rglob("*") if path.suffix in (".ts", ".svelte") and ".test." not in path.name}
    graph = {}
    for path in files:
        own = path.relative_to(source).parts
        graph[own] = set()
        text = re.sub(r"/\*.*?\*/|<!--.*?-->|^\s*//[^\n]*", "", path.read_text(), flags=re.S | re.M)
        imports = r'^\s*(?:import|export)\s+(?!type\b)(?:[^"\';]*?\bfrom\s+)?["\'](\.[^"\']*)["\']|\bimport\(\s*["\'](\.[^"\']*)["\']'
        for match in re.finditer(imports, text, re.M):
            named = re.search(r"\{([^}]*)\}", match[0])
            if named and re.match(r"\s*import\s*\{", match[0]):
                names = [name for name in named[1].split(",") if name.strip()]
                if names and all(name.strip().startswith("type ") for name in names):
                    continue
            target = (path.parent / (match[1] or match[2])).resolve()
            for candidate in (target, target.with_name(target.name + ".ts"), target.with_name(target.name + ".svelte.ts")):
                if candidate in files:
                    graph[own].add(candidate.relative_to(source).parts)
    return graph


# --- circles --------------------------------------------------------------------------------------


def components(graph):
    """Strongly connected components with more than one member (Tarjan, without recursion).

    >>> components({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()})
    [['a', 'b', 'c']]
    """
    index, low, stack, on_stack, found, counter = {}, {}, [], set(), [], 0
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = counter
        counter += 1
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = counter
                    counter += 1
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(sorted(graph.get(successor, ())))))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        members.append(stack.pop())
                        on_stack.discard(members[-1])
                        if members[-1] == node:
                            break
                    if len(members) > 1:
                        found.append(sorted(members))
    return found


def entries(graph, folder):
    """The graph of what is in a folder: `x.rs` and everything in `x/` are one entry.

    >>> entries({("a", "b"): {("c",)}, ("c",): {("a", "d")}, ("a", "d"): set()}, ())
    {'a': {'c'}, 'c': {'a'}}
    """
    depth = len(folder)
    smaller = {}
    for one, others in graph.items():
        if one[:depth] != folder or len(one) <= depth:
            continue
        entry = one[depth].split(".")[0] if len(one) == depth + 1 else one[depth]
        links = smaller.setdefault(entry, set())
        for other in others:
            if other[:depth] == folder and len(other) > depth:
                to = other[depth].split(".")[0] if len(other) == depth + 1 else other[depth]
                if to != entry:
                    links.add(to)
    return smaller


def circles(place, graph):
    lines = set()
    for members in components(graph):
        lines.add(f"{place}: files " + " ".join("/".join(member) for member in members))
    folders = {path[:depth] for path in graph for depth in range(len(path))}
    for folder in sorted(folders):
        for members in components(entries(graph, folder)):
            lines.add(f"{place}: in /{'/'.join(folder)} " + " ".join(members))
    return lines


def pairs(graph, members):
    """The imports inside a component, to find which to cut."""
    return [f"{'/'.join(one)} -> {'/'.join(to)}" for one in sorted(graph) for to in sorted(graph[one]) if one in members and to in members]


def main():
    graphs = {f"{crate}/src": rust_graph(crate) for crate in CRATES if (ROOT / crate / "src").is_dir()}
    graphs["web/src"] = web_graph()
    for place, graph in graphs.items():
        assert len(graph) > 1 and any(graph.values()), f"no imports were found in {place}"
    found = set().union(*(circles(place, graph) for place, graph in graphs.items()))
    if "--pairs" in sys.argv:
        for place, graph in graphs.items():
            for members in components(graph):
                print(f"{place}: {len(members)} files")
                print("\n".join("  " + pair for pair in pairs(graph, members)))
    if "--write" in sys.argv:
        LIST.write_text("".join(f"{line}\n" for line in sorted(found)))
    listed = set(LIST.read_text().splitlines()) if LIST.exists() else set()
    for line in sorted(found - listed):
        print(f"a new circle: {line}")
    for line in sorted(listed - found):
        print(f"this circle is gone, take it out of {LIST.relative_to(ROOT)}: {line}")
    print(f"{len(found)} circles, {len(listed)} of them listed")
    return 1 if found != listed else 0


if __name__ == "__main__":
    sys.exit(main())
