"""FFCV's operations, and those of FFCV-SSL."""

from beton.ffcv.transforms.color_jitter import RandomBrightness, RandomContrast, RandomSaturation
from beton.ffcv.transforms.colorjitter import LabelColorJitter, RandomColorJitter
from beton.ffcv.transforms.common import Squeeze
from beton.ffcv.transforms.cutout import Cutout
from beton.ffcv.transforms.erasing import RandomErasing
from beton.ffcv.transforms.flip import RandomHorizontalFlip
from beton.ffcv.transforms.gaussian_blur import GaussianBlur, LabelGaussianBlur
from beton.ffcv.transforms.grayscale import LabelGrayscale, RandomGrayscale
from beton.ffcv.transforms.mixup import ImageMixup, LabelMixup, MixupToOneHot
from beton.ffcv.transforms.module import ModuleWrapper
from beton.ffcv.transforms.normalize import NormalizeImage
from beton.ffcv.transforms.ops import Convert, ToDevice, ToTensor, ToTorchImage, View
from beton.ffcv.transforms.poisoning import Poison
from beton.ffcv.transforms.random_resized_crop import RandomResizedCrop
from beton.ffcv.transforms.replace_label import ReplaceLabel
from beton.ffcv.transforms.resized_crop import CenterCrop, CornerCrop, LabelRandomResizedCrop, PadRGBImageDecoder
from beton.ffcv.transforms.rotate import Rotate
from beton.ffcv.transforms.solarization import LabelSolarization, RandomSolarization
from beton.ffcv.transforms.translate import LabelTranslate, RandomTranslate

# Those of FFCV first, then those that only FFCV-SSL has
__all__ = [
    "Convert", "Cutout", "ImageMixup", "LabelMixup", "MixupToOneHot", "ModuleWrapper", "NormalizeImage", "Poison",
    "RandomBrightness", "RandomContrast", "RandomHorizontalFlip", "RandomResizedCrop", "RandomSaturation",
    "RandomTranslate", "ReplaceLabel", "Squeeze", "ToDevice", "ToTensor", "ToTorchImage", "View",
    "CenterCrop", "CornerCrop", "GaussianBlur", "LabelColorJitter", "LabelGaussianBlur", "LabelGrayscale",
    "LabelRandomResizedCrop", "LabelSolarization", "LabelTranslate", "PadRGBImageDecoder", "RandomColorJitter",
    "RandomErasing", "RandomGrayscale", "RandomSolarization", "Rotate",
]  # fmt: skip
