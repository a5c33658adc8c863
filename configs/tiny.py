"""A model for a first look at every part: trains in about two minutes on two CPU cores.

python train.py --config=configs/tiny.py

Two minutes are 6 M tokens, so the default corpus is cut into 256 word pieces, hardly more than
letters, and a quarter of them are masked. Expect the generator's loss to fall from 5.1 to about
4.0, where token frequencies alone give 5.0, and the discriminator's area under the curve to reach
about 0.56: it learns later than the generator, and this run ends where it begins to.
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "tiny"
    config.model.embedding_size = 64
    config.model.hidden_size = 64
    config.model.num_layers = 2
    config.model.num_heads = 4
    config.model.generator_size = 0.5
    config.model.init_stddev = 0.08  # 0.02 suits widths of 256 and more
    config.model.dropout_rate = 0.0  # the text is seen less than twice
    config.model.attention_dropout_rate = 0.0
    config.objective.mask_prob = 0.25
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.data.default_vocab_size = 256
    config.data.seq_len = 32
    config.train.batch_size = 128
    config.train.num_train_steps = 1500
    config.train.log_every = 50
    config.train.eval_every = 250
    config.train.eval_batches = 20
    config.train.checkpoint_every = 500
    return config
