#!/bin/sh
# Makes /opt/venv with what the server needs. Run by deploy/Dockerfile in its build stage, with EXTRAS, PIP_ARGS and
# CMAKE_ARGS from there.
set -eu

wanted=$(python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv)
case ",$EXTRAS," in
    *,llama,*) wanted="$wanted build-essential python3-dev" ;; # llama-cpp-python is compiled where pip has no wheel of it
esac
if [ -n "$wanted" ]; then
    apt-get update
    # shellcheck disable=SC2086 # several packages
    apt-get install -y --no-install-recommends $wanted
fi

# A base image with a torch of its own (a Jetson's is NVIDIA's build) keeps it: its versions are the constraints then.
python3 -m venv --system-site-packages /opt/venv
/opt/venv/bin/python -m pip list --disable-pip-version-check --format=freeze > there.txt
if grep -iqE '^torch==' there.txt; then
    grep -iE '^(torch|torchvision|torchaudio|numpy|onnxruntime-gpu|tensorrt)==' there.txt > kept.txt
else
    cp constraints.txt kept.txt
fi

/opt/venv/bin/python requirements.py "$EXTRAS" > requirements.txt
export CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=OFF}" # the image may run on another processor than the one that builds it
# shellcheck disable=SC2086 # several arguments
/opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c kept.txt $PIP_ARGS -r requirements.txt
