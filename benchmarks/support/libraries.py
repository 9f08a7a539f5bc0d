"""Networks of timm, of transformers and of torchvision's other tasks; weights are never loaded.

Of every family of timm the small members stand for all; a family of transformers is its default configuration with
fewer layers, and no dropout, which the oracle could not compare.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision import models

__all__ = [
    "LAYERS",
    "TASKS",
    "TIMM",
    "VOCABULARY",
    "of_task",
    "of_timm",
    "of_transformers",
    "transformer_names",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LAYERS = 4
"""Layers of a network of transformers, or of each of its stages."""

VOCABULARY = 1000
"""Words that a language model knows here."""

TIMM = _words("""
beit_base_patch16_224 botnet26t_256 eca_halonext26ts lambda_resnet26t gcresnext26ts gernet_s mobileone_s0
repvgg_a0 resnet26t bat_resnext26ts eca_resnext26ts cait_xxs24_224 coat_lite_tiny convit_tiny convmixer_768_32
convnext_atto convnext_nano convnextv2_atto convnextv2_nano crossvit_9_240 crossvit_tiny_240 cs3darknet_s
cspdarknet53 cspresnet50 cspresnext50 darknet53 davit_tiny deit_tiny_patch16_224 deit_tiny_distilled_patch16_224
deit3_small_patch16_224 densenet121 densenetblur121d dla34 dla46_c dla60_res2net dla60_res2next dla60x_c dpn48b
dpn68 edgenext_x_small edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientnet_es
efficientnet_lite0 efficientnetv2_rw_t tf_efficientnetv2_b0 tf_efficientnet_b0 mixnet_s mixnet_m mnasnet_100
mobilenetv2_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium fbnetc_100 spnasnet_100 semnasnet_100 tinynet_e
efficientvit_b0 efficientvit_b1 efficientvit_m0 efficientvit_m1 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8
focalnet_tiny_srf gcvit_xxtiny ghostnet_050 ghostnet_100 ghostnetv2_100 hardcorenas_a hgnet_tiny hgnetv2_b0
hiera_tiny_224 hrnet_w18_small inception_next_atto inception_next_tiny inception_v4 inception_resnet_v2
levit_128s levit_conv_128s coatnet_nano_rw_224 coatnet_pico_rw_224 maxvit_nano_rw_256 maxvit_pico_rw_256
mambaout_femto caformer_s18 convformer_s18 poolformer_s12 poolformerv2_s12 gmixer_12_224 gmlp_ti16_224
mixer_s32_224 mixer_s16_224 resmlp_12_224 lcnet_050 lcnet_100 mobilenetv3_small_050 mobilenetv3_large_100
fbnetv3_b mobilevit_xxs mobilevit_xs mobilevitv2_050 mobilevitv2_075 mvitv2_tiny nest_tiny nextvit_small
eca_nfnet_l0 nf_resnet26 nf_regnet_b0 pit_ti_224 pit_xs_224 pvt_v2_b0 pvt_v2_b1 rdnet_tiny regnetx_002
regnety_002 regnetz_005 repghostnet_050 repvit_m0_9 repvit_m1_0 res2net50_14w_8s res2net50_26w_4s res2next50
resnest14d resnest26d resnet10t resnet18d seresnet18 ecaresnet26t seresnext26d_32x4d ecaresnext26t_32x4d
resnetblur18 resnetaa50 resnetrs50 resnetv2_18 resnetv2_50 resnetv2_50d_gn resnetv2_50x1_bit rexnet_100
rexnetr_100 selecsls42b legacy_seresnet18 legacy_seresnext26_32x4d sequencer2d_s shvit_s1 skresnet18 skresnet34
starnet_s1 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256
swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small visformer_tiny
vit_tiny_patch16_224 vit_small_patch32_224 vit_base_patch32_224 vit_small_patch14_dinov2 vit_tiny_r_s16_p8_224
vit_relpos_small_patch16_224 vit_srelpos_small_patch16_224 volo_d1_224 ese_vovnet19b_dw ese_vovnet39b
legacy_xception xception41 xcit_nano_12_p16_224 xcit_tiny_12_p16_224 cspnext_tiny csatv2 lowformer_b0
efficientvim_m1 lcnetv2_small iformer_t cpubone_nano ghostnetv3_050
""")

TASKS = _words("""
fcn_resnet50 deeplabv3_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large r3d_18 mc3_18 r2plus1d_18
s3d swin3d_t mvit_v1_b mvit_v2_s
""")

SMALL: Mapping[str, Any] = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
    "drop_path_rate": 0.0,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}

VISION: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ResNetForImageClassification": ("ResNetConfig", {}),
    "RegNetForImageClassification": ("RegNetConfig", {}),
    "ViTForImageClassification": ("ViTConfig", {"num_hidden_layers": LAYERS}),
    "ViTModel": ("ViTConfig", {"num_hidden_layers": LAYERS}),
    "DeiTForImageClassification": ("DeiTConfig", {"num_hidden_layers": LAYERS}),
    "BeitForImageClassification": ("BeitConfig", {"num_hidden_layers": LAYERS}),
    "Data2VecVisionForImageClassification": ("Data2VecVisionConfig", {"num_hidden_layers": LAYERS}),
    "Dinov2ForImageClassification": ("Dinov2Config", {"num_hidden_layers": LAYERS}),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", {"num_hidden_layers": LAYERS}),
    "IJepaForImageClassification": ("IJepaConfig", {"num_hidden_layers": LAYERS}),
    "ViTMSNForImageClassification": ("ViTMSNConfig", {"num_hidden_layers": LAYERS}),
    "SwinForImageClassification": ("SwinConfig", {"depths": [1, 1, 2, 1]}),
    "Swinv2ForImageClassification": ("Swinv2Config", {"depths": [1, 1, 2, 1]}),
    "ConvNextForImageClassification": ("ConvNextConfig", {}),
    "ConvNextV2ForImageClassification": ("ConvNextV2Config", {}),
    "MobileNetV1ForImageClassification": ("MobileNetV1Config", {}),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", {}),
    "MobileViTForImageClassification": ("MobileViTConfig", {}),
    "MobileViTV2ForImageClassification": ("MobileViTV2Config", {}),
    "EfficientNetForImageClassification": ("EfficientNetConfig", {}),
    "SegformerForImageClassification": ("SegformerConfig", {}),
    "SegformerForSemanticSegmentation": ("SegformerConfig", {}),
    "PvtForImageClassification": ("PvtConfig", {}),
    "PvtV2ForImageClassification": ("PvtV2Config", {}),
    "PoolFormerForImageClassification": ("PoolFormerConfig", {}),
    "LevitForImageClassification": ("LevitConfig", {}),
    "CvtForImageClassification": ("CvtConfig", {"depth": [1, 2, 3]}),
    "BitForImageClassification": ("BitConfig", {}),
    "FocalNetForImageClassification": ("FocalNetConfig", {}),
    "HGNetV2ForImageClassification": ("HGNetV2Config", {}),
    "SwiftFormerForImageClassification": ("SwiftFormerConfig", {}),
    "DINOv3ViTModel": (
        "DINOv3ViTConfig",
        {"num_hidden_layers": LAYERS, "pos_embed_rescale": None},  # which draws numbers in train mode
    ),
    "CLIPVisionModel": ("CLIPVisionConfig", {"num_hidden_layers": LAYERS}),
    "SiglipVisionModel": ("SiglipVisionConfig", {"num_hidden_layers": LAYERS}),
}

TEXT: Mapping[str, tuple[str, dict[str, Any]]] = {
    f"{name}ForSequenceClassification": (f"{name}Config", {"num_hidden_layers": LAYERS})
    for name in (
        "Bert", "Roberta", "XLMRoberta", "Electra", "Albert", "Camembert", "MPNet", "Ernie", "ModernBert",
        "DebertaV2", "Deberta", "MobileBert", "ConvBert", "FNet", "Data2VecText", "RoFormer", "SqueezeBert",
    )
} | {
    "FunnelForSequenceClassification": ("FunnelConfig", {"block_sizes": [1, 1, 1]}),
    "DistilBertForSequenceClassification": ("DistilBertConfig", {"n_layers": LAYERS}),
}  # fmt: skip


def of_timm(name: str) -> nn.Module:
    """A network of timm."""
    net: nn.Module = importlib.import_module("timm").create_model(name)
    return net


def of_task(name: str) -> nn.Module:
    """A network of torchvision for another task than classification of images."""
    dense = name.startswith(("fcn", "deeplab", "lraspp"))
    options: dict[str, Any] = {"weights_backbone": None} if dense else {}
    return models.get_model(name, weights=None, **options)


def of_transformers(name: str) -> nn.Module:
    """A network of transformers."""
    library = importlib.import_module("transformers")
    kind, options = {**VISION, **TEXT}[name]
    text = {"vocab_size": VOCABULARY, "pad_token_id": 0} if name in TEXT else {}
    configuration = getattr(library, kind)(**{**text, **options})
    for option, value in SMALL.items():
        before = getattr(configuration, option, None)
        if isinstance(before, list | tuple):  # one for every stage
            setattr(configuration, option, [value] * len(before))
        elif before:  # some are integers, and stay
            setattr(configuration, option, value)
    net: nn.Module = getattr(library, name)(configuration)
    return net


def transformer_names() -> Iterator[tuple[str, bool, Callable[[], nn.Module]]]:
    """Name, whether it reads words, and factory of every network of transformers."""
    for name in (*VISION, *TEXT):
        yield name, name in TEXT, partial(of_transformers, name)
