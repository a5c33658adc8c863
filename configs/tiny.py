"""A model for a first look: trains in under three minutes on two CPU cores.

python train.py --config=configs/tiny.py
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "tiny"
    config.model.embedding_size = 64
    config.model.hidden_size = 128
    config.model.num_layers = 2
    config.model.num_heads = 2
    config.model.generator_size = 0.5
    config.data.seq_len = 64
    config.train.batch_size = 32
    config.train.num_train_steps = 800
    config.train.log_every = 20
    config.train.eval_every = 200
    config.train.eval_batches = 20
    config.train.checkpoint_every = 200
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 80
    return config
