"""Runs documents as a reader would: each in a folder of its own, from top to bottom, every block.

    run.py [--server FILE] DOCUMENT...

Says for each document how many blocks were run, checked, played elsewhere and skipped; fails with the line of every block that is wrong.
Ports are replaced by free ones. What a block is for follows from its language, unless a comment before it says otherwise:

    sh                  run; what it sets, the next ones have
    js, py              run, by node as a module, by python
    json, toml, yaml    parsed; TOML is a configuration that the server takes
    mermaid             a sequence diagram whose participants are declared
    chat                a conversation that tests/it/reference plays
    text                needs one of the rules

    <!-- test: file NAME -->                 kept under that name, and checked
    <!-- test: append NAME -->               the same, at the end of what is there
    <!-- test: output -->                    what the block before printed. `…` is anything; ids and times are examples
    <!-- test: background until=PORT -->     goes on running; the next block comes when that port accepts connections
    <!-- test: check: REASON -->             not run, but checked as far as that goes
    <!-- test: elsewhere: FILE -->           that file tests it
    <!-- test: skip: REASON -->
    <!-- test: folder DIR -->                before the first block: begins with a copy of that folder
    <!-- test: stop -->                      before a block: stops what runs in the background

A rule with lines below it is a block that readers do not see: `sh`, or `chromium` (JavaScript: see tests/page/documents.mjs).
"""

import argparse
import collections
import concurrent.futures
import pathlib
import sys
import tempfile

import kinds
import markdown
from markdown import Mistake
from terminal import ROOT, Terminal

COUNTS = ["run", "checked", "elsewhere", "skipped"]
RULES = {"file", "append", "output", "background", "check:", "elsewhere:", "skip:", "folder", "stop", "sh", "chromium"}


def play(document: pathlib.Path, server: pathlib.Path) -> collections.Counter:
    """Runs one document and counts its blocks; a `Mistake` names the line."""
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(pathlib.Path(folder), server)
        try:
            for block in markdown.parse(document.read_text()):
                try:
                    counts[take(block, document, terminal)] += 1
                except Mistake as mistake:
                    raise Mistake(f"line {block.line}: {mistake}") from None
            terminal.stop()
        finally:
            terminal.close()
    return counts


def take(block: markdown.Block, document: pathlib.Path, terminal: Terminal) -> str:
    """Does with a block what its rules and its language ask for; returns what to count it as."""
    for rule in block.rules:
        if rule.verb not in RULES:
            raise Mistake(f"no such rule: `{' '.join(rule.words)}`")
        if rule.verb[-1] == ":" and not rule.rest:
            raise Mistake(f"`test: {rule.verb}` needs to say why")
    if folder := block.rule("folder"):
        terminal.copy(ROOT / folder.rest)
    if block.rule("stop"):
        terminal.stop()
    if block.rule("skip:"):
        return "skipped"
    elsewhere = block.rule("elsewhere:")
    if elsewhere or block.language in kinds.ELSEWHERE:
        test = ROOT / (elsewhere.rest if elsewhere else kinds.ELSEWHERE[block.language])
        if not test.is_file() or document.name not in test.read_text():
            raise Mistake(f"`{test.relative_to(ROOT)}` is no test that names {document.name}")
        return "elsewhere"
    if block.rule("output"):
        kinds.same_output(block, terminal.output)
        return "checked"
    if block.rule("check:"):
        kinds.check(block, terminal)
        return "checked"
    return kinds.run(block, terminal)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", type=pathlib.Path, default=ROOT / "target/debug/chat-api", help="the binary under test")
    parser.add_argument("documents", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    server = arguments.server.resolve()
    if not server.is_file():
        parser.error(f"{server} is missing: run `cargo build --bin chat-api`")
    total, failed = collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for document, playing in [(document, threads.submit(play, document, server)) for document in arguments.documents]:
            try:
                counts = playing.result()
                total += counts
                print(f"{document}: {summary(counts)}")
            except (Mistake, OSError) as mistake:
                failed += 1
                print(f"{document}: {mistake}")
    print(f"{summary(total)}, {failed} failed")
    return 1 if failed else 0


def summary(counts: collections.Counter) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in COUNTS)


if __name__ == "__main__":
    sys.exit(main())
