"""Objects in pictures: annotations, masks, matching, average precision."""
