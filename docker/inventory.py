"""What is in an image: inventory.py FOLDER writes sbom.json (CycloneDX 1.5) and licences.txt.

Runs in the image's own Python while it is built, with the standard library alone, as root or not.
Lists the Python packages that this interpreter finds and the Debian packages that dpkg knows.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# Families of licences that ask something of those who pass an image on.
COPYLEFT = re.compile(r"\b(A?L?GPL|GFDL|MPL|EPL|CDDL|OSL|CC[- ]BY[- ]SA)", re.I)
NON_COMMERCIAL = re.compile(r"\bBY-NC\b|non-?commercial", re.I)
FIELD = re.compile(r"^License:[ \t]*(\S.*)$", re.M)


def python_packages() -> Iterator[dict[str, object]]:
    """Yield each installed Python distribution as a CycloneDX component."""
    for found in sorted(metadata.distributions(), key=lambda d: d.metadata["Name"].lower()):
        about = found.metadata
        name, version = about["Name"], found.version
        classifiers = [
            c.rpartition("::")[2].strip()
            for c in about.get_all("Classifier") or []
            if c.startswith("License ::") and not c.endswith("OSI Approved")
        ]
        # The field License may hold the whole text: its first line names it.
        told = (about["License-Expression"] or about["License"] or "").strip().partition("\n")[0]
        yield component("pypi", name, version, [told[:80]] if told else classifiers)


def debian_packages() -> Iterator[dict[str, object]]:
    """Yield each Debian package as a CycloneDX component; nothing where there is no dpkg."""
    layout = "${db:Status-Abbrev}\t${Package}\t${Version}\n"
    try:
        listed = subprocess.run(
            ["dpkg-query", "-W", "-f", layout], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        return
    for line in sorted(set(listed.splitlines())):
        state, name, version = line.split("\t")
        if state.strip() != "ii":
            continue
        file = Path("/usr/share/doc", name, "copyright")
        text = file.read_text(errors="replace") if file.is_file() else ""
        names = sorted({n.strip()[:80] for n in FIELD.findall(text)})
        # Old files are prose: they refer to the texts that Debian keeps.
        names = names or sorted(set(re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", text)))
        yield component("deb", name, version, names)


def component(kind: str, name: str, version: str, licences: list[str]) -> dict[str, object]:
    """Return a CycloneDX component; licences are as the package names them."""
    purl_name = name.lower().replace("_", "-") if kind == "pypi" else f"debian/{name}"
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{purl_name}@{version}",
        "licenses": [{"license": {"name": n}} for n in licences],
    }


def licence_list(components: list[dict[str, object]]) -> str:
    """Return one line for each component: mark, kind, name, version, licences."""
    lines = []
    for part in components:
        entries = part["licenses"]
        assert isinstance(entries, list)
        names = "; ".join(e["license"]["name"] for e in entries) or "not stated"
        mark = "copyleft" if COPYLEFT.search(names) else "-"
        mark = "non-commercial" if NON_COMMERCIAL.search(names) else mark
        kind = str(part["purl"])[4:].partition("/")[0]
        lines.append("\t".join((mark, kind, str(part["name"]), str(part["version"]), names)))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: inventory.py FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    components = [*python_packages(), *debian_packages()]
    sbom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": components,
    }
    (folder / "sbom.json").write_text(json.dumps(sbom, indent=1) + "\n")
    (folder / "licences.txt").write_text(licence_list(components))
    print(f"{folder}: {len(components)} packages")


if __name__ == "__main__":
    main()
