#!/bin/bash
# Triton's interpreter (TRITON_INTERPRET=1) keeps bfloat16 numbers as their bits, as whole numbers of
# 16 bits, for numpy has no such type. It then calculates with the bits, without a word: 1 + 1 is
# 1.7e38, 1 * 1 is 2, and a tl.dot of ones is 4e9. Numbers that are converted to float32 before are
# right. So a kernel that calculates in bfloat16 cannot be tested by the interpreter unless it
# converts there first.
#
# Output, Triton 3.7.1 with torch 2.13.0 and numpy 2.4.6, for 16x16 matrices of ones:
#   triton 3.7.1: a + b 1.7014118346046923e+38, a * b 2.0, tl.dot 4228120576.0
#   the same as float32: a + b 2.0, a * b 1.0, tl.dot 16.0
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "triton==3.7.1" "numpy==2.4.6"
cat > "$folder/dot.py" <<'END'
import torch
import triton
import triton.language as tl


@triton.jit
def calculated(a, b, out, convert: tl.constexpr):
    i = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    left, right = tl.load(a + i), tl.load(b + i)
    if convert:
        left, right = left.to(tl.float32), right.to(tl.float32)
    tl.store(out + i, (left + right).to(tl.float32))
    tl.store(out + 256 + i, (left * right).to(tl.float32))
    tl.store(out + 512 + i, tl.dot(left, right))


def said(convert):
    ones, out = torch.ones(16, 16, dtype=torch.bfloat16), torch.zeros(3, 16, 16)
    calculated[(1,)](ones, ones, out, convert=convert)
    return out[:, 0, 0].tolist()


for name, values in (f"triton {triton.__version__}", said(False)), ("the same as float32", said(True)):
    print(f"{name}: a + b {values[0]}, a * b {values[1]}, tl.dot {values[2]}")
assert said(True) == [2, 1, 16], "changed"
assert said(False)[1:] == [2, 4228120576], "changed"
END
TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/dot.py"
