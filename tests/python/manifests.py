"""What Kubernetes manifests hold, as JSON: a list of {"file", "object", "problem"}.

manifests.py FILE...   with PYTHONPATH holding kubernetes_validate. An object is checked strictly (unknown fields are refused) with the
schemas of the first release that has appArmorProfile, and of the newest.
"""

import json
import sys

import yaml
from kubernetes_validate import utils

FIRST = "1.30"


def problem(manifest):
    for release in (FIRST, utils.latest_version()):
        try:
            utils.validate(manifest, release, strict=True)
        except utils.ValidationError as error:
            return f"{release}: {'.'.join(map(str, error.path))}: {error.message}"
        except utils.SchemaNotFoundError as error:
            return error.message
    return None


found = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        for manifest in yaml.safe_load_all(file):
            found.append({"file": name, "object": manifest, "problem": problem(manifest)})
json.dump(found, sys.stdout)
