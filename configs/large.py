"""ELECTRA-Large (Clark et al. 2020, Table 6): an encoder of 334 M parameters, sequences of 512.

python train.py --config=configs/large.py:tpu --config.data.path=DIR

The paper reports a GLUE score of 89.0 after these 400k steps (Table 2).
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "large"
    config.model.embedding_size = 1024
    config.model.hidden_size = 1024
    config.model.num_layers = 24
    config.model.num_heads = 16
    config.objective.mask_prob = 0.25
    config.optimizer.learning_rate = 2e-4
    config.data.seq_len = 512
    config.train.batch_size = 2048
    config.train.num_train_steps = 400_000
    return config
