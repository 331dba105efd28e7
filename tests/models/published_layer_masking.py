"""Layer masking as it was published, written out slowly for whole networks: activations and mask go hand in hand."""

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import BasicBlock, ResNet


def published(backbone, image, visible, patch_size):
    """Pooled features, and how far they and each stage go: (B, D)."""
    mask = visible.to(image.dtype)[:, None].repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    x = image * mask
    walk = {ResNet: resnet, ConvNeXt: convnext, EfficientNet: efficientnet}[type(backbone)]
    x, mask = walk(backbone, x, mask)
    pooled = (x * mask).mean((2, 3), keepdim=True) / (mask.mean((2, 3), keepdim=True) + 1e-8)
    return backbone.forward_head(pooled, pre_logits=True)


def box(x):
    """Sum over 3 x 3 positions, one channel at a time."""
    return F.conv2d(x.flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3, dtype=x.dtype), padding=1).view_as(x)


def conv(layer, x, mask):
    x, original, known = x * mask, mask, mask
    with torch.no_grad():
        filled = x.detach().clone()
        for _ in range(max(layer.kernel_size)):
            neighbours = box(known)
            filled = filled + (1 - known) * box(filled) / (neighbours + 1e-5)
            known = (known + neighbours).clamp(0, 1)
    x = x + (filled - x).detach()
    padding = layer.padding
    if isinstance(layer, Conv2dSame):
        original, padding = pad_same(original, layer.kernel_size, layer.stride, layer.dilation), 0
    new = F.max_pool2d(original, layer.kernel_size, layer.stride, padding, layer.dilation)
    return layer(x) * new, new


def pointwise(layer, x, mask):
    return layer(x * mask) * mask, mask


def channels_last(layer, x, mask):
    return layer((x * mask).permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * mask, mask


def max_pool(layer, x, mask):
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    new = F.max_pool2d(mask, *sizes)
    return F.max_pool2d(x * mask, *sizes) * new, new


def average_pool(layer, x, mask):
    new = (layer(mask) > 0).to(x.dtype)
    return layer(x * mask) * new, new


def add(first, second):
    mask = first[1] * second[1]
    return (first[0] + second[0]) * mask, mask


def any_layer(layer, x, mask):
    if isinstance(layer, torch.nn.Conv2d):
        return conv(layer, x, mask)
    if isinstance(layer, torch.nn.MaxPool2d):
        return max_pool(layer, x, mask)
    if isinstance(layer, torch.nn.AvgPool2d):
        return average_pool(layer, x, mask)
    return pointwise(layer, x, mask)


def chain(layers, x, mask):
    for layer in layers:
        x, mask = any_layer(layer, x, mask)
    return x, mask


def leaves(module):
    """Layers of a sequence in their order, sequences within sequences opened."""
    if isinstance(module, torch.nn.Sequential):
        return [layer for part in module for layer in leaves(part)]
    return [module]


def squeeze_excite(module, x, mask):
    if isinstance(module, torch.nn.Identity):
        return x
    squeezed = (x * mask).mean((2, 3), keepdim=True) / (mask.mean((2, 3), keepdim=True) + 1e-8)
    if hasattr(module, "fc1"):
        return x * module.gate(module.fc2(module.act(module.bn(module.fc1(squeezed)))))
    return x * module.gate(module.conv_expand(module.act1(module.conv_reduce(squeezed))))


def resnet(net, x, mask):
    x, mask = chain([*leaves(net.conv1), net.bn1, net.act1, net.maxpool], x, mask)
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        for block in stage:
            shortcut = chain(leaves(block.downsample), x, mask) if block.downsample is not None else (x, mask)
            inner = [block.conv1, block.bn1, block.act1, block.conv2, block.bn2]
            if not isinstance(block, BasicBlock):
                inner += [block.act2, block.conv3, block.bn3]
            x, mask = chain(inner, x, mask)
            if block.se is not None:
                x = squeeze_excite(block.se, x, mask)
            x, mask = add((x, mask), shortcut)
            x, mask = pointwise(block.act3 if hasattr(block, "act3") else block.act2, x, mask)
    return x, mask


def convnext(net, x, mask):
    x, mask = chain(net.stem, x, mask)
    for stage in net.stages:
        x, mask = chain(leaves(stage.downsample), x, mask)
        for block in stage.blocks:
            shortcut = (x, mask)
            x, mask = conv(block.conv_dw, x, mask)
            walk = pointwise if block.use_conv_mlp else channels_last
            for layer in (block.norm, *block.mlp.children()):
                x, mask = walk(layer, x, mask)
            if block.gamma is not None:
                x = x * block.gamma[None, :, None, None]
            x, mask = add((x, mask), shortcut)
    return pointwise(net.norm_pre, x, mask)


def efficientnet(net, x, mask):
    x, mask = chain([net.conv_stem, net.bn1], x, mask)
    for stage in net.blocks:
        for block in stage:
            shortcut = (x, mask)
            if isinstance(block, InvertedResidual):
                x, mask = chain([block.conv_pw, block.bn1, block.conv_dw, block.bn2], x, mask)
                x = squeeze_excite(block.se, x, mask)
                x, mask = chain([block.conv_pwl, block.bn3], x, mask)
            else:
                assert isinstance(block, DepthwiseSeparableConv)
                x, mask = chain([block.conv_dw, block.bn1], x, mask)
                x = squeeze_excite(block.se, x, mask)
                x, mask = chain([block.conv_pw, block.bn2], x, mask)
            if block.has_skip:
                x, mask = add((x, mask), shortcut)
    return chain([net.conv_head, net.bn2], x, mask)
