"""Pictures changed at random, so that a network sees each of them anew in every epoch.

The book names this, data augmentation, as a way past its 99.38 % (section 8.1.2). An augmentation
is called as ``augment(x, generator)`` with pictures x (N, C, H, W) of any backend, whose floats
may be of any precision, and a generator of that backend; it returns other pictures of the same
shape, type and backend, and leaves x as it is. Each picture is changed in a way of its own. The
seed of the generator decides how, the same way on every backend and in every precision::

    augment = Compose([Rotate(10), Shift(2), Zoom(0.1)])
    y = augment(x, backend_of(x).generator(seed))

Rotating, shifting, zooming, shearing, cropping and flipping are one thing: a map of the plane that
says where each pixel comes from (`resample`). `Elastic` is a map too, but a bent one.
"""

from xpdl.datasets.augmentation.base import Augmentation, OfRows
from xpdl.datasets.augmentation.color import ColorJitter
from xpdl.datasets.augmentation.compose import (
    BY_NAME,
    Compose,
    changes_each_alone,
    make_augmentation,
)
from xpdl.datasets.augmentation.draws import OfRowsOnly
from xpdl.datasets.augmentation.elastic import Elastic
from xpdl.datasets.augmentation.geometric import Crop, Flip, Geometric, Rotate, Shear, Shift, Zoom
from xpdl.datasets.augmentation.mixing import Mixup
from xpdl.datasets.augmentation.pixels import Brightness, Cutout, Erase, Noise
from xpdl.datasets.augmentation.resampling import resample

__all__ = [
    "BY_NAME",
    "Augmentation",
    "Brightness",
    "ColorJitter",
    "Compose",
    "Crop",
    "Cutout",
    "Elastic",
    "Erase",
    "Flip",
    "Geometric",
    "Mixup",
    "Noise",
    "OfRows",
    "OfRowsOnly",
    "Rotate",
    "Shear",
    "Shift",
    "Zoom",
    "changes_each_alone",
    "make_augmentation",
    "resample",
]
