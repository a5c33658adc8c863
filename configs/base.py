"""ELECTRA-Base (Clark et al. 2020, Table 6): an encoder of 109 M parameters, sequences of 512.

python train.py --config=configs/base.py --config.data.path=DIR

The paper reports a GLUE score of 85.1 after these 766k steps (Table 1).
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "base"
    config.model.embedding_size = 768
    config.model.hidden_size = 768
    config.model.num_heads = 12
    config.model.generator_size = 1 / 3
    config.optimizer.learning_rate = 2e-4
    config.data.seq_len = 512
    config.train.batch_size = 256
    config.train.num_train_steps = 766_000
    return config
