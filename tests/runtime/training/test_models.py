"""Models: parameter counts, each option's effect block by block, PatchConvNet, weights for another size."""

import importlib.util
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from timm.layers import DropPath
from timm.models.vision_transformer import checkpoint_filter_fn
from timm.optim import param_groups_layer_decay

from beton.errors import UserError
from runtime.training import models
from runtime.training.models import model_options
from runtime.training.models.patchconvnet import AttentionPool, PatchConvNet
from runtime.training.models.weights import load_weights_resized
from runtime.training.sections import MODEL_OPTIONS
from tests.support.models import COUNTS, FASTERVIT_COUNTS, PAPER_COUNTS, drop_rates, millions, sketch

VIT, DEIT3, LEVIT = "timm:vit_tiny_patch16_224", "timm:deit3_small_patch16_224", "timm:levit_128s"
DISTILLED, CAIT, RESMLP = "timm:deit_tiny_distilled_patch16_224", "timm:cait_xxs24_224", "timm:resmlp_12_224"
PATCHCONVNET = "timm:patchconvnet_s60"
WEIGHTS = Path("weights.pt")
DEFAULTS = {name: param.default for name, param in MODEL_OPTIONS.items()}


# Parameter counts


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert millions(sketch(f"timm:{name}")) == pytest.approx(COUNTS[name], rel=1e-3)


def test_parameter_count_of_torchvision_vit():
    assert millions(sketch("vit_b_16")) == pytest.approx(86.568, rel=1e-3)


@pytest.mark.parametrize("name", PAPER_COUNTS)
def test_parameter_counts_of_patchconvnet(name):
    assert millions(sketch(f"timm:{name}")) == pytest.approx(PAPER_COUNTS[name], rel=3e-3)


# Options


def options_of(**changes):
    """The options of a model as `model_options.apply` takes them."""
    return SimpleNamespace(**DEFAULTS | changes)


@pytest.mark.parametrize("arch", [VIT, DEIT3])
def test_drop_path_is_linear_or_constant(arch):
    linear = [0.22 * block / 11 for block in range(12) for _ in range(2)]
    assert drop_rates(sketch(arch, drop_path=0.22)) == pytest.approx(linear)
    assert drop_rates(sketch(arch, drop_path=0.22, drop_path_constant=True)) == [0.22] * 24
    for constant in (False, True):
        assert drop_rates(sketch(arch, drop_path=0.0, drop_path_constant=constant)) == [0.0] * 24


@pytest.mark.parametrize(("arch", "with_rate", "without"), [(LEVIT, 20, 0), (CAIT, 24, 2), (RESMLP, 12, 0)])
def test_drop_path_of_models_whose_rule_is_constant(arch, with_rate, without):
    for constant in (False, True):
        rates = drop_rates(sketch(arch, drop_path=0.1, drop_path_constant=constant))
        assert rates == [0.1] * with_rate + [0.0] * without


@pytest.mark.parametrize("constant", [False, True])
def test_drop_path_of_patchconvnet_and_torchvision(constant):
    assert drop_rates(sketch(PATCHCONVNET, drop_path=0.3, drop_path_constant=constant)) == [0.3] * 60
    rates = [m.p for m in sketch("convnext_tiny", drop_path=0.34).modules() if hasattr(m, "p") and hasattr(m, "mode")]
    assert rates == pytest.approx([0.34 * block / 17 for block in range(18)])


