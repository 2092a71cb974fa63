"""All decoders, by the module in which FFCV has them."""

from beton.ffcv.fields._decoders_basic import BasicDecoder, BytesDecoder, FloatDecoder, IntDecoder, NDArrayDecoder
from beton.ffcv.fields._decoders_image import (
    CenterCropRGBImageDecoder,
    RandomResizedCropRGBImageDecoder,
    ResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
    get_center_crop,
    get_random_crop,
)

__all__ = [
    "BasicDecoder",
    "BytesDecoder",
    "CenterCropRGBImageDecoder",
    "FloatDecoder",
    "IntDecoder",
    "NDArrayDecoder",
    "RandomResizedCropRGBImageDecoder",
    "ResizedCropRGBImageDecoder",
    "SimpleRGBImageDecoder",
    "get_center_crop",
    "get_random_crop",
]
