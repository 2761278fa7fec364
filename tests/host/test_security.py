"""The published Python files keep to the registry's rules: no code from strings, no processes, no network but in one
file, which fetches what the user asks for."""

import ast

import dev

FORBIDDEN_MODULES = {
    "ctypes", "ftplib", "http", "httpx", "marshal", "multiprocessing", "pty", "requests", "shelve", "smtplib",
    "socket", "subprocess", "telnetlib", "urllib", "webbrowser", "xmlrpc",
}  # fmt: skip
FORBIDDEN_NAMES = {"__import__", "compile", "eval", "exec"}
FORBIDDEN_ATTRIBUTES = {
    "os": ("exec", "fork", "kill", "popen", "posix_spawn", "spawn", "startfile", "system"),
    "pickle": ("load", "Unpickler"),
    "torch": ("load",),
}
FORBIDDEN_KEYWORDS = {("allow_pickle", True), ("weights_only", False), ("shell", True)}

ALLOWED = {
    "champ/download.py": {"http.client", "urllib.error", "urllib.parse", "urllib.request"},  # behind a button
    "champ/origin.py": {"urllib.parse"},  # reads addresses
}


def violations(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_MODULES}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = FORBIDDEN_ATTRIBUTES.get(node.module, ())
            if node.module.partition(".")[0] in FORBIDDEN_MODULES:
                found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names if names and a.name.startswith((*names, "*"))}
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr.startswith(FORBIDDEN_ATTRIBUTES.get(node.value.id, ("no such attribute",))):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            if (node.arg, node.value.value) in FORBIDDEN_KEYWORDS:
                found.add(f"{node.arg}={node.value.value}")
    return found


def test_published_files_are_clean(archive):
    sources = {file: (dev.ROOT / file).read_text(encoding="utf-8") for file in archive if file.endswith(".py")}
    assert len(sources) > 5
    found = {file: violations(source) - ALLOWED.get(file, set()) for file, source in sources.items()}
    assert not {file: names for file, names in found.items() if names}


def test_the_check_finds_what_it_looks_for():
    bad = """
import os, pickle, socket
from urllib import request
from os import system
eval("1")
os.system("x")
np.load(f, allow_pickle=True)
pickle.loads(b"")
torch.load(f, weights_only=True)
"""
    assert violations(bad) == {
        "socket", "urllib", "eval", "os.system", "allow_pickle=True", "pickle.loads",
        "torch.load",
    }  # fmt: skip
