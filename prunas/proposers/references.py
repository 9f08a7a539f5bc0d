"""Papers that several entries of the table of proposers come from."""

__all__ = [
    "GORDON",
    "HAN",
    "HE",
    "HU",
    "LI",
    "LUO",
    "MOLCHANOV",
    "SLIMMING",
    "SSS",
    "STUDY",
    "WU",
    "YANG",
]

STUDY = "Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, arXiv:1810.05270"

SLIMMING = (
    "Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, "
    "arXiv:1708.06519"
)
SSS = (
    "Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018, "
    "arXiv:1707.01213"
)
HAN = (
    "Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015, "
    "arXiv:1506.02626"
)
LI = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710"
LUO = (
    "Luo et al., ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017, "
    "arXiv:1707.06342"
)
HE = "He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv:1707.06168"
WU = "Wu et al., BlockDrop: Dynamic Inference Paths in Residual Networks, CVPR 2018, arXiv:1711.08393"
MOLCHANOV = "Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771"
YANG = (
    "Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018, "
    "arXiv:1804.03230"
)
GORDON = (
    "Gordon et al., MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks, CVPR 2018, "
    "arXiv:1711.06798"
)
HU = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507"
