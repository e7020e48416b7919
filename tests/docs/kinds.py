"""What each language asks for: how a block is checked, and how it is run."""

import json
import pathlib
import re
import shutil
import subprocess
import tomllib

import yaml

from markdown import Block, Mistake
from terminal import ROOT, Terminal

#: Variables are set in one block and used in another; a reader sees where `cd` fails.
SHELLCHECK = ["shellcheck", "--shell=bash", "--exclude=SC2034,SC2154,SC2164", "-"]
BROWSER = ROOT / "tests/page/documents.mjs"
NODE = ["node", "--experimental-websocket"]
SUFFIXES = {".html": "html", ".js": "js", ".json": "json", ".mjs": "js", ".py": "py", ".sh": "sh", ".toml": "toml", ".yaml": "yaml"}
#: Languages with a test of their own.
ELSEWHERE = {"chat": "tests/it/reference/mod.rs"}
#: What differs from one run to the next.
EXAMPLES = [
    (re.compile(r"\d{13}-\d+"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "HEX"),
]
MERMAID = re.compile(
    r"sequenceDiagram|(participant|actor) (?P<declared>\w+)( as .+)?|(?P<from>\w+)\s*-{1,2}>>[+-]?(?P<to>\w+): .+"
    r"|[Nn]ote (over|left of|right of) (?P<over>[\w,]+): .+|(alt|else|opt|loop|par|and|rect)( .+)?|end|autonumber"
)


def run(block: Block, terminal: Terminal) -> str:
    """Runs or keeps a block; returns what to count it as."""
    for verb in ("file", "append"):
        if rule := block.rule(verb):
            path = terminal.keep(rule.rest, block.text, verb == "append")
            check(Block(SUFFIXES.get(path.suffix, "text"), path.read_text(), block.line), terminal)
            return "run"
    check(block, terminal)
    match block.language:
        case "sh":
            if rule := next((rule for rule in block.rules if "background" in rule.words), None):
                terminal.background(block.text, rule.option("until"), block.line)
            else:
                terminal.sh(block.text)
        case "js":
            terminal.program([*NODE, "--input-type=module"], block.text)
        case "py":
            terminal.program(["python3", "-"], block.text)
        case "chromium":
            terminal.program(["node", str(BROWSER)], block.text)
        case "json" | "toml" | "yaml" | "mermaid":
            return "checked"
        case language:
            raise Mistake(f"a block of `{language or 'no language'}` needs a rule")
    return "run"


def check(block: Block, terminal: Terminal):
    """What can be said about a block without running it."""
    text = terminal.with_ports(block.text)
    match block.language:
        case "sh":
            said(SHELLCHECK, text, terminal)
        case "js" | "chromium":
            # Node checks modules in files only.
            path = terminal.scratch("check.mjs", text)
            said(["node", "--check", str(path)], "", terminal)
        case "py":
            compiled(text)
        case "json":
            parsed(json.loads, text)
        case "yaml":
            parsed(lambda text: list(yaml.safe_load_all(text)), text)
        case "toml":
            parsed(tomllib.loads, text)
            said([shutil.which("chat-api", path=terminal.env["PATH"]), "--config", "/dev/stdin", "config"], text, terminal)
        case "mermaid":
            drawn(text)


def said(command: list[str], text: str, terminal: Terminal):
    outcome = subprocess.run(
        command, input=text.encode(), env=terminal.env, cwd=terminal.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )
    if outcome.returncode:
        raise Mistake(f"{pathlib.Path(command[0]).name} says:\n{terminal.without_ports(outcome.stdout.decode())}")


def parsed(parse, text: str):
    try:
        return parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise Mistake(f"it cannot be parsed: {error}") from None


def compiled(text: str):
    try:
        compile(text, "block", "exec")
    except SyntaxError as error:
        raise Mistake(f"no Python: {error}") from None


def drawn(text: str):
    """A sequence diagram, as far as documents use them."""
    declared, first = set(), True
    for line in filter(None, map(str.strip, text.splitlines())):
        match = MERMAID.fullmatch(line)
        if not match or first != (line == "sequenceDiagram"):
            raise Mistake(f"no line of a sequence diagram: {line}")
        first = False
        if match["declared"]:
            declared.add(match["declared"])
        used = {name for name in [match["from"], match["to"], *(match["over"] or "").split(",")] if name}
        if unknown := used - declared:
            raise Mistake(f"no such participant: {', '.join(unknown)}")


def same_output(block: Block, output: str):
    """JSON is compared as JSON, all else as words."""
    wanted, got = (parsed_or_words(block.language, text) for text in (block.text, output))
    if not same(wanted, got):
        raise Mistake(f"the block before it printed something else:\n{output}")


def parsed_or_words(language: str, text: str):
    if language == "json":
        return parsed(json.loads, example(text))
    return " ".join(example(text).split())


def example(text: str) -> str:
    for pattern, name in EXAMPLES:
        text = pattern.sub(name, text)
    return text


def same(wanted, got) -> bool:
    if isinstance(wanted, str) and isinstance(got, str):
        return re.fullmatch(".*".join(map(re.escape, wanted.split("…"))), got, re.DOTALL) is not None
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(same(value, got[key]) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    return wanted == got
