"""Segment pictures with an exported network, without torch and without des4: python run_onnx.py model.onnx a.jpg b.jpg

Needs onnxruntime, numpy and pillow. Writes a.mask.png beside a.jpg: class indices, in the colours of the classes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, pictures: list[str]) -> None:
    """Segment each picture, and print what is on it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    classes, palette = json.loads(about["classes"]), json.loads(about["palette"])
    if "bands" in about:
        sys.exit(f"{model}: takes bands, not pictures in RGB: {about['input']}")
    factor = json.loads(about["eval"])["resize"]  # by which pictures are resized before the network sees them
    for name in pictures:
        picture = ImageOps.exif_transpose(Image.open(name)).convert("RGB")
        size, how = [max(1, round(side * factor)) for side in picture.size], Image.Resampling.BILINEAR
        (probs,) = session.run(["probs"], {"image": np.asarray(picture.resize(size, how))[None]})
        grown = np.stack([Image.fromarray(one).resize(picture.size, how) for one in probs[0]])  # not labels: no steps
        labels = grown.argmax(0).astype(np.uint8 if len(classes) <= 255 else np.int32)
        mask = Image.fromarray(labels)
        if mask.mode == "L":  # above 255 classes there are more than a palette has room for
            mask.putpalette([value for colour in palette for value in colour])
        mask.save(Path(name).with_suffix(".mask.png"))
        shares = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
        print(name, *(f"{classes[c]} {share:.1%}" for c, share in enumerate(shares) if share > 0.01), sep="  ")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
