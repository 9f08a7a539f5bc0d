"""What a network is trained for: the data's splits and batches, the loss, the score."""
