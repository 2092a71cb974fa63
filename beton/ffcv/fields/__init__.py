"""FFCV's fields: what the values of a sample are, and how they are stored."""

from beton.ffcv.fields.base import Field
from beton.ffcv.fields.basics import FloatField, IntField
from beton.ffcv.fields.bytes import BytesField
from beton.ffcv.fields.json import JSONField
from beton.ffcv.fields.ndarray import NDArrayField, TorchTensorField
from beton.ffcv.fields.rgb_image import RGBImageField

__all__ = [
    "BytesField",
    "Field",
    "FloatField",
    "IntField",
    "JSONField",
    "NDArrayField",
    "RGBImageField",
    "TorchTensorField",
]
