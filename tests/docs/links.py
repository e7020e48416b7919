"""Links between documents: links.py DOCUMENT... says which lead nowhere. Other sites are not asked."""

import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(document: pathlib.Path) -> set[str]:
    """Those that GitHub makes of headings."""
    words = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(FENCE.sub("", document.read_text())))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in words}


def mistakes(document: pathlib.Path) -> list[str]:
    wrong = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists():
            wrong.append(f"{document}: {link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{document}: {link}: no such heading")
    return wrong


if __name__ == "__main__":
    found = [mistake for name in sys.argv[1:] for mistake in mistakes(pathlib.Path(name))]
    print(*found, f"{len(sys.argv) - 1} documents, {len(found)} failed", sep="\n")
    sys.exit(1 if found else 0)
