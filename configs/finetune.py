"""Every field of fine-tuning; the task is the argument.

python finetune.py --config=configs/finetune.py:rte --config.pretrained=DIR --config.data_dir=DIR

None means what the paper used (Clark et al. 2020, Table 7): learning rates of 3e-4, 1e-4 and 5e-5
and layer-wise decays of 0.8, 0.8 and 0.9 for encoders of the size of small, base and large; 10
epochs for RTE and STS-B, 2 for question answering, 3 for the rest.
"""

from ml_collections import config_dict

from configs import common


def get_config(task: str = "") -> config_dict.ConfigDict:
    """Fine-tuning on a task.

    Args:
      task: cola sst2 mrpc stsb qqp mnli qnli rte wnli squad squadv2 newsqa naturalqs triviaqa
        searchqa chunking, or, of data of your own, classification regression tagging.
    """
    config = config_dict.ConfigDict()
    config.name = task or "finetune"
    config.task = task
    config.platform = "auto"
    config.pretrained = config_dict.placeholder(str)  # a run, or a Hugging Face directory
    config.data_dir = config_dict.placeholder(str)  # or "tfds:glue"
    config.seed = 0  # of the first trial; the others follow
    config.num_trials = 1
    config.learning_rate = config_dict.placeholder(float)  # None: by the encoder's size
    config.num_epochs = config_dict.placeholder(float)  # None: by the task
    config.batch_size = 32
    config.select = "best"  # which state of a trial is kept, by the main metric on dev; or last
    config.patience = config_dict.placeholder(int)  # evaluations without a better one; None: all
    config.evals_per_epoch = 1.0

    data = config.data = config_dict.ConfigDict()
    data.max_length = config_dict.placeholder(int)  # tokens of a row; None: by the task
    data.num_lengths = 6  # lengths that batches are padded to, each compiled once
    data.bad_rows = config_dict.placeholder(str)  # refuse or skip; None: by the task
    data.dev_share = config_dict.placeholder(float)  # of train, where there is no dev; None: task's
    data.double_unordered = config_dict.placeholder(bool)  # pairs in both orders; None: by the task
    data.tfds_data_dir = config_dict.placeholder(str)
    # Of data of your own: CSV, TSV or JSON lines with these columns.
    data.text_column = "text"
    data.text_b_column = "text_b"
    data.label_column = "label"
    data.id_column = ""
    data.labels = ()  # in order; (): those of the training data, sorted
    data.multilabel = False
    data.label_separator = ","
    data.tag_scheme = "as_file"  # of tagging; or bioes
    # Of question answering.
    data.stride = 128
    data.max_question_length = 64
    data.null_threshold = -2.75  # of SQuAD 2.0: null odds above it mean "no answer"

    model = config.model = config_dict.ConfigDict()
    model.dropout_rate = 0.1
    model.attention_dropout_rate = 0.1
    model.dtype = "auto"  # float32 on CPU, bfloat16 on GPU and TPU
    model.scan_layers = "auto"  # unrolled on CPU and GPU, scanned on TPU
    model.head_dropout_rate = 0.1
    model.head_hidden_layer = False  # as Hugging Face's classifier
    model.joint_spans = True  # ends given starts; False: as Hugging Face's, for exchange
    model.answerability = True

    optimizer = config.optimizer = config_dict.ConfigDict()
    optimizer.warmup_proportion = 0.1
    optimizer.layer_decay = config_dict.placeholder(float)  # None: by the encoder's size
    optimizer.layer_decay_skips_a_depth = False  # True: the original's one factor too many
    optimizer.weight_decay = 0.0  # the paper's; the original code's default was 0.01
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.eps = 1e-6
    optimizer.max_grad_norm = 1.0
    optimizer.frozen = ()  # patterns of names, such as ("^embeddings/",)

    grid = config.grid = config_dict.ConfigDict()  # every combination, each with all trials
    grid.learning_rates = ()
    grid.num_epochs = ()

    train = config.train = config_dict.ConfigDict()
    train.log_every = 50
    train.checkpoint_every = 500
    train.on_nonfinite = "raise"  # or skip: leave the step out, count it, go on
    train.predict_test = True  # write predictions for the test files that there are

    config.parallel = common.parallel_config()
    config.logging = config_dict.ConfigDict(
        {"tensorboard": True, "wandb": False, "wandb_project": "electra_jax"}
    )
    return config
