"""PatchConvNet: a convolutional trunk without a pyramid, pooled by attention ("Augmenting Convolutional
networks with attention-based aggregation", Touvron et al. 2021). Written from the paper; timm has none."""

import torch
from timm.layers import DropPath, LayerNorm2d, LayerScale, LayerScale2d, Mlp, SqueezeExcite, trunc_normal_
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import nn
from torch.nn import functional as F

_EPS = 1e-6
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stem(in_chans: int, dim: int) -> nn.Sequential:
    """N x C x H x W -> N x D x H/16 x W/16: four 3x3 convolutions of stride 2, GELU between them."""
    widths = (in_chans, dim // 8, dim // 4, dim // 2, dim)
    layers = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """The trunk's only kind of block, N x D x H x W -> the same: mixes channels, space, channels."""

    def __init__(self, dim: int, drop_path: float, init_values: float):
        super().__init__()
        self.norm = LayerNorm2d(dim, eps=_EPS)
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim),
            nn.GELU(),
            SqueezeExcite(dim, rd_ratio=1 / 4),
            nn.Conv2d(dim, dim, 1),
        )
        self.ls = LayerScale2d(dim, init_values)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop_path(self.ls(self.mix(self.norm(x))))


class AttentionPool(nn.Module):
    """Pooling by what the class token attends to: N x 1 x D and N x L x D patches -> N x 1 x D.

    One head, and the class token is the only query, so the cost is linear in the number of patches.
    """

    def __init__(self, dim: int, init_values: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=_EPS)
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.ls1 = LayerScale(dim, init_values)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = Mlp(dim, hidden_features=3 * dim)
        self.ls2 = LayerScale(dim, init_values)

    def forward(self, token: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """See the class."""
        seen = self.norm1(torch.cat([token, patches], dim=1))
        answer = F.scaled_dot_product_attention(self.q(seen[:, :1]), self.k(seen), self.v(seen))
        token = token + self.ls1(self.proj(answer))
        return token + self.ls2(self.mlp(self.norm2(token)))


class PatchConvNet(nn.Module):
    """N x C x H x W -> N x num_classes, for images of any size: there is no position embedding.

    `dim`, `depth`: D and the number of trunk blocks. `drop_path_rate` is the same in all of them.
    The methods beside `forward` are those that timm and the trainers expect of a model.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        init_values: float = 1e-6,
    ):
        super().__init__()
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, dim, dim
        self.grad_checkpointing = False
        self.stem = stem(in_chans, dim)
        self.blocks = nn.Sequential(*(Block(dim, drop_path_rate, init_values) for _ in range(depth)))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pool = AttentionPool(dim, init_values)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.head = nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()
        trunc_normal_(self.cls_token, std=0.02)
        self.apply(_init_linear)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The trunk: N x C x H x W -> N x D x H/16 x W/16."""
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pooling and the head: N x D x H x W -> N x num_classes, or N x D before the head."""
        patches = x.flatten(2).transpose(1, 2)
        x = self.norm(self.pool(self.cls_token.expand(len(x), -1, -1), patches))[:, 0]
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x C x H x W -> N x num_classes."""
        return self.forward_head(self.forward_features(x))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay, beside biases and norms."""
        return {"cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's layers for layer-wise learning rates: the stem, each block, what follows."""
        end = (r"^(?:cls_token|pool|norm)", (99999,))
        return {"stem": r"^stem", "blocks": r"^blocks" if coarse else [(r"^blocks\.(\d+)", None), end]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of the trunk's blocks in the backward pass."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for another number of classes; 0: none. `global_pool` is not looked at, there is one kind."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()
        self.head.apply(_init_linear)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


_CFG = {
    "input_size": (3, 224, 224),
    "num_classes": 1000,
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "mean": _MEAN,
    "std": _STD,
    "first_conv": "stem.0",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs(
    {f"patchconvnet_{size}.untrained": _CFG for size in ("s60", "s120", "b60", "b120")}
)


def _create(variant: str, pretrained: bool, kwargs: dict, **own) -> PatchConvNet:
    return build_model_with_cfg(PatchConvNet, variant, pretrained, **(own | kwargs))


@register_model
def patchconvnet_s60(pretrained: bool = False, **kwargs) -> PatchConvNet:
    """25.2 M parameters, 82.1 % on ImageNet at 224 px (all four: the paper's)."""
    return _create("patchconvnet_s60", pretrained, kwargs, dim=384, depth=60, init_values=1e-4)


@register_model
def patchconvnet_s120(pretrained: bool = False, **kwargs) -> PatchConvNet:
    """47.7 M parameters, 83.2 %."""
    return _create("patchconvnet_s120", pretrained, kwargs, dim=384, depth=120, init_values=1e-6)


@register_model
def patchconvnet_b60(pretrained: bool = False, **kwargs) -> PatchConvNet:
    """99.4 M parameters, 83.5 %."""
    return _create("patchconvnet_b60", pretrained, kwargs, dim=768, depth=60, init_values=1e-6)


@register_model
def patchconvnet_b120(pretrained: bool = False, **kwargs) -> PatchConvNet:
    """188.6 M parameters, 84.1 %."""
    return _create("patchconvnet_b120", pretrained, kwargs, dim=768, depth=120, init_values=1e-6)
