"""ELECTRA-Small (Clark et al. 2020, Table 6): 14.2 M parameters, sequences of 128.

python train.py --config=configs/small.py --config.data.path=DIR

The paper reports a GLUE score of 79.9 after these 1M steps (16.4 G tokens; Table 1).
"""

from configs import common


def get_config(platform: str = ""):
    """The values of `common.get_config`, which are this model's."""
    return common.get_config(platform)
