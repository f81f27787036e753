"""A process that has regrain loaded already and runs a command in a child for each request.

Most of a refused command's time is its start, and the tests of bad input run hundreds. The
children are processes of their own, with streams, directory and environment of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from importlib import import_module
from typing import Any


def main() -> None:
    """Answer one line with another until there are no more."""
    from regrain.cli import VERBS

    for module in {f"regrain.cli.{place.partition(':')[0]}" for place in VERBS.values()}:
        import_module(module)
    for name in ("app.migration", "app.verification", "app.standing", "app.keeping", "app.care"):
        import_module(f"regrain.{name}")
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_serve(request))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _serve(request: dict[str, Any]) -> int:
    from regrain.cli import run

    try:
        for fd, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
            flags = os.O_RDONLY if fd == 0 else os.O_WRONLY
            opened = os.open(path, flags)
            os.dup2(opened, fd)
            os.close(opened)
        os.chdir("/")
        os.environ.clear()
        os.environ.update(request["env"])
        code = run(request["words"])
        sys.stdout.flush()
        return code
    except BaseException:  # noqa: BLE001 -- a child must not go on in the parent's loop
        traceback.print_exc()
        return 99


class Zygote:
    """The process, seen from the tests."""

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: list[str], env: dict[str, str], stdout: str, stderr: str) -> int:
        """Run a command to its end; return its exit code."""
        request = {"words": words, "env": env, "stdout": stdout, "stderr": stderr}
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        to.write(json.dumps(request) + "\n")
        to.flush()
        answer = back.readline()
        assert answer, "the zygote died"
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


if __name__ == "__main__":
    main()
