#!/bin/sh
# Makes a small Debian image with Python, for trying deploy/Dockerfile where no registry of images can be reached.
# As root: deploy/stand-in-base.sh [TAG] [SUITE] [MIRROR]
set -eu

tag=${1:-stand-in-base}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "${2:-bookworm}" "$root" \
    "${3:-http://deb.debian.org/debian}"
tar -C "$root" -c . | podman import - "$tag"
