"""A user's trained network, made smaller: what `prunas shrink` finds on CIFAR-10."""
