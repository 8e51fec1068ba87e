"""Writes what is made of something else: `python3 charts/generate [--helm HELM] [--check]`.

Without `--helm` the golden files stay as they are. With `--check` nothing is written, and whatever is stale is told: 1. Needs PyYAML.
"""

import argparse
import json
import pathlib
import sys

from dashboard import dashboard
from document import document, schema
from golden import goldens

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHARTS = ROOT / "charts"


def generated(helm):
    crd = ROOT / "crds/streamservices.yaml"
    files = {
        CHARTS / "streamfleet-crds/files/streamservices.yaml": crd.read_text(),
        CHARTS / "streamfleet/files/dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        ROOT / "docs/charts.md": document(CHARTS),
    }
    for chart in ("streamfleet", "streamfleet-crds"):
        files[CHARTS / chart / "values.schema.json"] = schema(CHARTS / chart)
    return files, (lambda: goldens(helm, ROOT)) if helm else dict


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--helm")
    words.add_argument("--check", action="store_true")
    words = words.parse_args()
    stale = []

    def take(files):
        for path, text in files.items():
            if path.exists() and path.read_text() == text:
                continue
            stale.append(path.relative_to(ROOT))
            if not words.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

    files, more = generated(words.helm)
    take(files)
    # The charts are rendered as they are after that.
    take(more())
    for path in (ROOT / "tests/charts/golden").glob("*") if words.helm else []:
        if path not in files and not expected(path):
            stale.append(path.relative_to(ROOT))
            if not words.check:
                path.unlink()
    for path in stale:
        print(f"{path}: {'stale, run python3 charts/generate' if words.check else 'written'}", file=sys.stderr)
    return 1 if words.check and stale else 0


def expected(path):
    stems = {values.stem for values in (ROOT / "tests/charts/values").glob("*.yaml")} | {"streamfleet-crds"}
    return path.name.removesuffix(".notes.txt").removesuffix(".yaml") in stems


if __name__ == "__main__":
    sys.exit(main())
