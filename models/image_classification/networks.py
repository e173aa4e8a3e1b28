"""Networks that tell pictures apart: any of models/common/backbones, for the size that data and network ask for."""

import pandas as pd

from models.common.backbones.classifiers import Backbone
from models.common.backbones.sizes import picture_size
from models.image_classification.params import ImageData, ImageTrain


def backbone(data: ImageData, train: ImageTrain, photos: pd.DataFrame) -> Backbone:
    """The network that params name, for pictures of `data.image_size` px.

    photos: width and height of the training photos, from which the size follows where params give none.
    """
    size = data.image_size or picture_size(train.network, photos[["width", "height"]].min(axis=1).to_numpy())
    return Backbone(train.network, size, train.width)
