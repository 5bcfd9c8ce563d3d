"""What every recipe starts from; a recipe changes a few of these. `{workdir}` stands for --workdir."""

import ml_collections

from configs import networks
from ukbob_jax import options
from ukbob_jax.inference.adaptation.options import OF_THE_NETWORK, Adaptation, BatchNorm, Tent
from ukbob_jax.inference.windows.window import Window
from ukbob_jax.sources.files import ReadOptions
from ukbob_jax.volumes import layouts


def base() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "train"  # what is done; several jobs, in order: "ingest,train"
    config.seed = 0  # of weights, crops and augmentations
    config.platform = "any"  # "cpu", "gpu" or "tpu": refuse to run elsewhere
    config.store = "{workdir}/store"  # folder of the volume store
    config.label = "auto"  # label set that is filtered and trained on
    config.workers = 0  # processes of the ingest job; 0: one per core
    config.repair = False  # verify job: drop damaged subjects from the store
    config.cluster = ""  # ingest through dask: "local" or a scheduler's address; empty: processes here

    config.solf = ml_collections.ConfigDict()
    config.solf.epsilon = 2.0  # percent cut off at either end; the paper's best
    config.solf.min_outside = 2  # of three measures
    config.solf.min_voxels = 24  # median size under which a structure is too small to be judged by its shape
    config.solf.rule = "percentile"  # or "robust": median +- k MAD
    config.solf.deviations = 3.5  # k of the robust rule, in standard deviations
    config.solf.min_count = 10  # labels of a class, under which it is not judged
    config.solf.strata = ()  # of "sex" and "height": each group of people gets limits of its own
    config.solf.height_band_mm = 100.0  # width of a height group
    config.solf.limits = ""  # a limits.json to judge by; empty: fitted on this store
    config.solf.decisions = ""  # .json or .csv of the audit page; its decisions overrule the limits
    config.solf.body = "body"  # label set that is 1 in the body, if all have it; else the union of labels
    config.solf.stations = ""  # label set that holds each voxel's station, to measure contact with seams
    config.solf.process = 0  # which share of the subjects to measure, of
    config.solf.processes = 1  # so many; the shares only measure, a run with 1 judges what they measured

    config.audit = ml_collections.ConfigDict()
    config.audit.cases = 120  # flagged labels that are shown with pictures, largest outlier score first
    config.audit.rows = 2_000  # flagged labels that are listed
    config.audit.grades = ""  # a sentinel.jsonl to show beside; empty: the one in the store, if there is one
    config.audit.worst = 12  # lowest grades that are listed, flagged or not
    config.audit.age_band_years = 10.0  # width of an age group in the table of grades
    config.audit.contrast = ""  # name of the contrast in the pictures; empty: the last but one of the store

    config.check_labels = ml_collections.ConfigDict()
    config.check_labels.inputs = ""  # a label map or a folder of them, ids as in `anatomy`
    config.check_labels.limits = ""  # the limits.json to judge by
    config.check_labels.sex = ""  # "F" or "M", where the limits have strata
    config.check_labels.height_mm = 0.0  # of the person, where the limits have strata by height

    config.labeller = ml_collections.ConfigDict()
    config.labeller.kind = (
        "command"  # or "teacher": the network of `workdir`; "nnunet": the model folder `model`
    )
    config.labeller.name = "auto"  # label set that is written
    config.labeller.version = ""  # of the labeller, as its makers name it; other versions label anew
    config.labeller.contrasts = ()  # names to label one by one; empty: the only one, or all that a network takes at once
    config.labeller.merge = "vote"  # of several contrasts: "vote", "first", "rules"; a teacher takes the mean
    config.labeller.water_only = (
        "muscle",
        "subcutaneous_fat",
        "inner_fat",
    )  # "rules": only water decides these
    config.labeller.command = ""  # program and arguments with {input} and {output}, both .nii.gz
    config.labeller.labels = ""  # label set of its ids, a key of `anatomy.DATASETS`; empty: ours
    config.labeller.timeout_s = 3600.0  # of one call
    config.labeller.workers = 1  # calls, or scans, at a time; 0 with a model folder: 2 beside one per device
    config.labeller.workdir = "{workdir}"  # of the teacher's training
    config.labeller.method = (
        "off"  # how a network is adapted to each scan: of evaluate.methods; model folders: "etta"
    )
    config.labeller.model = (
        ""  # folder of nnU-Net, .../Dataset123_Name/TRAINER__PLANS__CONFIGURATION; or of a preset
    )
    config.labeller.preset = (
        ""  # "vibesegmentator", "totalsegmentator_ct", "totalsegmentator_mr": their steps around it
    )
    config.labeller.speed = ""  # "fast" (3 mm) or "fastest" (6 mm): the preset's smaller models
    config.labeller.folds = ""  # of it that are averaged, such as "0,1"; empty: all, or those of the preset
    config.labeller.step_size = (
        0.0  # from one tile to the next, as a fraction of the tile; 0: 0.5, or the preset's
    )
    config.labeller.mirror = True  # average over the flips that the checkpoint allows; presets never do
    config.labeller.batch = 0  # tiles per device in a call of the network; 0: 1, or 8 for a network of slices
    config.labeller.orientation = (
        ""  # of what the model is given, "LPS"; empty: as dataset.json says, else the store's, RAS
    )
    config.labeller.label_table = ""  # file of `model's id, our id`; empty: names decide, or labeller.labels
    config.labeller.process = 0  # which share of the subjects to label, of
    config.labeller.processes = 1  # so many

    config.agreement = ml_collections.ConfigDict()
    config.agreement.auto = "auto"  # label set that is judged
    config.agreement.manual = "manual"  # label set it is compared with
    config.agreement.subset = "abdomen"  # of the classes: "abdomen", "btcv", "amos" or "all"
    config.agreement.split = ""  # empty: every subject that has both
    config.agreement.tolerance_mm = 1.0  # of the surface Dice

    config.splits = ""  # JSON of who trains and who validates, or a list of such; empty: the store's
    config.folds = 0  # cut the training split into so many folds instead, and validate with one
    config.fold = 0  # which of several splits, or of the folds

    config.data = ml_collections.ConfigDict()
    config.data.train_split = "train"  # whose subjects are learnt from
    config.data.val_split = "val"  # whose subjects validate; empty: none
    config.data.val_label = "manual"  # label set that validation compares with
    config.data.names = ""  # label set of the labels' ids, a key of `anatomy.DATASETS`; empty: ours
    config.data.organs = ()  # names to learn, the others count as background; empty: all of the label set
    config.data.crop = (96, 96, 96)  # voxels, x y z; paper
    config.data.batch_size = 8  # crops per step over all devices; paper
    config.data.foreground = 0.67  # share of crops centred on a foreground voxel, classes drawn equally; ours
    config.data.sampling = (
        "balanced"  # every crop with that chance; "nnunet": the last of each batch, see data/options.py
    )
    config.data.normalize = "zscore"  # of the voxels that are not 0; an earlier released script
    config.data.contrasts = ()  # names to feed; empty: all in the store
    config.data.flagged = "ignore"  # rejected labels: "ignore", "drop" the scan, "background", or "off"
    config.data.flagged_by = (
        "solf"  # or "sentinel", "either", "both"; "weighted": Sentinel's grades weigh the loss
    )
    config.data.verdicts = ""  # a solf.jsonl; empty: the one in the store
    config.data.grades = ""  # a sentinel.jsonl; empty: the one in the store
    config.data.damaged = "stop"  # a crop that cannot be read ends the run; "skip": warn, ignore its voxels
    config.data.threads = 8  # readers within each process
    config.data.workers = 0  # reader processes; 0: threads only
    config.data.cache_gb = 1.0  # for scans kept decoded, per reading process; used only if all of them fit

    config.model = networks.swin_unetr()
    config.init = ""  # weights to start from: .pt, .safetensors or a checkpoints folder
    config.init_new = ()  # parts that start afresh: "head", "stem" or "stem_average", "decoder"; else all must fit
    config.regions = ""  # "brats", "brats2024", "brats_ped", "brats_men_rt", "decathlon"; "dataset": its own

    config.loss = ml_collections.ConfigDict()
    config.loss.name = "dice_ce"  # released script; or "dice_bce", the paper's
    config.loss.include_background = True  # False: Dice without class 0
    config.loss.squared = False  # squares in Dice's denominator
    config.loss.jaccard = False  # Jaccard's denominator in place of Dice's
    config.loss.batch = False  # Dice of the whole batch instead of each crop
    config.loss.smooth_nr = 1e-5  # added to Dice's numerator
    config.loss.smooth_dr = 1e-5  # and denominator
    config.loss.lambda_dice = 1.0  # factor on Dice
    config.loss.lambda_ce = 1.0  # factor on cross entropy
    config.loss.lowest = True  # deep supervision: the lowest resolution counts too; nnU-Net's does not
    config.loss.groups = (
        ""  # "sex", "age", "site": groups with larger errors weigh more (FairSeg); empty: no groups
    )
    config.loss.gamma = 1.0  # of groups: how much more; 0: not at all
    config.loss.bound = "present"  # smallest error of the groups in a batch; "released" has FairSeg's defects
    config.balance = 0.0  # cross entropy weighs a class by its frequency to the power of minus this
    config.augment = (
        "gamma",
        "intensity",
        "noise",
        "bias_field",
    )  # done to crops on the device, in this order; ours

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # or "sgd", with Nesterov momentum
    config.optimizer.learning_rate = 1e-4  # at its highest; released script
    config.optimizer.warmup_steps = 500  # in which the rate rises from 0; ours
    config.optimizer.schedule = "cosine"  # after the warm-up; or "polynomial", "constant", "sawtooth"
    config.optimizer.decoder_steps = 0  # of "sawtooth": the encoder stays, the rate rises and falls
    config.optimizer.final_fraction = 0.0  # of the rate, at the end of the schedule
    config.optimizer.power = 0.9  # of the polynomial
    config.optimizer.hold_steps = 1  # the rate changes only every so many steps
    config.optimizer.momentum = 0.99  # of SGD
    config.optimizer.b1 = 0.9  # Adam's
    config.optimizer.b2 = 0.999  # Adam's
    config.optimizer.eps = 1e-8  # Adam's, added to the denominator
    config.optimizer.weight_decay = (
        1e-5  # released script; AdamW's is decoupled, SGD's is part of the gradient
    )
    config.optimizer.clip_norm = 1.0  # largest norm of the whole gradient; ours
    config.optimizer.layer_decay = 1.0  # factor on the rate per encoder stage towards the input; 1: none
    config.optimizer.frozen = ""  # regular expression on parameter paths, "^swin/stage[12]": those stay
    config.optimizer.trainable = ""  # the same the other way round; empty: all

    config.train = ml_collections.ConfigDict()
    config.train.steps = 100_000  # length of the training; ours, as the next four
    config.train.log_every = 50  # steps between rows of metrics.jsonl
    config.train.eval_every = 2_000  # steps between validations; 0: none
    config.train.checkpoint_every = 1_000  # steps between checkpoints
    config.train.stop_after_nonfinite = 20  # skipped steps in a row that end the run
    config.train.keep = 2  # latest checkpoints that stay, beside the best
    # number of the validation that ranks checkpoints, and which end is best
    config.train.best = ("val/dice", "max")
    config.train.accumulate = 1  # passes of the network per step, over that share of the batch each
    config.train.ema = 0.0  # decay of the running average of the weights that is validated and kept; 0: none

    config.epochs = ml_collections.ConfigDict()
    config.epochs.total = 0  # length in epochs; 0: train.steps and optimizer.warmup_steps count
    config.epochs.warmup = 0
    config.epochs.decoder = 0  # becomes optimizer.decoder_steps
    config.epochs.crops = 4  # of each subject in an epoch; released script

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices that share the batch; -1: all that are left
    config.mesh.fsdp = 1  # devices that share the batch and also the parameters
    config.mesh.space = 1  # devices that share each crop, split along x

    config.inference = ml_collections.ConfigDict()
    config.inference.overlap = Window.overlap  # fraction of a window that its neighbour covers
    config.inference.blend = Window.blend  # of overlapping windows: "gaussian" or "constant"
    config.inference.batch = Window.batch  # windows per call
    config.inference.mirror = False  # average with the mirror image, sides exchanged
    config.inference.dtype = ""  # "bfloat16" or "float32"; empty: as in training
    config.inference.gate = False  # remove organs whose part of the body is not in the scan

    # methods of adaptation; fields, meaning and defaults are those of ukbob_jax/inference/adaptation/options.py
    config.etta = options.section(Adaptation, OF_THE_NETWORK)  # max_drift=inf: no limit
    config.tent = options.section(Tent, OF_THE_NETWORK)
    config.bn = options.section(BatchNorm, OF_THE_NETWORK)

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.name = "test"  # of the files in {workdir}/evaluation
    config.evaluate.split = "test"  # whose subjects are scored
    config.evaluate.label = "manual"  # label set that is taken for the truth
    config.evaluate.methods = ("off", "etta")  # also "tent", "bn" (batch norm), "tta" (mean of changed views)
    config.evaluate.label_map = ""  # "btcv", "amos", ...: whose ids the labels have; compare common classes
    config.evaluate.surface = True  # HD95, mean distance and surface Dice too
    config.evaluate.lesions = False  # also count connected pieces: lesions found, missed and false
    config.evaluate.tolerance_mm = 1.0  # of the surface Dice
    config.evaluate.tolerances_mm = ml_collections.ConfigDict()  # organ -> its own tolerance
    config.evaluate.groups = ""  # attribute whose groups are compared, such as "sex"
    config.evaluate.age_band_years = 10.0  # width of an age group
    config.evaluate.pictures = 1  # subjects whose label maps are kept
    config.evaluate.scanners = ()  # of the phantom, for the demo

    config.predict = ml_collections.ConfigDict()
    config.predict.inputs = ""  # a scan or a folder of scans
    config.predict.output = "{workdir}/predictions"  # folder of the label maps
    config.predict.method = "off"  # one of those of evaluate.methods
    config.predict.existing = "refuse"  # or "skip", "overwrite"
    config.predict.limits = ""  # a limits.json of the solf job, to judge what is found
    config.predict.accept_unusual = False  # segment scans unlike those of training: volumes/plausibility.py
    config.predict.nan = "refuse"  # scans with NaN or infinite voxels, or "zero" those voxels
    config.predict.layout = ""  # of inputs with one file per contrast: "brats", "nnunet", ...

    config.organs = ()  # names that are scored; empty: all in the label set
    return config


