"""Files of SOG made by hand, and taken apart."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image


def taken_apart(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`meta.json`, and the pictures by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(members.pop("meta.json")), members


def put_together(meta: Any, pictures: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    """A file of such parts; `meta` may be bytes too."""
    text = meta if isinstance(meta, bytes) else json.dumps(meta, default=str).encode()
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", kind) as archive:
        for name, part in {"meta.json": text, **pictures}.items():
            archive.writestr(zipfile.ZipInfo(name), part, kind)
    return found.getvalue()


def picture(width: int, height: int, value: int = 255, lossless: bool = True, **options: Any) -> bytes:
    """A picture of one value, which takes a few bytes however large it is."""
    found = io.BytesIO()
    pixels = np.full((height, width, 4), value, dtype=np.uint8)
    Image.fromarray(pixels).save(found, "WEBP", lossless=lossless, exact=True, **options)
    return found.getvalue()
