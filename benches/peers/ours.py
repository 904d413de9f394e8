"""How long the statements of a job took, and what they answered: what our own program says of them."""
import csv
import os
import re
import subprocess
import tempfile


def job(statements, options=()):
    """Runs statements as one job of the program that GRISTMILL names.

    Gives a pair for each statement that ended, its title and its seconds, and the rows of all results.
    """
    with tempfile.TemporaryDirectory() as directory:
        script = os.path.join(directory, "job.sql")
        with open(script, "w") as file:
            file.write(";\n".join(statements) + ";\n")
        command = [os.environ["GRISTMILL"], "run", script, "--format", "csv", "--no-header", *options]
        ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    told = re.findall(r"^done (.*) \((?:(\d+) min )?([\d.]+) s", ended.stderr, re.MULTILINE)
    times = [(title, 60 * float(minutes or 0) + float(seconds)) for title, minutes, seconds in told]
    if len(times) != len(statements):
        raise SystemExit(f"expected the times of {len(statements)} statements, got {len(times)}:\n{ended.stderr}")
    return times, list(csv.reader(ended.stdout.splitlines()))
