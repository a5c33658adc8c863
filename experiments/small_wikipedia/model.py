"""A model that learns context within an hour of a CPU core.

python train.py --config=experiments/small_wikipedia/model.py --config.data.path=DIR

Two things are what it takes (docs/experiments.md). Rotary positions: with the paper's learned ones,
a model of this size was still at the frequencies of tokens after 2,000 steps. And replacements that
a narrow discriminator can learn from, by a generator of one layer and a quarter of its width
(and, in the experiment's row `electra`, drawn more evenly at first: config.py).
"""

from configs import tiny


def get_config(platform: str = ""):
    """What differs from configs/tiny.py."""
    config = tiny.get_config(platform)
    config.name = "small_wikipedia"
    config.model.architecture = "modern"
    config.model.embedding_size = 128
    config.model.hidden_size = 128
    config.model.num_layers = 3
    config.model.local_window = 16
    config.model.init_stddev = 0.06
    config.model.generator_size = 0.25
    config.model.generator_depth = 1 / 3
    config.objective.mask_prob = 0.15
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 353
    config.data.seq_len = 64
    config.train.batch_size = 32
    config.train.num_train_steps = 11_767
    config.train.log_every = 100
    config.train.eval_every = 500
    config.train.checkpoint_every = 2000
    return config
