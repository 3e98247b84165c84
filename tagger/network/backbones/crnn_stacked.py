"""The FMA report's second convolutional recurrent network: deeper, with two LSTMs."""

from tagger.network.backbones.crnn import Crnn, CrnnParams


class CrnnStackedParams(CrnnParams):
    """Five convolutions, two stacked LSTMs, and dropout behind the first convolution only."""

    convolutions: int = 5
    dropout_first_only: bool = True
    lstms: int = 2


class CrnnStacked(Crnn):
    """`crnn` with the report's other choices."""

    Params = CrnnStackedParams
    params: CrnnStackedParams


ENTRY = CrnnStacked
