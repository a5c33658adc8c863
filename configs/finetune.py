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
    config.name = task or "finetune"  # of the run: its default workdir is runs/finetune-NAME
    config.task = task  # the argument after the colon
    config.platform = "auto"  # cpu, gpu or tpu; auto: what JAX finds
    config.pretrained = config_dict.placeholder(str)  # a run, or a Hugging Face directory
    config.data_dir = config_dict.placeholder(str)  # the task's files, or "tfds:glue"
    config.from_scratch = False  # a baseline: pretrained's shape and tokenizer, parameters drawn
    config.seed = 0  # of the first trial; the others follow
    config.num_trials = 1  # from seeds that follow one another
    config.learning_rate = config_dict.placeholder(float)  # None: by the encoder's size
    config.num_epochs = config_dict.placeholder(float)  # None: by the task
    config.batch_size = 32  # rows of an update
    config.select = "best"  # which state of a trial is kept, by the main metric on dev; or last
    config.patience = config_dict.placeholder(int)  # evaluations without a better one; None: all
    config.evals_per_epoch = 1.0  # how often dev is evaluated

    data = config.data = config_dict.ConfigDict()
    data.max_length = config_dict.placeholder(int)  # tokens of a row; None: by the task
    data.num_lengths = 6  # lengths that batches are padded to, each compiled once
    data.bad_rows = config_dict.placeholder(str)  # refuse or skip; None: by the task
    data.dev_share = config_dict.placeholder(float)  # of train, where there is no dev; None: task's
    data.train_rows = config_dict.placeholder(int)  # examples to learn from, drawn; None: all
    data.double_unordered = config_dict.placeholder(bool)  # pairs in both orders; None: by the task
    data.tfds_data_dir = config_dict.placeholder(str)  # where TensorFlow datasets are kept
    # Of data of your own: CSV, TSV or JSON lines with these columns.
    data.text_column = "text"  # the text, or the first of two
    data.text_b_column = "text_b"  # the second text, where there is such a column
    data.label_column = "label"  # the label or number
    data.id_column = ""  # a name of each row; "": its number
    data.labels = ()  # in order; (): those of the training data, sorted
    data.multilabel = False  # whether a row has any number of labels
    data.label_separator = ","  # between the labels of a row
    data.tag_scheme = "as_file"  # of tagging; or bioes
    # Of question answering.
    data.stride = 128  # tokens from one window of a long text to the next
    data.max_question_length = 64  # tokens; longer ones are cut, and counted
    data.null_threshold = -2.75  # of SQuAD 2.0: null odds above it mean "no answer"

    model = config.model = config_dict.ConfigDict()
    model.dropout_rate = 0.1  # of embeddings and of what layers add
    model.attention_dropout_rate = 0.1  # of attention's probabilities
    model.dtype = "auto"  # float32 on CPU, bfloat16 on GPU and TPU
    model.scan_layers = "auto"  # unrolled on CPU and GPU, scanned on TPU
    model.head_dropout_rate = 0.1  # of what the head is given
    model.head_hidden_layer = False  # as Hugging Face's classifier
    model.joint_spans = True  # ends given starts; False: as Hugging Face's, for exchange
    model.answerability = True  # a head that says whether there is an answer (SQuAD 2.0)

    optimizer = config.optimizer = config_dict.ConfigDict()
    optimizer.warmup_proportion = 0.1  # share of the steps in which the rate rises
    optimizer.layer_decay = config_dict.placeholder(float)  # None: by the encoder's size
    optimizer.layer_decay_skips_a_depth = False  # True: the original's one factor too many
    optimizer.weight_decay = 0.0  # the paper's; the original code's default was 0.01
    optimizer.b1 = 0.9  # decay of the first moment
    optimizer.b2 = 0.999  # decay of the second moment
    optimizer.eps = 1e-6  # added to the second moment's root
    optimizer.max_grad_norm = 1.0  # gradients are clipped to this norm
    optimizer.frozen = ()  # patterns of names, such as ("^embeddings/",)

    grid = config.grid = config_dict.ConfigDict()  # every combination, each with all trials
    grid.learning_rates = ()  # tried one by one; (): learning_rate alone
    grid.num_epochs = ()  # likewise

    train = config.train = config_dict.ConfigDict()
    train.log_every = 50  # steps
    train.checkpoint_every = 500  # steps
    train.on_nonfinite = "raise"  # or skip: leave the step out, count it, go on
    train.predict_test = True  # write predictions for the test files that there are

    config.parallel = common.parallel_config()
    config.logging = common.logging_config()
    return config
