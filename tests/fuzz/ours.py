"""Our shell as a person uses it, with many statements in one process: a pseudo-terminal is its standard input, `.read`
runs a file, an error is a message and the shell goes on. A shell that ended or hangs is replaced."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import pty
import re
import selectors
import subprocess
import tty
from dataclasses import dataclass

NULL = "\\N"


class Ended(Exception):
    """The process ended, or did not answer in time: `what` tells which."""

    def __init__(self, what: str, said: str):
        super().__init__(f"{what}: {said[-2000:]}")
        self.what, self.said = what, said


@dataclass
class Answer:
    """What came of a statement: a header with rows of text, or a message."""

    header: list[str] | None = None
    rows: list[list[str | None]] | None = None
    error: str | None = None


def spelled(sql: str) -> str:
    """A statement as ours spells it; the generator writes DuckDB's whole-number division."""
    return sql.replace(" // ", " / ")


class Shell:
    """One session."""

    def __init__(self, binary: str, directory: pathlib.Path, arguments: list[str], seconds: float):
        self.binary, self.directory, self.arguments, self.seconds = binary, directory, arguments, seconds
        self.process = None
        self.asked = 0

    def start(self) -> None:
        ours, theirs = pty.openpty()
        # No echo, and lines longer than a terminal's.
        tty.setraw(theirs)
        command = [self.binary, "sql", "--format", "csv", "--null", NULL, "--color", "never", *self.arguments]
        environment = {**os.environ, "TERM": "dumb", "XDG_STATE_HOME": str(self.directory), "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.directory, env=environment
        )
        os.close(theirs)
        self.terminal = ours
        for pipe in (self.process.stdout, self.process.stderr):
            os.set_blocking(pipe.fileno(), False)
        self.command(".timer off")

    def stop(self) -> None:
        """Ends the process; what it still says is lost."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()
        os.close(self.terminal)
        self.process = None

    def command(self, line: str) -> tuple[str, str]:
        """Types a line; gives what was printed and what was said."""
        self.asked += 1
        # An unknown command is answered at once: its answer is the end of the one before.
        mark = f".end-of-{self.asked}"
        os.write(self.terminal, f"{line}\n{mark}\n".encode())
        printed, said = bytearray(), bytearray()
        try:
            self.collect(printed, said, f"unknown command `{mark}`".encode())
        except Ended:
            self.stop()
            raise
        said = bytes(said).partition(f"error: unknown command `{mark}`".encode())[0]
        return clean(bytes(printed)), clean(said)

    def collect(self, printed: bytearray, said: bytearray, mark: bytes) -> None:
        pipes = {self.process.stdout: printed, self.process.stderr: said}
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while mark not in said:
                ready = selector.select(self.seconds)
                if not ready:
                    raise Ended("hangs", clean(bytes(said)))
                for key, _ in ready:
                    data = key.fileobj.read() or b""
                    pipes[key.fileobj] += data
                    if not data and key.fileobj is self.process.stderr:
                        code = self.process.wait()
                        raise Ended(f"ended with code {code}", clean(bytes(said)))
        # What was printed before the mark is in the pipe by now.
        while data := self.process.stdout.read():
            printed += data

    def ask(self, sql: str) -> Answer:
        """Runs one statement."""
        if self.process is None:
            self.start()
        script = self.directory / "statement.sql"
        script.write_text(spelled(sql) + ";\n", encoding="utf-8")
        printed, said = self.command(f".read {script}")
        error = re.search(r"^error: .*", said, re.MULTILINE | re.DOTALL)
        if error:
            return Answer(error=error.group(0).strip())
        if "panicked" in said:
            raise Ended("panicked", said)
        if not printed:
            return Answer()
        lines = list(csv.reader(io.StringIO(printed)))
        rows = [[None if value == NULL else value for value in line] for line in lines[1:]]
        return Answer(header=lines[0], rows=rows)


def clean(text: bytes) -> str:
    """Without the shell's prompts."""
    return text.decode("utf-8", "replace").replace("gristmill> ", "").replace("\r\n", "\n")
