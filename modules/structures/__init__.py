"""The shared vocabulary: frozen, validated dataclasses that stages hand to each other.

Conventions, stated once for the whole project:

* pixel coordinates are continuous, x right, y down; pixel (row r, column c) is centred at (c+0.5, r+0.5)
* boxes are half-open; images are RGB uint8 ``[H, W, 3]`` at the edges, float32 ``[B, 3, H, W]`` in 0..1 in networks
* angles are radians, times are seconds or ``Fraction``; units are name suffixes (``_px _s _rad _hz``)
* matrices are named ``dst_from_src`` and act on column vectors
* head space is x towards the image's right, y up, z towards the camera, in decimetres
"""
