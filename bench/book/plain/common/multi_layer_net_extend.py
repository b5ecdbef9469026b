"""The plain network has dropout and batch normalisation anyway."""

from common.multi_layer_net import MultiLayerNet as MultiLayerNetExtend  # noqa: F401
