"""A small encoder of today's kind under ELECTRA's objective (Warner et al. 2024 for the encoder).

python train.py --config=configs/modern.py --config.data.path=DIR

Rows are packed, and each document in them looks at itself alone; tables as wide as the layers, so
that both networks can be exported as Hugging Face's ModernBERT.
"""

from configs import common


def get_config(platform: str = ""):
    """What differs from ELECTRA-Small."""
    config = common.get_config(platform)
    config.name = "modern"
    config.model.architecture = "modern"
    config.model.embedding_size = 256
    config.model.generator_size = 1.0
    config.model.generator_depth = 0.5
    config.model.max_positions = 1024
    config.model.dropout_rate = 0.0
    config.model.attention_dropout_rate = 0.0
    config.objective.separate_documents = True
    config.data.seq_len = 512
    config.data.example_format = "packed"
    config.train.batch_size = 32
    return config
