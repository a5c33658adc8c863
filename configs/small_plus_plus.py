"""The ELECTRA-Small that Google released ("Small++"): sequences of 512, a generator as wide as the
discriminator, 4M steps; 23.1 M trained parameters, of which the encoder has 13.5 M.

python train.py --config=configs/small_plus_plus.py --config.data.path=DIR
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "small_plus_plus"
    config.model.generator_size = 1.0
    config.data.seq_len = 512
    config.train.num_train_steps = 4_000_000
    return config
