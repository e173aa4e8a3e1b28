"""What the program takes and gives. No torch.

It takes a photo on a canvas (common/image/letterbox.py); what it gives becomes boxes and masks in the photo
(common/objects/detections.py). Training, evaluation and service call the same functions, so none can differ.
"""

OUTPUTS = ("boxes", "scores", "labels", "masks")  # of the program's graph, in order
