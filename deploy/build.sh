#!/bin/sh
# Builds the image with docker or podman, whichever is there:
#   deploy/build.sh [TAG] [further arguments of the build command]
#   BASE_IMAGE=... EXTRAS=... CMAKE_ARGS=... deploy/build.sh
# Needs no daemon and no CI; where containers cannot be nested, podman builds in a chroot:
#   BUILDER=podman ISOLATION=chroot deploy/build.sh
set -eu
cd "$(dirname "$0")/.."

tag=${1:-edge-nlp-server}
[ $# -eq 0 ] || shift
builder=${BUILDER:-}
for candidate in docker podman; do
    if [ -z "$builder" ] && command -v "$candidate" > /dev/null; then builder=$candidate; fi
done
[ -n "$builder" ] || { echo "neither docker nor podman is here: apt install podman" >&2; exit 2; }

set -- -f deploy/Dockerfile -t "$tag" "$@"
[ -z "${BASE_IMAGE:-}" ] || set -- --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"
[ -z "${EXTRAS:-}" ] || set -- --build-arg "EXTRAS=$EXTRAS" "$@"
[ -z "${CMAKE_ARGS:-}" ] || set -- --build-arg "CMAKE_ARGS=$CMAKE_ARGS" "$@"
[ -z "${PIP_ARGS:-}" ] || set -- --build-arg "PIP_ARGS=$PIP_ARGS" "$@"
if [ "$builder" = podman ]; then
    set -- --format docker "$@" # the OCI format has no HEALTHCHECK
    [ -z "${ISOLATION:-}" ] || set -- --isolation "$ISOLATION" --network host "$@"
fi
exec "$builder" build "$@" .
