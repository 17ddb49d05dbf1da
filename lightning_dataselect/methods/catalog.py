"""List every selection method, in one place and without importing any: a list of them must not take seconds.

A new method is a file in this room, an entry here, and its name in ``methods/__init__.py``.
"""

from lightning_dataselect.methods.info import MethodInfo

_METHODS = (
    MethodInfo(
        name="AutoAssist",
        module="autoassist.callback",
        year=2019,
        paper="Zhang et al., AutoAssist: A Framework to Accelerate Training of Deep Neural Networks, NeurIPS 2019",
        url="https://arxiv.org/abs/1905.03381",
        kind="batch-level",
        needs="losses, raw inputs",
        drops="the samples of each batch that its assistant finds easy, at most 1 - base_prob; takes no prune_ratio",
        published="ResNet: the same accuracy in 40 % fewer epochs; Transformer: the same BLEU in 30 % less time",
    ),
    MethodInfo(
        name="CCS",
        module="ccs",
        year=2023,
        paper="Zheng, Liu, Lai, Prakash, Coverage-centric Coreset Selection for High Pruning Rates, ICLR 2023",
        url="https://arxiv.org/abs/2210.15809",
        kind="static",
        needs="logits and targets",
        drops="prune_ratio of all samples for good: the hardest, then the others evenly over the range of scores",
        published="CIFAR-10 at 90 % dropped: 7.04 points above random, at least 19.56 above other methods",
    ),
    MethodInfo(
        name="DBPD",
        module="progressive_dropout",
        year=2025,
        paper=(
            "M S et al., Progressive Data Dropout: An Embarrassingly Simple Approach to Faster Training, NeurIPS 2025"
        ),
        url="https://arxiv.org/abs/2505.22342",
        kind="batch-level",
        needs="logits and targets",
        drops=(
            "samples whose class is predicted with probability `threshold` or more, within each batch; nothing in the"
            " last epoch; takes no prune_ratio"
        ),
        published="12.4 % of the epochs (in samples back-propagated) at no loss of accuracy; up to 4.82 points gained",
    ),
    MethodInfo(
        name="DivBS",
        module="divbs",
        year=2024,
        paper="Hong, Lyu, Yao, Zhang, Tsang, Wang, Diversified Batch Selection for Training Acceleration, ICML 2024",
        url="https://arxiv.org/abs/2406.04872",
        kind="batch-level",
        needs="logits, targets and the input of the last linear layer",
        drops="all but batch_ratio of each batch; takes no prune_ratio",
        published="a better trade-off of accuracy and speed-up than choices that rate each sample by itself",
    ),
    MethodInfo(
        name="DUAL",
        module="dual",
        year=2025,
        paper=(
            "Cho, Shin, Kang, Yun, Lightweight Dataset Pruning without Full Training via Example Difficulty and"
            " Prediction Uncertainty, ICML 2025"
        ),
        url="https://arxiv.org/abs/2502.06905",
        kind="static",
        needs="logits and targets",
        drops="prune_ratio of all samples for good, once they are scored",
        published="ImageNet-1K at 90 % dropped: 60 % accuracy, with 66 % of the usual cost of scoring",
    ),
    MethodInfo(
        name="EL2N",
        module="el2n",
        year=2021,
        paper="Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021",
        url="https://arxiv.org/abs/2107.07075",
        kind="static",
        needs="logits and targets",
        drops="prune_ratio of all samples for good, once they are scored",
        published=(
            "CIFAR-10 ResNet-18 95.3 / 95.1 / 91.9 % at 30 / 50 / 70 % dropped (full 95.6), as later papers tabulate it"
        ),
    ),
    MethodInfo(
        name="EpsilonGreedy",
        module="dynamic_pruning",
        year=2021,
        paper="Raju, Daruwalla, Lipasti, Accelerating Deep Learning with Dynamic Data Pruning",
        url="https://arxiv.org/abs/2111.12621",
        kind="set-level",
        needs="losses, or logits and targets",
        drops="prune_ratio of all samples in each epoch after the warm-up",
        published="up to 2x less training time on CIFAR-10/100 without significant loss",
    ),
    MethodInfo(
        name="ESWP",
        module="evolved_sampling",
        year=2025,
        paper="Cheng, Li, Bian, Data-Efficient Training by Evolved Sampling, 2025",
        url="https://arxiv.org/abs/2509.23461",
        kind="batch-level",
        needs="losses",
        drops="prune_ratio of all samples before each epoch, then all but batch_ratio of each batch",
        published="lossless in pre-training and post-training; up to nearly 45 % of wall-clock saved",
    ),
    MethodInfo(
        name="EvolvedSampling",
        module="evolved_sampling",
        year=2025,
        paper="Cheng, Li, Bian, Data-Efficient Training by Evolved Sampling, 2025",
        url="https://arxiv.org/abs/2509.23461",
        kind="batch-level",
        needs="losses",
        drops="all but batch_ratio of each batch; takes no prune_ratio",
        published="lossless in pre-training and post-training; up to nearly 45 % of wall-clock saved (with pruning)",
    ),
    MethodInfo(
        name="FewerEpochs",
        module="fewer_epochs",
        year=2026,
        paper="training on everything for fewer epochs, the schedule fitted to them: no paper's",
        url="",
        kind="set-level",
        needs="nothing",
        drops="no samples: the fit ends when the share `budget` of its compute is spent; takes no prune_ratio",
        published="the baseline of every comparison at equal compute: see the benchmarks",
    ),
    MethodInfo(
        name="Forgetting",
        module="forgetting",
        year=2019,
        paper="Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, ICLR 2019",
        url="https://arxiv.org/abs/1812.05159",
        kind="static",
        needs="logits and targets",
        drops="prune_ratio of all samples for good, once they are scored",
        published="30 % of CIFAR-10 dropped without loss of accuracy",
    ),
    MethodInfo(
        name="Frontier",
        module="frontier.callback",
        year=2026,
        paper="a method of this package's own: no paper describes it",
        url="",
        kind="set-level",
        needs="losses",
        drops="1 - budget of every epoch; samples already learnt, or contradicted by the rest, are left out longest",
        published="measured here only: see the benchmarks",
    ),
    MethodInfo(
        name="GraNd",
        module="grand",
        year=2021,
        paper="Paul, Ganguli, Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021",
        url="https://arxiv.org/abs/2107.07075",
        kind="static",
        needs="logits, targets and the input of the last linear layer; or the module's gradients",
        drops="prune_ratio of all samples for good, once they are scored",
        published="half of CIFAR-10 dropped without loss of accuracy, scored over ten networks",
    ),
    MethodInfo(
        name="IES",
        module="ies",
        year=2025,
        paper="Yuan, Lin, Feng, Han, Liu, Instance-dependent Early Stopping, ICLR 2025",
        url="https://arxiv.org/abs/2502.07547",
        kind="set-level",
        needs="losses",
        drops="samples whose loss has stopped changing, by `threshold`; takes no prune_ratio",
        published="10 % to 50 % fewer samples back-propagated at the same or slightly higher accuracy",
    ),
    MethodInfo(
        name="InfoBatch",
        module="infobatch",
        year=2024,
        paper="Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning, ICLR 2024",
        url="https://arxiv.org/abs/2303.04947",
        kind="set-level",
        needs="losses",
        drops=(
            "prune_ratio of the samples below the mean loss, so a smaller share of all; none in the first epoch and the"
            " last ones"
        ),
        published="lossless, 40 % of the cost saved on CIFAR-10/100 and ImageNet-1K",
    ),
    MethodInfo(
        name="KAKURENBO",
        module="kakurenbo",
        year=2023,
        paper=(
            "Nguyen, Gerofi, Martinez-Noriega, Trahay, Wahib, KAKURENBO: Adaptively Hiding Samples in Deep Neural"
            " Network Training, NeurIPS 2023"
        ),
        url="https://arxiv.org/abs/2310.10102",
        kind="set-level",
        needs="losses, logits and targets",
        drops="up to prune_ratio of all samples, those already learnt; the share falls as training goes on",
        published="up to 22 % less training time, 0.4 % of accuracy lost",
    ),
    MethodInfo(
        name="OrderDP",
        module="orderdp",
        year=2026,
        paper=(
            "Jin, Xu, Wang, Jia, Chen, Zeng, OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning"
            " Framework, ICLR 2026"
        ),
        url="https://arxiv.org/abs/2606.08574",
        kind="set-level",
        needs="losses",
        drops="prune_ratio of all samples in each epoch: some at random, then those of lowest loss among the others",
        published="more than 40 % of the cost saved on CIFAR-10/100 and ImageNet-1K at competitive accuracy",
    ),
    MethodInfo(
        name="RandomPruning",
        module="random_pruning",
        year=2024,
        paper=(
            "Okanovic et al., Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning (RS2), ICLR 2024"
        ),
        url="https://arxiv.org/abs/2305.18424",
        kind="set-level",
        needs="nothing",
        drops="prune_ratio of all samples in each epoch",
        published=(
            "CIFAR-10 ResNet-18 94.8 / 94.5 / 93.0 % at 30 / 50 / 70 % dropped (full 95.6), as later papers tabulate"
            " dynamic random pruning"
        ),
    ),
    MethodInfo(
        name="RCAP",
        module="rcap",
        year=2025,
        paper="Hassan, Khare, Paik, RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning, UAI 2025",
        url="https://arxiv.org/abs/2606.11761",
        kind="set-level",
        needs="losses and class targets",
        drops="prune_ratio of all samples in each epoch, fewer from small and from hard classes",
        published=(
            "more than 1 % above full training on imbalanced sets with a tenth of the data, 8.69x faster on average"
        ),
    ),
    MethodInfo(
        name="RHOLoss",
        module="rho_loss",
        year=2022,
        paper=(
            "Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt,"
            " ICML 2022"
        ),
        url="https://arxiv.org/abs/2206.07137",
        kind="batch-level",
        needs="losses, and those of a holdout model",
        drops="all but batch_ratio of each batch; takes no prune_ratio",
        published="18x fewer steps to the same accuracy on Clothing-1M",
    ),
    MethodInfo(
        name="ScoreSelector",
        module="score_selector",
        year=2026,
        paper="any score with any sampler of this package: no one paper describes it",
        url="",
        kind="static",
        needs="what its score and its sampler need",
        drops="prune_ratio of all samples, for good, or in each epoch with dynamic=True",
        published="see the papers of its score and of its sampler",
    ),
    MethodInfo(
        name="SelectiveBackprop",
        module="selective_backprop",
        year=2019,
        paper="Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019",
        url="https://arxiv.org/abs/1910.00762",
        kind="batch-level",
        needs="losses",
        drops=(
            "samples of each batch at random, more likely those of low loss; more of them with a higher beta; takes no"
            " prune_ratio"
        ),
        published="up to 3.5x faster to a target error",
    ),
    MethodInfo(
        name="SeTa",
        module="seta",
        year=2025,
        paper="Zhou, Gao, Wang, Scale Efficient Training for Large Datasets, CVPR 2025",
        url="https://arxiv.org/abs/2503.13385",
        kind="set-level",
        needs="losses",
        drops="prune_ratio of all samples at random, and of the rest those outside its window of losses",
        published="CIFAR-10 ResNet-18 95.7 / 95.3 / 95.0 % at 30 / 50 / 70 % dropped (full 95.6)",
    ),
    MethodInfo(
        name="SMRD",
        module="progressive_dropout",
        year=2025,
        paper=(
            "M S et al., Progressive Data Dropout: An Embarrassingly Simple Approach to Faster Training, NeurIPS 2025"
        ),
        url="https://arxiv.org/abs/2505.22342",
        kind="batch-level",
        needs="logits and targets",
        drops="as many samples of each batch as DBPD, at random; nothing in the last epoch; takes no prune_ratio",
        published="the control of DBPD in its paper",
    ),
    MethodInfo(
        name="SRD",
        module="progressive_dropout",
        year=2025,
        paper=(
            "M S et al., Progressive Data Dropout: An Embarrassingly Simple Approach to Faster Training, NeurIPS 2025"
        ),
        url="https://arxiv.org/abs/2505.22342",
        kind="set-level",
        needs="nothing",
        drops="1 - decay ** t of all samples in epoch t, at random; nothing in the last epoch; takes no prune_ratio",
        published="12.4 % of the epochs (in samples back-propagated) at no loss of accuracy; up to 4.82 points gained",
    ),
    MethodInfo(
        name="SwiftLearn",
        module="swiftlearn",
        year=2023,
        paper=(
            "Hajimolahoseini, Wen et al., SwiftLearn: A Data-Efficient Training Method of Deep Learning Models using"
            " Importance Sampling"
        ),
        url="https://arxiv.org/abs/2311.15134",
        kind="set-level",
        needs="the model's outputs",
        drops="prune_ratio of all samples, chosen afresh every few epochs",
        published=(
            "BERT on GLUE with almost 90 % of the data dropped: 3.36x faster end to end on average, less than 0.92 %"
            " of average accuracy lost"
        ),
    ),
    MethodInfo(
        name="TDDS",
        module="tdds",
        year=2024,
        paper=(
            "Zhang, Du, Li, Xie, Zhou, Spanning Training Progress: Temporal Dual-Depth Scoring (TDDS) for Enhanced"
            " Dataset Pruning, CVPR 2024"
        ),
        url="https://arxiv.org/abs/2311.13613",
        kind="static",
        needs="logits and targets",
        drops="prune_ratio of all samples for good, once they are scored",
        published="CIFAR-100 with a tenth of the data: 54.51 %, 7.83 points above random",
    ),
    MethodInfo(
        name="UCB",
        module="dynamic_pruning",
        year=2021,
        paper="Raju, Daruwalla, Lipasti, Accelerating Deep Learning with Dynamic Data Pruning",
        url="https://arxiv.org/abs/2111.12621",
        kind="set-level",
        needs="losses, or logits and targets",
        drops="prune_ratio of all samples in each epoch after the warm-up",
        published="up to 2x less training time on CIFAR-10/100 without significant loss",
    ),
)

CATALOG = {info.name: info for info in _METHODS}
"""Name of each class -> what is known about it, in alphabetical order."""
