#!/bin/bash
# Pillow 13 gives other pixels than Pillow 12 for the same resize of an upright picture. A resize is
# two passes with bytes between them, so their order shows in the result. Up to 12 the rows came
# first, for every size. Since 13 the columns come first where a picture is resized to be wider but
# less high. A picture of 32x96 (width x height) as 64x64 then differs by 1 in some of its bytes.
# So frames that were resized by one version are not those of the other, and a resize made of two
# calls, one an axis, is not the resize in one call. Pictures that are square stay the same.
#
# Output, Pillow 12.0.0 and 13.0.0:
#   Pillow 12.0.0: 32x96 rows first, 96x32 rows first, 96x96 rows first
#   Pillow 13.0.0: 32x96 columns first, 96x32 rows first, 96x96 rows first
#   32x96 differs between them in 2638 of 12288 bytes, by 1 at most
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
cat > "$folder/resize.py" <<'END'
import random
import sys

import PIL
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR


def order(width, height):
    picture = Image.frombytes(
        "RGB", (width, height), random.Random(0).randbytes(width * height * 3)
    )
    once = picture.resize((64, 64), BILINEAR).tobytes()
    rows = picture.resize((64, height), BILINEAR).resize((64, 64), BILINEAR).tobytes()
    columns = picture.resize((width, 64), BILINEAR).resize((64, 64), BILINEAR).tobytes()
    return once, "rows" if once == rows else "columns" if once == columns else "neither"


sizes = (32, 96), (96, 32), (96, 96)
named = ", ".join(f"{w}x{h} {order(w, h)[1]} first" for w, h in sizes)
print(f"Pillow {PIL.__version__}: {named}")
open(sys.argv[1], "wb").write(order(32, 96)[0])
END
for version in 12.0.0 13.0.0; do
    "$folder/venv/bin/pip" install --quiet --no-deps "pillow==$version"
    "$folder/venv/bin/python" "$folder/resize.py" "$folder/$version" | tee -a "$folder/said"
done
"$folder/venv/bin/python" - "$folder" <<'END'
import sys

one, other = (open(f"{sys.argv[1]}/{version}", "rb").read() for version in ("12.0.0", "13.0.0"))
apart = [abs(a - b) for a, b in zip(one, other)]
print(f"32x96 differs between them in {sum(map(bool, apart))} of {len(apart)} bytes,", end=" ")
print(f"by {max(apart)} at most")
said = open(f"{sys.argv[1]}/said").read()
assert "12.0.0: 32x96 rows first, 96x32 rows first, 96x96 rows first" in said, "changed"
assert "13.0.0: 32x96 columns first, 96x32 rows first, 96x96 rows first" in said, "changed"
assert max(apart) == 1, "changed"
END
