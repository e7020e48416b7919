"""The runner of documents notices what is wrong: each case is a document with one mistake. `SERVER` is the binary."""

import os
import pathlib
import re
import tempfile
import unittest

import run
from links import mistakes
from markdown import Mistake

SERVER = pathlib.Path(os.environ["SERVER"])


def play(text: str, name: str = "page.md"):
    with tempfile.TemporaryDirectory() as folder:
        document = pathlib.Path(folder) / name
        document.write_text(text)
        return run.play(document, SERVER)


def block(language: str, text: str, *rules: str) -> str:
    comments = "".join(f"<!-- test: {rule} -->\n" for rule in rules)
    return f"{comments}```{language}\n{text}\n```\n\n"


#: What is wrong, what is said, the document.
WRONG = {
    "a command fails": ("line 4: it ended with 3", "# Page\n\ntext\n" + block("sh", "exit 3")),
    "an earlier command fails": ("it ended with 1", block("sh", "false\ntrue")),
    "a pipe fails": ("it ended with 1", block("sh", "false | cat")),
    "shellcheck objects": ("SC2086", block("sh", "A='b c'\necho $A", "check: why")),
    "another output": ("printed something else", block("sh", "echo one") + block("text", "two", "output")),
    "another JSON": ("printed something else", block("sh", "echo '{\"a\": 1}'") + block("json", '{"a": 2}', "output")),
    "a field more": ("printed something else", block("sh", "echo '{\"a\": 1, \"b\": 1}'") + block("json", '{"a": 1}', "output")),
    "no JSON": ("cannot be parsed", block("json", "{")),
    "no YAML": ("cannot be parsed", block("yaml", "a: [")),
    "no TOML": ("cannot be parsed", block("toml", "[server")),
    "no such key": ("there is no such key", block("toml", '[server]\nadress = "0.0.0.0:1"')),
    "no JavaScript": ("node says", block("js", "const = 1")),
    "JavaScript throws": ("it ended with 1", block("js", "throw new Error('no')")),
    "a file that is no JavaScript": ("node says", block("js", "const = 1", "file a.mjs")),
    "no Python": ("no Python", block("py", "def f(:", "file a.py")),
    "Python throws": ("it ended with 1", block("py", "raise SystemExit(1)")),
    "nobody listens": ("nothing listens on port 8080", block("sh", "true", "background until=8080")),
    "the server does not start": ("nothing listens", block("sh", "REDIS_URL=nonsense chat-api", "background until=8080")),
    "what runs behind fails": ("has ended with 4", block("sh", "exit 4", "background") + block("sh", "sleep 1")),
    "the browser does not see it": ("TimeoutError", "<!-- test: chromium\nconst page = await open('about:blank');\npage.setDefaultTimeout(500);\nawait sees(page, 'x');\n-->\n"),
    "a file outside": ("not in the document's folder", block("text", "x", "file ../x.txt")),
    "no rule": ("needs a rule", block("text", "x")),
    "no language": ("needs a rule", block("", "x")),
    "no such rule": ("no such rule: `play`", block("text", "x", "play")),
    "no reason": ("needs to say why", block("sh", "x", "skip:")),
    "no such test": ("is no test that names page.md", block("sh", "x", "elsewhere: tests/it/acl.rs")),
    "a rule without a block": ("stands before no block", "<!-- test: output -->\n\nwords\n"),
    "a rule at the end": ("stands before no block", "<!-- test: output -->\n"),
    "no end": ("does not end", "```sh\ntrue\n"),
    "no diagram": ("no line of a sequence diagram", block("mermaid", "sequenceDiagram\n  a ~ b")),
    "an unknown participant": ("no such participant: b", block("mermaid", "sequenceDiagram\n  participant a\n  a->>b: hi")),
}

RIGHT = (
    block("sh", "chat-api", "background until=8080")
    + block("sh", "mkdir below && cd below\nWORD=hi")
    + block("js", "console.log(process.env.WORD)", "file a.mjs")
    + block("sh", 'node a.mjs; pwd; echo "$WORD"; curl -s http://localhost:8080/nothing')
    + block("text", "hi …/below hi {…}", "output")
    + "<!-- test: sh\ncurl -s http://127.0.0.1:9090/livez\n-->\n"
    + block("js", "setTimeout(() => console.log(`one 1764000000000-7 ${process.env.WORD}`), 1)")
    + block("text", "one 1764000000001-42 hi", "output")
    + block("json", '{"a": 1}')
    + block("sh", "anything at all", "skip: a reason")
)


class Runner(unittest.TestCase):
    def test_what_is_right_passes(self):
        self.assertEqual(play(RIGHT), {"run": 6, "checked": 3, "skipped": 1})

    def test_what_is_wrong_is_told(self):
        for name, (message, text) in WRONG.items():
            with self.subTest(name):
                self.assertRaisesRegex(Mistake, re.escape(message), play, text)

    def test_links_that_lead_nowhere_are_told(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("# A `b`: c\n[x](#a-b-c) [y](page.md#a-b-c) [z](https://example.com)\n")
            self.assertEqual(mistakes(page), [])
            page.write_text("# A\n[x](#b) [y](other.md)\n")
            self.assertEqual(len(mistakes(page)), 2)


if __name__ == "__main__":
    unittest.main()
