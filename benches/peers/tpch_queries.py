"""Writes the 22 queries derived from TPC-H as q01.sql to q22.sql: tpch_queries.py TARGET_DIR

They are read from the package datafusion-sqllogictest of the version in Cargo.lock, which cargo fetches; they are not part of
this repository.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

target = pathlib.Path(sys.argv[1])
lock = pathlib.Path("Cargo.lock").read_text()
version = re.search(r'name = "datafusion"\nversion = "([^"]+)"', lock).group(1)
with tempfile.TemporaryDirectory() as folder:
    project = pathlib.Path(folder)
    (project / "src").mkdir()
    (project / "src/lib.rs").touch()
    dependency = f'datafusion-sqllogictest = {{ version = "={version}", default-features = false }}'
    head = '[package]\nname = "queries"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
    (project / "Cargo.toml").write_text(head + dependency)
    (project / "Cargo.lock").write_text(lock)
    answer = subprocess.run(["cargo", "metadata", "--format-version", "1"], cwd=project, check=True, capture_output=True)
packages = json.loads(answer.stdout)["packages"]
package = next(p for p in packages if p["name"] == "datafusion-sqllogictest")
files = pathlib.Path(package["manifest_path"]).parent / "test_files/tpch/answers"
target.mkdir(parents=True, exist_ok=True)
for number in range(1, 23):
    text = (files / f"q{number}.slt.part").read_text()
    (target / f"q{number:02}.sql").write_text(re.search(r"^query[^\n]*\n(.*?)\n----", text, re.S | re.M).group(1) + "\n")
