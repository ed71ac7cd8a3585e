#!/bin/bash
# Importing submitit can close a file that another library logs into. At its import submitit
# configures logging by dictConfig, which closes every handler there is. absl's handler, which
# dm_control brings, closes its stream with it, unless that is sys.stderr of this moment. So where
# sys.stderr was a file while absl was imported (a test's capture, a notebook, a redirect), that file
# is closed under its owner's hands, and the next write into it fails with "I/O operation on closed
# file". Import submitit first, or in a process of its own.
#
# Output, submitit 1.5.4, absl-py 2.5.1:
#   before: closed False
#   after import submitit: closed True
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet submitit==1.5.4 absl-py==2.5.1
cd "$folder"
"$folder/venv/bin/python" - <<'END'
import contextlib
import tempfile

captured = tempfile.TemporaryFile("w")
with contextlib.redirect_stderr(captured):
    import absl.logging  # noqa: F401

print(f"before: closed {captured.closed}")
import submitit  # noqa: E402, F401

print(f"after import submitit: closed {captured.closed}")
assert captured.closed, "changed"
END