def test_constant_drop_path_drops_whole_samples_in_training_only():
    model = models.build(VIT, 3, img_size=32, drop_path=0.5, drop_path_constant=True)
    block = model.blocks[0]
    assert type(block.drop_path1) is DropPath
    x = torch.ones(400, 5, 2)
    assert set(block.train().drop_path1(x).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(block.eval().drop_path1(x), x)


def test_constant_drop_path_needs_a_rate():
    with pytest.raises(UserError, match="set model.drop_path"):
        sketch(VIT, drop_path_constant=True)


@pytest.mark.parametrize(("arch", "count"), [(VIT, 24), (DEIT3, 24), (CAIT, 52), (RESMLP, 24), (PATCHCONVNET, 62)])
def test_layer_scale_sets_every_factor(arch, count):
    scales = model_options.layer_scales(models.build(arch, 3, layer_scale=3e-3))
    assert len(scales) == count
    assert all(torch.equal(scale, torch.full_like(scale, 3e-3)) for scale in scales)


def test_layer_scale_of_a_convnext_of_either_library():
    for arch in ("timm:convnext_tiny", "convnext_tiny"):
        assert len(model_options.layer_scales(sketch(arch, layer_scale=1e-4))) == 18


def test_library_weights_keep_their_layer_scale():
    model = PatchConvNet(16, 2, init_values=0.5)
    model_options.apply("a model", model, options_of(layer_scale=1e-3), pretrained=True)
    assert all(scale.min() == 0.5 for scale in model_options.layer_scales(model))


def test_image_sizes():
    assert sketch(VIT, img_size=96).pos_embed.shape == (1, 1 + 6 * 6, 192)
    assert sketch(DEIT3, img_size=96).pos_embed.shape == (1, 6 * 6, 384)
    # A patch of 14 does not divide 160: 11 x 11 of them, as in DeiT III's recipe
    assert sketch("timm:deit3_huge_patch14_224", img_size=160).pos_embed.shape == (1, 121, 1280)
    assert sketch("vit_b_16", img_size=96).encoder.pos_embedding.shape == (1, 1 + 6 * 6, 768)
    assert sketch(LEVIT, 5, img_size=96)(torch.empty(2, 3, 96, 96, device="meta")).shape == (2, 5)
    with pytest.raises(UserError, match="vit_b_16 cannot be built with model.img_size=100"):
        sketch("vit_b_16", img_size=100)


@pytest.mark.parametrize("arch", [LEVIT, DISTILLED])
def test_distilled_answers_twice_in_training_and_averages_else(arch):
    model = models.build(arch, 3, img_size=64, distilled=True)
    # LeViT's heads differ only in their parameters, and DeiT's begin with zeros
    for head in (model.head, model.head_dist):
        for p in head.parameters():
            torch.nn.init.normal_(p)
    x = torch.randn(2, 3, 64, 64)
    first, second = model.train()(x)
    assert first.shape == second.shape == (2, 3)
    answers = []
    for head in (model.head, model.head_dist):
        head.register_forward_hook(lambda module, args, answer: answers.append(answer))
    mean = model.eval()(x)
    assert not torch.allclose(answers[0], answers[1])
    torch.testing.assert_close(mean, (answers[0] + answers[1]) / 2)
    model = sketch(arch, 3, img_size=64)
    assert model.train()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 3)


