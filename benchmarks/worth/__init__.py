"""How many trials of a sampler is one pruning run worth?"""
