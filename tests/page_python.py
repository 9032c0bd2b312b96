"""The Python of one page: reads blocks from standard input, runs them in one namespace, says how each ended.

A line of JSON a block: ``{"code", "name", "line", "console"}``; the answer is a line of JSON: the traceback, or null.
"""

import doctest
import json
import os
import sys
import traceback
from typing import Any, TextIO


def run(block: dict[str, Any], names: dict[str, Any]) -> str | None:
    """Run one block; return its traceback, or the difference to what a console block shows."""
    try:
        if block["console"]:
            parser, said = doctest.DocTestParser(), list[str]()
            test = parser.get_doctest(block["code"], names, block["name"], block["name"], block["line"])
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            failed, _ = doctest.DocTestRunner(optionflags=flags).run(test, out=said.append, clear_globs=False)
            names.update(test.globs)
            return "".join(said) if failed else None
        exec(compile("\n" * block["line"] + block["code"], block["name"], "exec"), names)
    except BaseException:
        return traceback.format_exc()
    return None


def main(replies: TextIO) -> None:
    """Answer each block until standard input ends."""
    names: dict[str, Any] = {"__name__": "__page__"}
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), names)), file=replies, flush=True)


if __name__ == "__main__":
    sys.path[0] = ""  # as for whoever types it in the page's folder
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what blocks print goes to the log
    main(replies)