def gradients(model, x):
    """Gradients of a loss, and the number of values kept for the backward pass outside of checkpoints."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        loss = model(x).square().sum()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], sum(kept)


def small(arch, checkpointing):
    """A model that is soon built."""
    if arch == PATCHCONVNET:
        model = PatchConvNet(32, 20, num_classes=3, init_values=0.5)
        model_options.apply(arch, model, options_of(checkpointing=checkpointing), pretrained=False)
        return model
    scale = {} if arch == LEVIT else {"layer_scale": 0.5}
    return models.build(arch, 3, img_size=64, checkpointing=checkpointing, **scale)


@pytest.mark.parametrize("arch", [VIT, LEVIT, PATCHCONVNET])
def test_checkpointing_gives_the_same_gradient_from_less_memory(arch):
    torch.manual_seed(0)
    plain, recomputing = small(arch, False), small(arch, True)
    recomputing.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    expected, most = gradients(plain, x)
    found, least = gradients(recomputing, x)
    assert least < 0.5 * most
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("arch", "option", "value"),
    [
        (VIT, "distilled", True), (LEVIT, "layer_scale", 1e-4), (PATCHCONVNET, "img_size", 96),
        (PATCHCONVNET, "distilled", True), ("timm:resnet18", "img_size", 96), ("timm:resnet18", "layer_scale", 1e-4),
        ("timm:vgg11", "drop_path", 0.1), ("timm:vgg11", "checkpointing", True), ("resnet18", "img_size", 96),
        ("resnet18", "drop_path", 0.1), ("resnet18", "layer_scale", 1e-4), ("resnet18", "distilled", True),
        ("resnet18", "checkpointing", True),
    ],
)  # fmt: skip
def test_an_option_that_the_model_does_not_support_is_an_error(arch, option, value):
    with pytest.raises(UserError, match=f"{arch} does not support model.{option};"):
        sketch(arch, **{option: value})


def test_constant_drop_path_is_unknown_to_torchvision():
    with pytest.raises(UserError, match="convnext_tiny does not support model.drop_path_constant"):
        sketch("convnext_tiny", drop_path=0.1, drop_path_constant=True)


def test_options_come_from_a_section():
    given = {**DEFAULTS, "img_size": 96, "checkpointing": True}
    assert models.options(SimpleNamespace(arch=VIT, pretrained=False, weights=None, **given)) == given


def test_there_are_no_weights_of_patchconvnet():
    with pytest.raises(UserError, match="no weights of timm:patchconvnet_s60"):
        sketch(PATCHCONVNET, pretrained=True)


# PatchConvNet


def test_patchconvnet_forward_and_backward():
    torch.manual_seed(0)
    model = PatchConvNet(64, 3, num_classes=7)
    seen = {}
    for name in ("q", "k", "v"):
        layer = getattr(model.pool, name)
        layer.register_forward_hook(lambda module, args, answer, name=name: seen.update({name: args[0].shape}))
    answer = model(torch.randn(2, 3, 64, 64))
    assert answer.shape == (2, 7)
    # One query, the class token; keys and values: the token and 64/16 x 64/16 patches
    assert seen == {"q": (2, 1, 64), "k": (2, 17, 64), "v": (2, 17, 64)}
    torch.nn.functional.cross_entropy(answer, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.cls_token.grad.abs().sum() > 0


def test_patchconvnet_takes_any_size_and_says_its_features():
    model = PatchConvNet(16, 2, num_classes=5).eval()
    assert model(torch.randn(1, 3, 80, 48)).shape == (1, 5)
    features = model.forward_features(torch.randn(1, 3, 80, 48))
    assert features.shape == (1, 16, 5, 3)
    assert model.forward_head(features, pre_logits=True).shape == (1, model.num_features)
    model.reset_classifier(9)
    assert model.get_classifier().out_features == model(torch.randn(1, 3, 64, 64)).shape[1] == 9


def test_attention_pool_in_closed_form():
    torch.manual_seed(0)
    pool = AttentionPool(4, init_values=0.5)
    token, patches = torch.randn(3, 1, 4), torch.randn(3, 6, 4)
    every = torch.cat([token, patches], dim=1)
    every = (every - every.mean(-1, keepdim=True)) / (every.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    q, k, v = (every @ getattr(pool, name).weight.T for name in ("q", "k", "v"))
    attention = torch.softmax((k * q[:, :1]).sum(-1) / 4**0.5, dim=1)
    pooled = (attention[..., None] * v).sum(1, keepdim=True)
    expected = token + 0.5 * (pooled @ pool.proj.weight.T + pool.proj.bias)
    normal = (expected - expected.mean(-1, keepdim=True)) / (
        expected.var(-1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    hidden = torch.nn.functional.gelu(normal @ pool.mlp.fc1.weight.T + pool.mlp.fc1.bias)
    expected = expected + 0.5 * (hidden @ pool.mlp.fc2.weight.T + pool.mlp.fc2.bias)
    torch.testing.assert_close(pool(token, patches), expected)


def test_patchconvnet_begins_as_in_the_paper():
    torch.manual_seed(0)
    model = models.build(PATCHCONVNET, 1000)
    assert model.no_weight_decay() == {"cls_token"} <= {name for name, _ in model.named_parameters()}
    assert all(scale.unique().item() == pytest.approx(1e-4) for scale in model_options.layer_scales(model))
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 7
    assert all(m.weight.std().item() == pytest.approx(0.02, rel=0.03) for m in linear)
    assert all(not m.bias.any() for m in linear if m.bias is not None)
    for name in ("patchconvnet_s120", "patchconvnet_b60", "patchconvnet_b120"):
        small = timm.create_model(name, dim=16, depth=1)
        assert all(scale.unique().item() == pytest.approx(1e-6) for scale in model_options.layer_scales(small))


def test_patchconvnet_has_timm_s_layers():
    groups = param_groups_layer_decay(PatchConvNet(16, 3), weight_decay=0.1, layer_decay=0.5)
    assert {group["lr_scale"] for group in groups} == {1, 0.5, 0.25, 0.125, 0.0625}


# Weights for another image size or number of classes


@pytest.mark.parametrize("arch", [VIT, DEIT3, DISTILLED, CAIT])
def test_position_embeddings_are_resampled_as_timm_does(arch, capsys):
    torch.manual_seed(0)
    old, new = models.build(arch, 5, img_size=64), models.build(arch, 5, img_size=96)
    torch.nn.init.normal_(old.pos_embed)
    state = old.state_dict()
    if arch == CAIT:
        # No prefix, and timm has no resampling of its own for it
        expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [6, 6], num_prefix_tokens=0)
    else:
        expected = checkpoint_filter_fn(dict(state), new)["pos_embed"]
    load_weights_resized(new, {"model": state}, WEIGHTS)
    assert expected.shape != state["pos_embed"].shape
    assert torch.equal(new.pos_embed, expected)
    loaded = new.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state if name != "pos_embed")
    assert capsys.readouterr().out == ""


def test_position_embeddings_of_torchvision_are_resampled():
    torch.manual_seed(0)
    old, new = (torchvision.models.VisionTransformer(side, 16, 2, 2, 8, 16, num_classes=5) for side in (64, 96))
    torch.nn.init.normal_(old.encoder.pos_embedding)
    load_weights_resized(new, old.state_dict(), WEIGHTS)
    expected = timm.layers.resample_abs_pos_embed(old.encoder.pos_embedding, [6, 6], num_prefix_tokens=1)
    assert torch.equal(new.encoder.pos_embedding, expected)


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        (VIT, ["head.weight", "head.bias"]),
        (DISTILLED, ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]),
        (LEVIT, ["head.linear.weight", "head.linear.bias", "head_dist.linear.weight", "head_dist.linear.bias"]),
        ("resnet18", ["fc.weight", "fc.bias"]),
    ],
)
def test_a_head_of_another_shape_stays_and_is_named(arch, names, capsys):
    old, new = models.build(arch, 5), models.build(arch, 3)
    before, weights = {name: new.state_dict()[name].clone() for name in names}, old.state_dict()
    load_weights_resized(new, weights, WEIGHTS)
    loaded = new.state_dict()
    assert all(torch.equal(loaded[name], before[name]) for name in names)
    assert all(torch.equal(loaded[name], weights[name]) for name in weights if name not in names)
    assert f"initialised for another number of classes: {', '.join(names)}" in capsys.readouterr().out


def test_a_head_of_the_same_shape_is_loaded():
    old, new = models.build(VIT, 5, img_size=32), models.build(VIT, 5, img_size=32)
    torch.nn.init.normal_(old.head.weight)
    load_weights_resized(new, old.state_dict(), WEIGHTS)
    assert torch.equal(new.head.weight, old.head.weight)


def damaged(state, change):
    if change == "missing":
        return {name: value for name, value in state.items() if name != "blocks.1.norm.bias"}
    if change == "unexpected":
        return state | {"blocks.9.norm.bias": torch.zeros(16)}
    return state | {"stem.0.weight": torch.zeros(4, 3, 3, 3)}


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_other_weights_are_an_error(change):
    state = PatchConvNet(16, 2).state_dict()
    with pytest.raises(UserError, match="the weights in weights.pt do not fit the model"):
        load_weights_resized(PatchConvNet(16, 2), damaged(state, change), WEIGHTS)


def test_weights_that_cannot_be_resized_are_an_error():
    # LeViT's attention biases belong to one image size; DeiT's second token is in no ViT
    for old, new in [((LEVIT, 64), (LEVIT, 96)), ((VIT, 64), (DISTILLED, 96))]:
        model, weights = models.build(new[0], 3, img_size=new[1]), models.build(old[0], 3, img_size=old[1])
        with pytest.raises(UserError, match="do not fit the model"):
            load_weights_resized(model, weights.state_dict(), WEIGHTS)
    for weights, words in [({"model": torch.zeros(3)}, "no weights"), ({"x": torch.zeros(3)}, "do not fit the model")]:
        with pytest.raises(UserError, match=words):
            load_weights_resized(PatchConvNet(16, 1), weights, WEIGHTS)


# FasterViT


@pytest.fixture(scope="module")
def fastervit_warnings():
    """What importing the package says, if it is installed."""
    if importlib.util.find_spec("fastervit") is None:
        pytest.skip("fastervit is not installed")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        models.fastervit.register()
    return [str(warning.message) for warning in said]


@pytest.fixture
def fastervit(fastervit_warnings, monkeypatch):
    """The package reads its drop path rates from a tensor, which the meta device does not allow."""
    linspace = torch.linspace
    monkeypatch.setattr(torch, "linspace", lambda *args, **kwargs: linspace(*args, **kwargs, device="cpu"))


def test_fastervit_missing(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastervit" else find_spec(name))
    with pytest.raises(UserError, match="non-commercial.*pip install 'fastervit>=1.0,<2'"):
        sketch("timm:faster_vit_0_224")


def test_fastervit_is_imported_in_silence(fastervit_warnings):
    assert fastervit_warnings == []


@pytest.mark.parametrize("version", range(7))
def test_parameter_counts_of_fastervit(fastervit, version):
    model = sketch(f"timm:faster_vit_{version}_224")
    assert millions(model) == pytest.approx(FASTERVIT_COUNTS[version], rel=1e-3)
    assert bool(model_options.layer_scales(model)) == (version >= 3)


def test_fastervit_options(fastervit):
    name = "timm:faster_vit_0_224"
    linear = [m.drop_path for m in sketch(name, drop_path=0.3).modules() if hasattr(m, "drop_path")]
    rates = [getattr(drop, "drop_prob", 0.0) for drop in linear]
    assert rates == pytest.approx([0.3 * block / 15 for block in range(16)])
    assert set(drop_rates(sketch(name, drop_path=0.3, drop_path_constant=True))) == {0.3}
    for option, value in {"img_size": 384, "layer_scale": 1e-5, "distilled": True, "checkpointing": True}.items():
        with pytest.raises(UserError, match=f"{name} does not support model.{option};"):
            sketch(name, **{option: value})
    with pytest.raises(UserError, match="timm has no model 'faster_vit_7'"):
        sketch("timm:faster_vit_7")


def test_fastervit_answers(fastervit_warnings):
    model = models.build("timm:faster_vit_0_224", 3).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 3)
