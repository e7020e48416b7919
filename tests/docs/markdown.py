"""What a document holds for a test: its fenced blocks, and the comments that say how to take them. Knows Markdown, runs nothing."""

import re
from dataclasses import dataclass, field

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^\s`]*)\s*$")
COMMENT = re.compile(r"<!--\s*test:\s*(.*?)\s*-->", re.DOTALL)


class Mistake(Exception):
    """Something in a document is wrong: where, and what."""


@dataclass
class Rule:
    """`<!-- test: WORDS` and perhaps lines of code below it, up to `-->`."""

    words: list[str]
    code: str
    line: int

    @property
    def verb(self) -> str:
        return self.words[0]

    @property
    def rest(self) -> str:
        return " ".join(self.words[1:])

    def option(self, name: str) -> str | None:
        """The value of `NAME=VALUE`."""
        return next((word.removeprefix(f"{name}=") for word in self.words if word.startswith(f"{name}=")), None)


@dataclass
class Block:
    """A fenced block, with the rules that stand right before it."""

    language: str
    text: str
    line: int
    rules: list[Rule] = field(default_factory=list)

    def rule(self, verb: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.verb == verb), None)


def parse(text: str) -> list[Block]:
    """The blocks in their order. A rule with code of its own is a block that readers do not see, in the language of its verb."""
    blocks, waiting, lines = [], [], text.split("\n")
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        if "<!-- test:" in line:
            comment = line
            while "-->" not in comment and at + 1 < len(lines):
                at += 1
                comment += "\n" + lines[at]
            rule = parse_rule(comment, number)
            if rule.code:
                blocks.append(Block(rule.verb, rule.code, number, [*waiting, rule]))
                waiting = []
            else:
                waiting.append(rule)
        elif fence := FENCE.match(line):
            indent, mark, language = fence.groups()
            body, end = [], re.compile(rf"^\s*{re.escape(mark)}\s*$")
            at += 1
            while at < len(lines) and not end.match(lines[at]):
                body.append(lines[at].removeprefix(indent))
                at += 1
            if at == len(lines):
                raise Mistake(f"line {number}: the block does not end")
            blocks.append(Block(language, "\n".join(body) + "\n", number, waiting))
            waiting = []
        elif waiting and line.strip():
            raise Mistake(f"line {waiting[0].line}: `test: {waiting[0].verb}` stands before no block")
        at += 1
    if waiting:
        raise Mistake(f"line {waiting[0].line}: `test: {waiting[0].verb}` stands before no block")
    return blocks


def parse_rule(comment: str, line: int) -> Rule:
    match = COMMENT.search(comment)
    if not match or not match[1]:
        raise Mistake(f"line {line}: expected `<!-- test: RULE -->`")
    head, _, code = match[1].partition("\n")
    return Rule(head.split(), code, line)