def labelled_files(config: ml_collections.ConfigDict, layout: str, **paths: str) -> None:
    """Scans with manual labels in files of their own: where they are, and that nothing filters the labels."""
    config.job = "ingest,train"
    config.label = "manual"
    config.data.flagged = "off"  # manual labels; and a few scans are no population to filter by
    config.source = files_source(layout, **paths)


def files_source(layout: str, **paths: str) -> ml_collections.ConfigDict:
    """A source of files: where they are, and how they are read; sources/files.py says what each field means.

    A layout's module in ukbob_jax/volumes/layouts says what its selectors mean; "": not given.
    """
    source = options.section(ReadOptions)
    source.kind = "files"  # where subjects come from: also "ukb", "openmind", "dwi", "phantom"
    source.layout = layout  # how the files lie: a module of ukbob_jax/volumes/layouts
    source.paths = {**layouts.selectors(next(iter(paths))), **paths}
    source.splits = {"val": 0, "test": 0}  # persons, of those whom the data set puts nowhere; the rest trains
    source.seed = 0  # draws them
    return source


def finetune(config: ml_collections.ConfigDict, layout: str) -> None:
    """What the paper's fine-tuning runs share. Unmarked numbers: the paper or the script released with it."""
    labelled_files(config, layout, root="")
    config.data.crop = (96, 96, 96)
    config.data.batch_size = 8
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-5
    config.optimizer.clip_norm = 1.0  # ours
    config.optimizer.layer_decay = 0.75  # ours
    config.epochs.total = 500
    config.epochs.warmup = 50
